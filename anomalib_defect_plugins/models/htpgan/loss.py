"""Adversarial losses of HTP-GAN: per-pixel cross-entropy on the logits of a joint batch.

The discriminator sees the real and the generated image in one batch, so that batch norm uses the same statistics for
both. In separate passes each image would be normalised by its own statistics, which removes the differences between
them.
"""

import torch
from torch import Tensor
from torch.nn import functional


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, real_share: Tensor) -> Tensor:
    """Binary cross-entropy per pixel, real against generated.

    Args:
        real_logits: Logits of M_n on the real image, shape (B, 1, H, W).
        fake_logits: Logits of M_n on the generated image, shape (B, 1, H, W).
        real_share: Share of the real image in each pixel of the generated image, shape (B, 1, H, W), in [0, 1].

    Returns:
        Scalar; 2 log 2 for an uninformed discriminator.
    """
    real = functional.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    return real + functional.binary_cross_entropy_with_logits(fake_logits, real_share)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of the generator: cross-entropy of the generated image's logits with "real", a scalar."""
    return functional.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))
