"""The losses of Defect-GAN, eq. 5 to 12. Expectations and L1 norms are means over images and pixels.

Eq. 5 is replaced by the Wasserstein objective with gradient penalty, as stated in section 4.1. The two cycles are
halves of one batch, so every mean over a batch is half of their sum.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.models.defectgan.torch_model import Discriminator, Generator, everywhere


class LossWeights(NamedTuple):
    """Weights of the losses, after the paper's text; eq. 12 prints the last two lambdas under other names."""

    real_class: float = 2.0
    fake_class: float = 5.0
    reconstruction: float = 5.0
    map_cycle: float = 5.0
    map_size: float = 1.0
    penalty: float = 10.0
    map_size_warmup: int = 0
    """Number of steps in which ``map_size`` is limited to 1."""

    def at(self, step: int) -> "LossWeights":
        """Return the weights of a step, counted from 0: during the warm-up, ``map_size`` is at most the paper's 1."""
        return self if step >= self.map_size_warmup else self._replace(map_size=min(1.0, self.map_size))


class Task(NamedTuple):
    """Images of a training step with their present and target labels."""

    images: Tensor
    """Real normal and defective images, shape (B, 3, H, W), float in [-1, 1]."""
    labels: Tensor
    """Label vectors of the images, shape (B, K), 0 or 1; all 0 for a normal image."""
    targets: Tensor
    """Label vectors that the generator has to produce, shape (B, K), 0 or 1."""
    multi_label: bool
    """See :func:`class_loss`."""
    augment: Callable[[Tensor], Tensor] = nn.Identity()
    """Augmentation of the discriminator's images, real and fake; see ``DiffAugment``."""


def discriminator_losses(
    generator: Generator,
    discriminator: Discriminator,
    task: Task,
    weights: LossWeights,
    rng: torch.Generator,
    noise: torch.Generator,
) -> dict[str, Tensor]:
    """Compute the weighted terms of L_D, eq. 11; no gradient reaches the generator.

    Args:
        generator: G.
        discriminator: D.
        task: Images and labels of the step.
        weights: Loss weights.
        rng: CPU generator for the interpolation points of the gradient penalty.
        noise: Generator for the adaptive noise, on the device of the images.
    """
    images, labels, targets, multi_label, augment = task
    with torch.no_grad():
        fake = augment(generator(images, everywhere(targets), noise).images)
    images = augment(images)
    scores, logits = discriminate(discriminator, images, labels)
    position = torch.rand(len(images), 1, 1, 1, generator=rng).to(images.device)
    # With a score per class, the line ends at a fake image of the real one's class: that of its pair.
    end = fake if logits is not None else fake.roll(len(fake) // 2, 0)
    with torch.autocast(images.device.type, enabled=False):  # the gradient may overflow in 16 bits
        penalty = gradient_penalty(
            lambda x: discriminate(discriminator, x, labels)[0], images, end.to(images.dtype), position
        )
    losses = {
        "critic_loss": critic_loss(scores, discriminate(discriminator, fake, targets)[0]),
        "penalty_loss": weights.penalty * penalty,
    }
    if logits is not None:
        losses["real_class_loss"] = weights.real_class * class_loss(logits, labels, multi_label)  # eq. 6
    return losses


def generator_losses(
    generator: Generator, discriminator: Discriminator, task: Task, weights: LossWeights, noise: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the weighted terms of L_G, eq. 12, and the maps of the first half of each cycle, (B, 1, H, W).

    The arguments are those of :func:`discriminator_losses`. Map losses with weight 0 are omitted.
    """
    images, labels, targets, multi_label, augment = task
    fake, maps = generator(images, everywhere(targets), noise)
    restored, maps_back = generator(fake, everywhere(labels), noise)
    scores, logits = discriminate(discriminator, augment(fake), targets)
    losses = {
        "adversarial_loss": adversarial_loss(scores),
        "reconstruction_loss": weights.reconstruction * reconstruction_loss(images, restored),
    }
    if logits is not None:
        losses["fake_class_loss"] = weights.fake_class * class_loss(logits, targets, multi_label)  # eq. 7
    if weights.map_cycle:
        losses["map_cycle_loss"] = weights.map_cycle * map_cycle_loss(maps, maps_back)
    if weights.map_size:
        losses["map_size_loss"] = weights.map_size * map_size_loss(maps, maps_back)
    return losses, maps


def discriminate(discriminator: Discriminator, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Score images as real images of their labels.

    Args:
        discriminator: D.
        images: Images, shape (B, 3, H, W), float in [-1, 1].
        labels: Label vectors, shape (B, K), 0 or 1.

    Returns:
        Scores, shape (B, 1, h, w), and class logits. If D has a score for each class, the scores are those of the
        image's class, or the mean over its classes, and there are no logits.
    """
    scores, logits = discriminator(images)
    if logits is not None:
        return scores, logits
    share = torch.cat([1 - labels.amax(1, keepdim=True), labels], 1)
    share = share / share.sum(1, keepdim=True)
    return (scores * share[:, :, None, None]).sum(1, keepdim=True), None


def paired_losses(
    generator: Generator,
    normal: Tensor,
    content: DefectGenerator,
    weights: LossWeights,
    rng: torch.Generator,
    noise: torch.Generator,
) -> dict[str, Tensor]:
    """Weighted losses of the restoration of synthetic defects, whose clean images and places are known.

    Not in the paper: the map learns to be low outside of defects before the adversarial losses can tell it.

    Args:
        generator: G.
        normal: Normal images, shape (B, 3, H, W), float in [-1, 1].
        content: Generator of synthetic defects.
        weights: Loss weights; both losses have that of L_rec.
        rng: CPU generator for the synthetic defects.
        noise: Generator for the adaptive noise, on the device of the images.
    """
    defective, masks = content(((normal + 1) / 2).clamp(0, 1).float(), rng)
    control = normal.new_zeros(1, generator.categories, 1, 1)
    restored, maps = generator(2 * defective - 1, control.expand(len(normal), -1, -1, -1), noise)
    with torch.autocast(normal.device.type, enabled=False):  # cross-entropies of probabilities need 32 bits
        place = functional.binary_cross_entropy(maps.float(), masks.float())
    return {
        "paired_loss": weights.reconstruction * reconstruction_loss(normal, restored),
        "paired_map_loss": weights.reconstruction * place,
    }


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Loss of D_src in place of eq. 5: mean score of fake images minus that of real ones; scores of any shape."""
    return fake.mean() - real.mean()


def adversarial_loss(fake: Tensor) -> Tensor:
    """Loss of G in place of eq. 5: the negative mean score of its images."""
    return -fake.mean()


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, position: Tensor) -> Tensor:
    """Gradient penalty of WGAN-GP (https://arxiv.org/abs/1704.00028, eq. 3), without its weight.

    Args:
        score: Function from images to scores of any shape (B, ...), which are summed over each image.
        real: Real images, shape (B, C, H, W).
        fake: Fake images, same shape; no gradient reaches them.
        position: Where the gradient is taken, shape (B, 1, 1, 1), from 0 at the fake image to 1 at the real one.
    """
    between = torch.lerp(fake.detach(), real.detach(), position).requires_grad_()
    (gradient,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (norm - 1).square().mean()


def class_loss(logits: Tensor, labels: Tensor, multi_label: bool) -> Tensor:
    """Negative log-likelihood -log D_cls(c | d), eq. 6 and 7.

    Args:
        logits: Logits, shape (B, K) if ``multi_label``, else (B, 1 + K) with the normal class first.
        labels: Label vectors, shape (B, K), 1 for each defect type of an image; all 0 for a normal image.
        multi_label: Whether an image may have several types (binary cross-entropy, summed over the types) or at most
            one (cross-entropy).
    """
    if multi_label:
        total = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return total / len(labels)
    normal = 1 - labels.amax(1, keepdim=True)
    return functional.cross_entropy(logits, torch.cat([normal, labels], 1).argmax(1))


def reconstruction_loss(image: Tensor, restored: Tensor) -> Tensor:
    """L_rec, eq. 8: L1 distance between images in [-1, 1] and their reconstruction by a cycle."""
    return (image - restored).abs().mean()


def map_cycle_loss(maps: Tensor, maps_back: Tensor) -> Tensor:
    """L_sd-cyc, eq. 9: L1 distance between the two spatial distribution maps of a cycle, (B, 1, H, W)."""
    return (maps - maps_back).abs().mean()


def map_size_loss(maps: Tensor, maps_back: Tensor) -> Tensor:
    """L_sd-con, eq. 10: sum of the L1 norms of the two maps of a cycle."""
    return maps.abs().mean() + maps_back.abs().mean()
