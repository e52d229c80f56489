"""Training images of CutPaste: randomly varied normal images, and the classes of its pretext task."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.rng import numpy_rng
from anomalib_defect_plugins.generators.cutpaste import CutPasteDefects, CutPasteScarDefects, jitter_colours
from anomalib_defect_plugins.generators.geometry import image_size, random_position

TASKS: Mapping[str, tuple[type[DefectGenerator], ...]] = MappingProxyType(
    {
        "two_way": (CutPasteDefects,),
        "scar": (CutPasteScarDefects,),
        "three_way": (CutPasteDefects, CutPasteScarDefects),
    }
)
"""Generators of the classes other than normal, by task."""


def vary(
    images: Tensor, crop: int | None, translation: float, jitter: float, rng: torch.Generator | None = None
) -> Tensor:
    """Shift or crop each image at random, and jitter its colours.

    Args:
        images: Images, shape (B, C, H, W), float in [0, 1].
        crop: Side of a random crop, in pixels, which replaces the translation; ``None`` keeps the whole image.
        translation: Maximum shift in each direction as a fraction of the side, in [0, 1); borders are mirrored.
        jitter: Strength of the change in brightness, contrast, saturation and hue, as in torchvision's
            ``ColorJitter``.
        rng: CPU generator; defaults to torch's global one.

    Returns:
        Images, shape (B, C, H, W) or (B, C, crop, crop), float in [0, 1].
    """
    numbers = numpy_rng(torch.default_generator if rng is None else rng)
    size = image_size(images) if crop is None else (crop, crop)
    if crop is None:
        vertical, horizontal = (int(translation * side) for side in size)
        images = functional.pad(images, (horizontal, horizontal, vertical, vertical), mode="reflect")
    varied = []
    for image in images:
        top, left = random_position(image_size(image), size, numbers)
        varied.append(jitter_colours(image[:, top : top + size[0], left : left + size[1]], jitter, numbers))
    return torch.stack(varied)


def classes(
    images: Tensor, generators: Sequence[DefectGenerator], rng: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Build the batch of the pretext task: the normal images, and the output of each generator for them.

    Args:
        images: Normal images, shape (B, C, H, W), float32 in [0, 1].
        generators: Generators of the other K classes.
        rng: CPU generator; defaults to torch's global one.

    Returns:
        Images, shape ((1 + K) B, C, H, W), float32 in [0, 1], and their classes, shape ((1 + K) B,): 0 for normal,
        then one for each generator.
    """
    parts = [images, *(generator(images, rng)[0] for generator in generators)]
    return torch.cat(parts), torch.arange(len(parts), device=images.device).repeat_interleave(len(images))
