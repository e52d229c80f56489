"""The losses of Defect-GAN, eq. 5 to 12. Expectations and L1 norms are means over images and pixels.

Eq. 5 is replaced by the Wasserstein objective with gradient penalty, as section 4.1 says. The two cycles are halves of
one batch, so a mean over it is half of their sum, in all losses alike.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.models.defectgan.torch_model import Discriminator, Generator, everywhere


class LossWeights(NamedTuple):
    """Weights of the losses, by the paper's text; eq. 12 prints the last two lambdas under other names."""

    real_class: float = 2.0
    fake_class: float = 5.0
    reconstruction: float = 5.0
    map_cycle: float = 5.0
    map_size: float = 1.0
    penalty: float = 10.0
    map_size_warmup: int = 0
    """Steps before ``map_size`` may be above 1."""

    def at(self, step: int) -> "LossWeights":
        """Give the weights of a step, from 0: before ``map_size_warmup``, that of L_sd-con is at most the paper's 1."""
        return self if step >= self.map_size_warmup else self._replace(map_size=min(1.0, self.map_size))


class Task(NamedTuple):
    """What a step is about."""

    images: Tensor
    """Real images of both kinds, (B, 3, H, W), in [-1, 1]."""
    labels: Tensor
    """The defects that they show, (B, K), 0 or 1; all 0 is normal."""
    targets: Tensor
    """The defects that the generator shall make of them, likewise."""
    multi_label: bool
    """See :func:`class_loss`."""


def discriminator_losses(
    generator: Generator,
    discriminator: Discriminator,
    task: Task,
    weights: LossWeights,
    rng: torch.Generator,
    noise: torch.Generator,
) -> dict[str, Tensor]:
    """Give the weighted losses of L_D, eq. 11; no gradient reaches the generator.

    Args:
        generator: G.
        discriminator: D.
        task: The images and what they shall become.
        weights: The weights.
        rng: Source of the penalty's places, a generator of the CPU.
        noise: Source of the generator's noise, on the device of the images.
    """
    images, labels, targets, multi_label = task
    with torch.no_grad():
        fake = generator(images, everywhere(targets), noise).images
    scores, logits = discriminator(images)
    share = torch.rand(len(images), 1, 1, 1, generator=rng).to(images.device)
    with torch.autocast(images.device.type, enabled=False):  # a gradient in 16 bits may be out of range
        penalty = gradient_penalty(lambda x: discriminator(x)[0], images, fake.to(images.dtype), share)
    return {
        "critic_loss": critic_loss(scores, discriminator(fake)[0]),
        "penalty_loss": weights.penalty * penalty,
        "real_class_loss": weights.real_class * class_loss(logits, labels, multi_label),  # eq. 6
    }


def generator_losses(
    generator: Generator, discriminator: Discriminator, task: Task, weights: LossWeights, noise: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Give the weighted losses of L_G, eq. 12, and the maps of the first half of each cycle, (B, 1, H, W).

    The arguments are those of :func:`discriminator_losses`. Losses of maps without weight are left out.
    """
    images, labels, targets, multi_label = task
    fake, there = generator(images, everywhere(targets), noise)
    restored, back = generator(fake, everywhere(labels), noise)
    scores, logits = discriminator(fake)
    losses = {
        "adversarial_loss": adversarial_loss(scores),
        "fake_class_loss": weights.fake_class * class_loss(logits, targets, multi_label),  # eq. 7
        "reconstruction_loss": weights.reconstruction * reconstruction_loss(images, restored),
    }
    if weights.map_cycle:
        losses["map_cycle_loss"] = weights.map_cycle * map_cycle_loss(there, back)
    if weights.map_size:
        losses["map_size_loss"] = weights.map_size * map_size_loss(there, back)
    return losses, there


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What D_src lowers instead of eq. 5: the mean score of fakes less that of real images, scores of any shape."""
    return fake.mean() - real.mean()


def adversarial_loss(fake: Tensor) -> Tensor:
    """What G lowers instead of eq. 5: minus the mean score of its images."""
    return -fake.mean()


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """The penalty of WGAN-GP (https://arxiv.org/abs/1704.00028, eq. 3), without its weight.

    Args:
        score: Maps images to scores of any shape, (B, ...); those of an image are added up.
        real: (B, C, H, W).
        fake: The same; no gradient flows into it.
        share: Share of the real image at which the gradient is taken, (B, 1, 1, 1), in [0, 1].
    """
    between = torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
    (gradient,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def class_loss(logits: Tensor, labels: Tensor, multi_label: bool) -> Tensor:
    """Minus the logarithm of D_cls(c | d), eq. 6 and 7.

    Args:
        logits: (B, K) if ``multi_label``, else (B, 1 + K), the first of which is for "no defect".
        labels: (B, K), 1 for each type of defect that an image has; all 0 for a normal image.
        multi_label: Whether types are independent of each other (binary cross-entropy, added up over the types), or an
            image has one at most (cross-entropy).
    """
    if multi_label:
        total = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return total / len(labels)
    normal = 1 - labels.amax(1, keepdim=True)
    return functional.cross_entropy(logits, torch.cat([normal, labels], 1).argmax(1))


def reconstruction_loss(image: Tensor, restored: Tensor) -> Tensor:
    """L_rec, eq. 8: L1 between an image in [-1, 1] and what a cycle makes of it."""
    return (image - restored).abs().mean()


def map_cycle_loss(there: Tensor, back: Tensor) -> Tensor:
    """L_sd-cyc, eq. 9: L1 between the spatial distribution maps of a cycle, (B, 1, H, W)."""
    return (there - back).abs().mean()


def map_size_loss(there: Tensor, back: Tensor) -> Tensor:
    """L_sd-con, eq. 10: the sum of the L1 norms of both maps of a cycle."""
    return there.abs().mean() + back.abs().mean()
