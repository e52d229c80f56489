"""HTP-GAN's losses: per-pixel adversarial terms on joint logits, and the reconstruction term of SinGAN.

The discriminator sees the real and the generated image in one batch, so that batch norm gives both the same
statistics. In separate passes each would be normalised by its own, and the very differences that tell them apart
would be gone.
"""

import torch
from torch import Tensor
from torch.nn import functional


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, real_share: Tensor) -> Tensor:
    """Binary cross-entropy of each pixel, real against generated.

    Args:
        real_logits: Logits of M_n on the real image, ``(B, 1, H, W)``.
        fake_logits: Logits of M_n on the generated image, ``(B, 1, H, W)``.
        real_share: How much of each pixel of the generated image is real, in [0, 1], ``(B, 1, H, W)``.

    Returns:
        Scalar; 2 log 2 where the discriminator knows nothing.
    """
    real = functional.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    return real + functional.binary_cross_entropy_with_logits(fake_logits, real_share)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss: how far the generated image is from being taken for real, a scalar."""
    return functional.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))
