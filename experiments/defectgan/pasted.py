"""Folders of pasted defects for comparison, in the layout of ``anomalib-defects synthesize``.

CutPaste's defects have no type, so a classifier of types cannot be trained on them. Instead, the real training defects
are cut out along their masks, mirrored at random, and pasted anywhere on normal images. This requires pixel masks,
which Defect-GAN does not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataset
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.data.dataclasses import split_types
from anomalib_defect_plugins.generators import DefectGenerator
from anomalib_defect_plugins.synthesis.folder import SyntheticFolder

Paint = Callable[[Tensor, int, torch.Generator], tuple[Tensor, Tensor, str]]
"""Function from a normal image (3, H, W), its number and a generator to a defective image, its mask (H, W) and type."""


def write_pasted(root: Path, dataset: AnomalibDataset, size: tuple[int, int], num: int, seed: int) -> None:
    """Paste real defects of a training set on its normal images, cycling through the types.

    Args:
        root: Folder to write to.
        dataset: Training set with masks.
        size: Height and width of the images in pixels.
        num: Number of images.
        seed: Random seed.
    """
    defects = _defects(dataset, size)
    types = sorted(defects)

    def paint(normal: Tensor, number: int, rng: torch.Generator) -> tuple[Tensor, Tensor, str]:
        kind = types[number % len(types)]
        image, mask = defects[kind][_below(len(defects[kind]), rng)]
        return *paste(normal, image, mask, rng), kind

    _write(root, {"what": "pasted real defects", "size": list(size), "seed": seed}, dataset, num, paint)


def write_generated(
    root: Path, dataset: AnomalibDataset, size: tuple[int, int], num: int, seed: int, generator: DefectGenerator
) -> None:
    """Write images with defects of a generator, whose name is their type; see :func:`write_pasted`."""

    def paint(normal: Tensor, number: int, rng: torch.Generator) -> tuple[Tensor, Tensor, str]:
        del number
        image, mask = generator(normal[None], rng)
        while not mask.any():  # a scar may fall between the pixels of a small image
            image, mask = generator(normal[None], rng)
        return image[0], mask[0, 0], generator.name

    _write(root, {"what": generator.name, "size": list(size), "seed": seed}, dataset, num, paint)


def paste(normal: Tensor, image: Tensor, mask: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut a defect out of an image and paste it at a random location of another.

    Args:
        normal: Normal image, shape (3, H, W).
        image: Defective image, shape (3, H, W).
        mask: Mask of the defect, shape (H, W), bool, not empty.
        rng: Random generator.

    Returns:
        Image (3, H, W) and its mask (H, W).
    """
    rows, columns = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    patch, shape = image[:, box[0], box[1]], mask[box]
    for axis in (-2, -1):
        if _below(2, rng):
            patch, shape = patch.flip(axis), shape.flip(axis)
    height, width = shape.shape
    top, left = (_below(side - own + 1, rng) for side, own in zip(mask.shape, shape.shape, strict=True))
    result, pasted = normal.clone(), torch.zeros_like(mask)
    target = slice(top, top + height), slice(left, left + width)
    result[:, target[0], target[1]] = torch.where(shape, patch, result[:, target[0], target[1]])
    pasted[target] = shape
    return result, pasted


def _defects(dataset: AnomalibDataset, size: tuple[int, int]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Return images and masks by type; an image with several types is listed under each."""
    defects: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for row, types in enumerate(dataset.samples.defect_type):
        if split_types(types):
            item = dataset[row]
            mask = F.adaptive_max_pool2d(cast(Tensor, item.gt_mask).as_subclass(Tensor)[None].float(), size)[0] > 0
            for kind in split_types(types):
                defects.setdefault(kind, []).append((_resized(cast(Tensor, item.image), size), mask))
    return defects


def _write(root: Path, settings: dict[str, Any], dataset: AnomalibDataset, num: int, paint: Paint) -> None:
    folder = SyntheticFolder(root, settings)
    sources = [row for row, label in enumerate(dataset.samples.label_index) if not label]
    for number in range(num):
        if number in folder.rows:
            continue
        rng = torch.Generator().manual_seed(num * int(settings["seed"]) + number)
        source = sources[_below(len(sources), rng)]
        normal = _resized(cast(Tensor, dataset[source].image), tuple(settings["size"]))
        image, mask, kind = paint(normal, number, rng)
        name = f"{kind}/{number:05}.png"
        share = float(mask.float().mean())
        row = {
            "number": number,
            "category": kind,
            "seed": settings["seed"],
            "image": name,
            "mask": f"masks/{name}",
            "source": dataset.samples.image_path.iloc[source],
            "mean_map": share,
            "normal": folder.add_normal(f"{source:05}.png", normal),
            "defect_share": share,
        }
        folder.add(row, {row["image"]: image, row["mask"]: mask[None]})


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    resized = resize(image.as_subclass(Tensor), list(size), InterpolationMode.BICUBIC, antialias=True)
    return cast(Tensor, resized).clamp(0, 1)


def _below(limit: int, rng: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=rng))
