"""Local changes of tone, contrast, sharpness or texture, from barely visible to strong, with hard and soft edges.

A network that learns to segment one kind of artificial defect learns its artefacts, such as the grain of noise or the
edge of a patch. The defects drawn here have in common only that they differ from their surroundings.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_kinds, check_range
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.rng import device_rng
from anomalib_defect_plugins.generators.geometry import image_size
from anomalib_defect_plugins.generators.masks import LOCAL_KINDS, MASK_KINDS, random_masks

Uniform = Callable[[float, float], Tensor]
"""Draws one number per image between two limits, shape (B, 1, 1, 1)."""


class PerturbDefects(DefectGenerator):
    """Blend one of several contents into each of a number of random masks, with a random opacity.

    Args:
        contents: Subset of ``CONTENTS``: ``tone`` (one flat grey level), ``offset`` (the texture, lighter or darker),
            ``fade`` (the texture with less contrast, down to none), ``boost`` (with more contrast), ``elsewhere``
            (texture from another position of another image), ``noise`` (Gaussian noise) and ``shade`` (the texture with
            a small change of tone that varies smoothly, and of contrast).
        opacity: Minimum and maximum opacity, in [0.05, 1].
        kinds: Kinds of mask, a subset of ``MASK_KINDS``; a batch mixes them.
        most: Maximum defects per image; the count is drawn from [1, most]. Later defects cover earlier ones.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    name: ClassVar[str] = "perturb"

    def __init__(
        self,
        contents: Sequence[str] = ("tone", "offset", "fade", "boost", "elsewhere", "noise"),
        opacity: tuple[float, float] = (0.3, 1.0),
        kinds: Sequence[str] = LOCAL_KINDS,
        most: int = 3,
    ) -> None:
        self.contents = check_kinds("contents of PerturbDefects", contents, tuple(CONTENTS))
        check_range("opacity of PerturbDefects", opacity, 0.05, 1)
        self.opacity = opacity
        self.kinds = check_kinds("kinds of PerturbDefects", kinds, MASK_KINDS)
        if most < 1:
            msg = f"most of PerturbDefects is {most}; it must be 1 or more"
            raise InvalidInputError(msg)
        self.most = most

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Blend contents into images (B, C, H, W) in masks (B, 1, H, W)."""
        # The D defects of all images form one batch; the loop blends the first of each image, then the second, ...
        counts = torch.randint(1, self.most + 1, (len(images),), generator=rng)
        image_index = torch.arange(len(images)).repeat_interleave(counts)
        ranks = torch.cat([torch.arange(int(count)) for count in counts])
        masks = random_masks(len(image_index), image_size(images), rng, images.device, self.kinds)
        contents, opacity = self._contents(images, image_index, rng), self._opacity(masks, rng)
        defective, mask = images.clone(), torch.zeros_like(masks[: len(images)])
        for rank in range(int(counts.max())):
            selected = ranks == rank
            rows = image_index[selected]
            defective[rows] = torch.lerp(defective[rows], contents[selected], opacity[selected])
            mask[rows] |= masks[selected]
        return defective, mask

    def _contents(self, images: Tensor, image_index: Tensor, rng: torch.Generator) -> Tensor:
        """Draw the contents of the defects, shape (D, C, H, W); ``image_index`` (D,) assigns them to images."""
        count = len(image_index)
        other_index = (image_index + torch.randint(1, max(2, len(images)), (count,), generator=rng)) % len(images)
        contents = images[image_index]
        chosen = torch.randint(len(self.contents), (count,), generator=rng)
        for number, name in enumerate(self.contents):
            rows = chosen == number
            if rows.any():
                own, others = images[image_index[rows]], images[other_index[rows]]
                contents[rows] = CONTENTS[name](own, others, partial(_uniform, own, rng), rng)
        return contents

    def _opacity(self, masks: Tensor, rng: torch.Generator) -> Tensor:
        has_soft_edge = _uniform(masks, rng, 0, 1) < 0.5
        return _uniform(masks, rng, *self.opacity) * torch.where(has_soft_edge, soft_edges(masks), masks.float())


class ShadingDefects(PerturbDefects):
    """Large shallow changes of tone and contrast: uneven shading, a worn side, a band of another finish.

    Args:
        contents: As in :class:`PerturbDefects`.
        opacity: As in :class:`PerturbDefects`.
        kinds: As in :class:`PerturbDefects`.
        most: As in :class:`PerturbDefects`.
    """

    name: ClassVar[str] = "shading"

    def __init__(
        self,
        contents: Sequence[str] = ("shade",),
        opacity: tuple[float, float] = (0.5, 1.0),
        kinds: Sequence[str] = ("side", "band"),
        most: int = 1,
    ) -> None:
        super().__init__(contents, opacity, kinds, most)


def _uniform(like: Tensor, rng: torch.Generator, low: float, high: float) -> Tensor:
    return (low + (high - low) * torch.rand(len(like), 1, 1, 1, generator=rng)).to(like.device)


def soft_edges(mask: Tensor, sigma: float = 1.5) -> Tensor:
    """Return opacities in [0, 1] that rise inwards from the border of each mask over a few pixels, and are 0 outside.

    Args:
        mask: Masks, shape (B, 1, H, W), bool.
        sigma: Standard deviation of the blur, in pixels.

    Returns:
        Opacities, shape (B, 1, H, W), float.
    """
    inside = gaussian_blur2d(mask.float(), (9, 9), (sigma, sigma)) * mask
    return inside / inside.amax((1, 2, 3), keepdim=True).clamp(min=1e-3)


def _tone_change(images: Tensor, uniform: Uniform, limit: float) -> Tensor:
    """Draw changes of tone (B, 1, 1, 1): 1 to 5 standard deviations of the image, but at least 0.05 to ``limit``."""
    size = torch.maximum(uniform(1, 5) * images.std((1, 2, 3), keepdim=True), uniform(0.05, limit))
    return torch.where(uniform(0, 1) < 0.5, -size, size)


def _mean(images: Tensor) -> Tensor:
    return images.mean((2, 3), keepdim=True)


def _tone(images: Tensor, others: Tensor, uniform: Uniform, rng: torch.Generator) -> Tensor:
    del others, rng
    return (_mean(images) + _tone_change(images, uniform, 0.4)).expand_as(images)


def _offset(images: Tensor, others: Tensor, uniform: Uniform, rng: torch.Generator) -> Tensor:
    del others, rng
    return images + _tone_change(images, uniform, 0.3)


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


def _shade(images: Tensor, others: Tensor, uniform: Uniform, rng: torch.Generator) -> Tensor:
    del others
    nodes = torch.rand(len(images), 1, 4, 4, generator=rng).to(images.device)
    strength = functional.interpolate(nodes, images.shape[-2:], mode="bicubic", align_corners=True).clamp(0.2, 1)
    size = torch.maximum(uniform(0.5, 2.5) * images.std((1, 2, 3), keepdim=True), uniform(0.03, 0.15))
    low = gaussian_blur2d(images, (9, 9), (3.0, 3.0))
    contrast = torch.lerp(low, images, uniform(0.6, 1.8))
    return contrast + torch.where(uniform(0, 1) < 0.5, -size, size) * strength


CONTENTS: dict[str, Callable[[Tensor, Tensor, Uniform, torch.Generator], Tensor]] = {
    "tone": _tone,
    "offset": _offset,
    "fade": _fade,
    "boost": _boost,
    "elsewhere": _elsewhere,
    "noise": _noise,
    "shade": _shade,
}
"""Contents by name; each function maps images and other images (B, C, H, W) to contents of the same shape."""
