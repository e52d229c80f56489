"""DAGM 2007: ten artificial textures with artificial defects, 512x512, grey.

Published layout: ``ClassN/Train/NNNN.PNG`` and ``ClassN/Test/NNNN.PNG``, and for each defective image an ellipse around
the defect, ``Label/NNNN_label.PNG``, in the same folder. ``Label/Labels.txt`` repeats the labels and is not read.
Classes 1 to 6 have 1,150 images each, 150 of them defective, and classes 7 to 10 twice as many; half of each class is
the training split. Wieler, Hahn, "Weakly supervised learning for industrial optical inspection", DAGM symposium, 2007.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anomalib.data.utils import Split
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.dataset import CheckedDataset, check_not_empty
from anomalib_defect_plugins.data.published_layout import check_count, existing_file, existing_images
from anomalib_defect_plugins.data.sample_table import Sample, by_label, make_table, shuffled

logger = logging.getLogger(__name__)

URL = "https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection"
"""Page of the authors."""

CATEGORIES = range(1, 11)
"""The classes."""

FOLDERS = {Split.TRAIN: "Train", Split.TEST: "Test"}
"""Folders of the official splits."""

LABELS = "Label"
"""Folder of the labels of a split."""

SUBSET_SEED = 0
"""Seed of the selection of the training images of ``isu-gan``, which the paper does not list."""


class Counts(NamedTuple):
    """Numbers of images."""

    normal: int
    defective: int


SUBSETS = {1: Counts(400, 80), 6: Counts(100, 50), 7: Counts(100, 50)}
"""Training images by class in Table 1 of the ISU-GAN paper, the split ``isu-gan``."""

ADVICE = (
    f"download DAGM 2007 from {URL} and unpack it so that root contains Class1 to Class10, each with Train/NNNN.PNG, "
    "Train/Label/NNNN_label.PNG, Test/NNNN.PNG and Test/Label/NNNN_label.PNG"
)


class Dagm2007(DefectDataModule):
    """DAGM 2007: one of ten textures, with ellipses around the defects as masks. It is not downloaded.

    Defective images of the training split go to ``train_defects``. The ellipses contain the defect and some intact
    texture, which limits the values that pixel-level metrics can reach.

    Args:
        root: Folder with ``Class1`` to ``Class10``; only the folder of ``category`` is required.
        category: Class, 1 to 10.
        split: ``official`` trains on all training images. ``isu-gan`` trains on a fixed random subset of them, of the
            size in Table 1 of the ISU-GAN paper: class 1 has 400 normal and 80 defective images, classes 6 and 7 have
            100 and 50. Class 1 has only 79 defective images, all of which are used. Both splits have the same test
            images.
        kwargs: Batch sizes, workers, augmentations, validation split and seed, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: If an argument is invalid, or the paper has no split for the class.
        MissingDataError: On setup, if a file is missing; the message says what to download from where.
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/DAGM2007",
        category: int = 1,
        split: Literal["official", "isu-gan"] = "official",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        _check_arguments(category, split)
        self.category = str(category)
        self.split = split

    def _setup(self, _stage: str | None = None) -> None:
        folder = self.root / f"Class{self.category}"
        samples = {split: _samples(folder, split) for split in FOLDERS}
        _check_counts(folder, samples)
        normal, defective = by_label(samples[Split.TRAIN])
        if self.split == "isu-gan":
            counts = SUBSETS[int(self.category)]
            normal, defective = _subset(normal, counts.normal), _subset(defective, counts.defective)
        self.train_data = Dagm2007Dataset(normal)
        self.train_defects = Dagm2007Dataset(defective)
        self.test_data = Dagm2007Dataset(samples[Split.TEST])


class Dagm2007Dataset(CheckedDataset):
    """Images of DAGM 2007. An empty label is an error.

    Args:
        samples: The images.
        augmentations: Augmentations of images and masks.
    """

    def __init__(self, samples: Sequence[Sample], augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        self.samples = make_table(samples)

    def load_mask(self, path: str) -> Mask:
        """Load a label, shape (H, W), uint8, 1 inside the ellipse.

        Raises:
            InvalidInputError: If it marks nothing.
        """
        return check_not_empty(super().load_mask(path), f"label {path}", f"restore the published file from {URL}")


def published_counts(category: int) -> Counts:
    """Return the numbers of images of a class on the authors' page, for both splits together."""
    return Counts(1000, 150) if category <= 6 else Counts(2000, 300)


def _samples(folder: Path, split: Split) -> list[Sample]:
    folder = folder / FOLDERS[split]
    images = {f"{image.stem}_label": image for image in existing_images(folder, ADVICE)}
    labels = {label.stem: label for label in existing_images(folder / LABELS, ADVICE)}
    for name, label in labels.items():
        if name not in images:
            existing_file(folder / f"{name.removesuffix('_label')}.PNG", f"label {label} needs it: {ADVICE}")
    return [
        Sample(str(image), split.value, "defect", str(labels[name]))
        if name in labels
        else Sample(str(image), split.value)
        for name, image in images.items()
    ]


def _check_counts(folder: Path, samples: dict[Split, list[Sample]]) -> None:
    """Check the published numbers, because an image whose label is missing would count as normal."""
    expected = published_counts(int(folder.name.removeprefix("Class")))
    for split, images in samples.items():
        check_count(folder / FOLDERS[split], len(images), sum(expected) // 2, ADVICE)
    labels = sum(sample.defect_type != GOOD for images in samples.values() for sample in images)
    check_count(folder / "*" / LABELS, labels, expected.defective, ADVICE, "labels")


def _subset(samples: list[Sample], count: int) -> list[Sample]:
    if count > len(samples):
        label = "normal" if samples[0].defect_type == GOOD else "defective"
        logger.warning("Table 1 of ISU-GAN has %d %s training images, the data %d", count, label, len(samples))
    paths = set(shuffled(make_table(samples), SUBSET_SEED).image_path.iloc[:count])
    return [sample for sample in samples if sample.image_path in paths]


def _check_arguments(category: int, split: str) -> None:
    if category not in CATEGORIES:
        msg = f"category is {category}; it must be one of {CATEGORIES[0]} to {CATEGORIES[-1]}"
        raise InvalidInputError(msg)
    check_one_of("split", split, ("official", "isu-gan"))
    if split == "isu-gan" and category not in SUBSETS:
        msg = f"split isu-gan has no class {category}; choose category 1, 6 or 7, or split official"
        raise InvalidInputError(msg)
