"""Folders of defects that are cut out and pasted, in the layout of ``anomalib-defects synthesize``, to compare with.

CutPaste's defects have no type, so a classifier of types cannot learn from them. What it gets instead are the real
training defects, cut out along their masks, mirrored at random, and pasted anywhere on normal images. That takes pixel
masks, which Defect-GAN does without.
"""

from collections.abc import Callable
from pathlib import Path

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
"""Gives the defective image (3, H, W), the mask (H, W) and the type of a normal image, its number and some chance."""


def write_pasted(root: Path, dataset: AnomalibDataset, size: tuple[int, int], num: int, seed: int) -> None:
    """Paste real defects of a training set on its normal images, each type in turn.

    Args:
        root: Folder to write to.
        dataset: The training set, with masks.
        size: Height and width of the images, in pixels.
        num: How many.
        seed: Seed.
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
    """Let a generator draw defects, of a type named as the generator; the other arguments are as above."""

    def paint(normal: Tensor, number: int, rng: torch.Generator) -> tuple[Tensor, Tensor, str]:
        del number
        image, mask = generator(normal[None], rng)
        while not mask.any():  # a scar on a small image may fall between its pixels
            image, mask = generator(normal[None], rng)
        return image[0], mask[0, 0], generator.name

    _write(root, {"what": generator.name, "size": list(size), "seed": seed}, dataset, num, paint)


def paste(normal: Tensor, image: Tensor, mask: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut a defect out of an image and paste it somewhere on another.

    Args:
        normal: (3, H, W).
        image: (3, H, W), what it is cut out of.
        mask: (H, W), bool, where it is; not empty.
        rng: Source of chance.

    Returns:
        The image (3, H, W) and its mask (H, W).
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
    place = slice(top, top + height), slice(left, left + width)
    result[:, place[0], place[1]] = torch.where(shape, patch, result[:, place[0], place[1]])
    pasted[place] = shape
    return result, pasted


def _defects(dataset: AnomalibDataset, size: tuple[int, int]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Give images and masks by type; an image of several types counts for each."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for row, types in enumerate(dataset.samples.defect_type):
        if split_types(types):
            item = dataset[row]
            mask = F.adaptive_max_pool2d(item.gt_mask.as_subclass(Tensor)[None].float(), size)[0] > 0
            for kind in split_types(types):
                found.setdefault(kind, []).append((_resized(item.image, size), mask))
    return found


def _write(root: Path, settings: dict[str, object], dataset: AnomalibDataset, num: int, paint: Paint) -> None:
    folder = SyntheticFolder(root, settings)
    sources = [row for row, label in enumerate(dataset.samples.label_index) if not label]
    for number in range(num):
        if number in folder.rows:
            continue
        rng = torch.Generator().manual_seed(num * int(settings["seed"]) + number)
        source = sources[_below(len(sources), rng)]
        normal = _resized(dataset[source].image, tuple(settings["size"]))
        image, mask, kind = paint(normal, number, rng)
        name = f"{kind}/{number:05}.png"
        row = {"number": number, "category": kind, "seed": settings["seed"], "image": name, "mask": f"masks/{name}"}
        row |= {"source": dataset.samples.image_path.iloc[source], "mean_map": float(mask.float().mean())}
        row |= {"normal": folder.add_normal(f"{source:05}.png", normal), "defect_share": row["mean_map"]}
        folder.add(row, {row["image"]: image, row["mask"]: mask[None]})


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return resize(image.as_subclass(Tensor), list(size), InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)


def _below(limit: int, rng: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=rng))
