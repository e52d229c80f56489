"""What CutPaste shows its classifier: normal images, varied a little, and what the two pastings make of them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.rng import numpy_rng
from anomalib_defect_plugins.generators.cutpaste import jitter_colours
from anomalib_defect_plugins.generators.geometry import place


def vary(
    images: Tensor, crop: int | None, translation: float, jitter: float, rng: torch.Generator | None = None
) -> Tensor:
    """Shift, or crop, each image at random, and change its colours.

    Args:
        images: (B, C, H, W), float in [0, 1].
        crop: Side of a crop in pixels; with one, there is no further translation. ``None`` keeps the whole image.
        translation: Greatest shift to either side as a share of the image's, under 1; what comes in is mirrored.
        jitter: How much brightness, contrast, saturation and hue change, as in torchvision's ``ColorJitter``.
        rng: Source of randomness, a generator of the CPU; by default torch's own.

    Returns:
        (B, C, H, W) or (B, C, crop, crop), float in [0, 1].
    """
    numbers = numpy_rng(torch.default_generator if rng is None else rng)
    size = tuple(images.shape[-2:]) if crop is None else (crop, crop)
    if crop is None:
        vertical, horizontal = (int(translation * side) for side in size)
        images = functional.pad(images, (horizontal, horizontal, vertical, vertical), mode="reflect")
    varied = []
    for image in images:
        top, left = place(image.shape[-2:], size, numbers)
        varied.append(jitter_colours(image[:, top : top + size[0], left : left + size[1]], jitter, numbers))
    return torch.stack(varied)


def classes(
    images: Tensor, generators: Sequence[DefectGenerator], rng: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Put the images and what each generator makes of them into one batch: the classes of the pretext task.

    Args:
        images: Normal images (B, C, H, W), float32 in [0, 1].
        generators: Makers of the other classes, K.
        rng: Source of randomness, a generator of the CPU; by default torch's own.

    Returns:
        Images ((1 + K) B, C, H, W), in [0, 1], and their classes ((1 + K) B,): 0 normal, then one a generator.
    """
    parts = [images, *(generator(images, rng)[0] for generator in generators)]
    return torch.cat(parts), torch.arange(len(parts), device=images.device).repeat_interleave(len(images))
