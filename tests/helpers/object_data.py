"""Data modules of objects with several images each, a generator, and what splits of them contain."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataset
from anomalib.data.utils import Split
from datamodules import set_up
from PIL import Image
from torch import Tensor

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.data import CheckedDataset, WithDefects
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, make_table

OBJECTS, SIDES = 8, 5
"""Objects of the test split, and images of each: one with a scratch, one with scratch and dent, three normal."""


class Objects(DefectDataModule):
    """Training images of the objects 100 to 102, and test images of ``OBJECTS`` other objects."""

    def _setup(self, stage: str | None = None) -> None:
        self.train_data, self.test_data = CheckedDataset(), CheckedDataset()
        self.train_data.samples = make_table(self.images(range(100, 103), Split.TRAIN, ["good"] * SIDES))
        kinds = ["scratch", "scratch+dent", *["good"] * (SIDES - 2)]
        self.test_data.samples = make_table(self.images(range(OBJECTS), Split.TEST, kinds))

    def images(self, objects: range, split: Split, kinds: list[str]) -> Iterator[Sample]:
        for number in objects:
            for side, kind in enumerate(kinds):
                mask = "" if kind == "good" else self.file(f"masks/{number}-{side}.png", 255)
                yield Sample(self.file(f"{number}-{side}.png", 99), split.value, kind, mask, f"object {number}")

    def file(self, name: str, value: int) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            image = Image.new("L", (40, 36))
            image.paste(value, (0, 0, 40, 36 if value < 255 else 18))  # a mask marks the upper half
            image.save(path)
        return str(path)


class Published(Objects):
    """Has defective images in its published training split too."""

    def _setup(self, stage: str | None = None) -> None:
        super()._setup(stage)
        self.train_defects = CheckedDataset()
        self.train_defects.samples = make_table(self.images(range(200, 204), Split.TRAIN, ["dent"]))


class Square(DefectGenerator):
    """Draws a white square at a random place."""

    name = "square"

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        mask = torch.zeros_like(images[:, :1], dtype=torch.bool)
        for image_mask in mask:
            top, left = torch.randint(0, 24, (2,), generator=rng).tolist()
            image_mask[:, top : top + 8, left : left + 8] = True
        return images + 1, mask


class SquareByWorkers(Square):
    batched = False


def paths(dataset: AnomalibDataset, label: int | None = None) -> set[str]:
    table = dataset.samples
    return set(table.image_path if label is None else table[table.label_index == label].image_path)


def groups(dataset: AnomalibDataset) -> set[str]:
    return set(dataset.samples.group)


def objects(root: Path, **arguments: Any) -> WithDefects:
    return set_up(WithDefects(Objects(root, num_workers=0), **arguments))
