"""Local changes of tone, contrast, sharpness or texture, from barely visible to strong, with hard and soft edges.

Networks that learn to segment one kind of artificial defect learn its artefact (such as the grain of noise, or the edge
of a patch). Here the only thing that defects have in common is that they are unlike their surroundings.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_kinds, check_range
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.rng import device_rng
from anomalib_defect_plugins.generators.masks import LOCAL_KINDS, MASK_KINDS, random_masks

Uniform = Callable[[float, float], Tensor]
"""Draws a number for each image between two limits: (B, 1, 1, 1)."""


class PerturbDefects(DefectGenerator):
    """Change images in random masks: each by one of several contents, blended in with an opacity of its own.

    Args:
        contents: Some of ``CONTENTS``: ``tone`` (one flat grey level), ``offset`` (the texture, lighter or darker),
            ``fade`` (the texture with less contrast, down to none), ``boost`` (with more), ``elsewhere`` (texture of
            another place in another image) and ``noise`` (Gaussian noise).
        opacity: Least and greatest opacity, within 0.05 and 1.
        kinds: Kinds of mask, some of ``MASK_KINDS``; a batch mixes them.
        most: Greatest number of defects in an image; each has from one to so many, one drawn over the other.

    Raises:
        InvalidInputError: An argument cannot be.
    """

    name: ClassVar[str] = "perturb"

    def __init__(
        self,
        contents: Sequence[str] = ("tone", "offset", "fade", "boost", "elsewhere", "noise"),
        opacity: tuple[float, float] = (0.3, 1.0),
        kinds: Sequence[str] = LOCAL_KINDS,
        most: int = 3,
    ) -> None:
        self.contents = check_kinds("contents of PerturbDefects", contents, CONTENTS)
        check_range("opacity of PerturbDefects", opacity, 0.05, 1)
        self.opacity = opacity
        self.kinds = check_kinds("kinds of PerturbDefects", kinds, MASK_KINDS)
        if most < 1:
            msg = f"most of PerturbDefects is {most}; it must be 1 or more"
            raise InvalidInputError(msg)
        self.most = most

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Blend contents into masks (B, 1, H, W)."""
        # The defects of all images are one batch, D; the loop lays each image's own on it, one over the other.
        numbers = torch.randint(1, self.most + 1, (len(images),), generator=rng)
        owners = torch.arange(len(images)).repeat_interleave(numbers)
        ranks = torch.cat([torch.arange(int(number)) for number in numbers])
        masks = random_masks(len(owners), images.shape[-2:], rng, images.device, self.kinds)
        contents, opacity = self._contents(images, owners, rng), self._opacity(masks, rng)
        defective, mask = images.clone(), torch.zeros_like(masks[: len(images)])
        for rank in range(int(numbers.max())):
            drawn = ranks == rank
            rows = owners[drawn]
            defective[rows] = torch.lerp(defective[rows], contents[drawn], opacity[drawn])
            mask[rows] |= masks[drawn]
        return defective, mask

    def _contents(self, images: Tensor, owners: Tensor, rng: torch.Generator) -> Tensor:
        """Give a content (D, C, H, W) for each defect, by the number of its image."""
        others = (owners + torch.randint(1, max(2, len(images)), (len(owners),), generator=rng)) % len(images)
        contents = images[owners]
        chosen = torch.randint(len(self.contents), (len(owners),), generator=rng)
        for index, name in enumerate(self.contents):
            rows = chosen == index
            if rows.any():
                one, two = images[owners[rows]], images[others[rows]]
                contents[rows] = CONTENTS[name](one, two, partial(_uniform, one, rng), rng)
        return contents

    def _opacity(self, masks: Tensor, rng: torch.Generator) -> Tensor:
        soft_ones = _uniform(masks, rng, 0, 1) < 0.5
        return _uniform(masks, rng, *self.opacity) * torch.where(soft_ones, soft(masks), masks.float())


def _uniform(like: Tensor, rng: torch.Generator, low: float, high: float) -> Tensor:
    return (low + (high - low) * torch.rand(len(like), 1, 1, 1, generator=rng)).to(like.device)


def soft(mask: Tensor, sigma: float = 1.5) -> Tensor:
    """Opacity (B, 1, H, W) in [0, 1] that rises over some pixels from the border of each mask, and is 0 outside."""
    inside = gaussian_blur2d(mask.float(), (9, 9), (sigma, sigma)) * mask
    return inside / inside.amax((1, 2, 3), keepdim=True).clamp(min=1e-3)


def _step(images: Tensor, uniform: Uniform, most: float) -> Tensor:
    """A difference of tone (B, 1, 1, 1) in units of the texture's contrast, and not below what can be seen."""
    size = torch.maximum(uniform(1, 5) * images.std((1, 2, 3), keepdim=True), uniform(0.05, most))
    return torch.where(uniform(0, 1) < 0.5, -size, size)


def _mean(images: Tensor) -> Tensor:
    return images.mean((2, 3), keepdim=True)


def _tone(images: Tensor, others: Tensor, uniform: Uniform, rng: torch.Generator) -> Tensor:
    del others, rng
    return (_mean(images) + _step(images, uniform, 0.4)).expand_as(images)


def _offset(images: Tensor, others: Tensor, uniform: Uniform, rng: torch.Generator) -> Tensor:
    del others, rng
    return images + _step(images, uniform, 0.3)


def _fade(images: Tensor, others: Tensor, uniform: Uniform, rng: torch.Generator) -> Tensor:
    del others
    sigma = 2 + 4 * float(torch.rand((), generator=rng))
    low = gaussian_blur2d(images, (2 * int(2 * sigma) + 1,) * 2, (sigma, sigma))
    return torch.lerp(low, images, uniform(-0.3, 0.5).clamp(min=0))


def _boost(images: Tensor, others: Tensor, uniform: Uniform, rng: torch.Generator) -> Tensor:
    del others, rng
    return torch.lerp(_mean(images).expand_as(images), images, uniform(1.6, 3))


def _elsewhere(images: Tensor, others: Tensor, uniform: Uniform, rng: torch.Generator) -> Tensor:
    shifts = [int(torch.randint(side // 8, side - side // 8, (), generator=rng)) for side in images.shape[-2:]]
    others = others.roll(shifts, dims=(-2, -1))
    if images.shape[-2] == images.shape[-1] and torch.rand((), generator=rng) < 0.5:
        others = others.mT
    return others * uniform(0.7, 1.3) + uniform(-0.1, 0.1)


def _noise(images: Tensor, others: Tensor, uniform: Uniform, rng: torch.Generator) -> Tensor:
    del others
    noise = torch.empty_like(images[:, :1]).normal_(generator=device_rng(rng, images.device))
    return _mean(images) + uniform(-0.3, 0.3) + uniform(0.02, 0.3) * noise


CONTENTS: dict[str, Callable[[Tensor, Tensor, Uniform, torch.Generator], Tensor]] = {
    "tone": _tone,
    "offset": _offset,
    "fade": _fade,
    "boost": _boost,
    "elsewhere": _elsewhere,
    "noise": _noise,
}
"""What ``PerturbDefects`` may blend into a mask: images and others (B, C, H, W) to contents of the same shape."""
