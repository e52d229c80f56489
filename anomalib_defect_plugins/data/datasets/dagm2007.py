"""DAGM 2007: ten artificial textures with artificial defects, the data of ISU-GAN's paper. 512x512, grey.

Read in the published layout: ``ClassN/Train/NNNN.PNG`` and ``ClassN/Test/NNNN.PNG``, and for each defective image an
ellipse around the defect, ``Label/NNNN_label.PNG`` beside it. ``Label/Labels.txt`` says the same and is not read. Of
the ten classes 1 to 6 have 1,150 images, 150 of them defective, and 7 to 10 twice as many; half of a class trains.
Wieler, Hahn, "Weakly supervised learning for industrial optical inspection", DAGM symposium, 2007.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anomalib.data.utils import Split
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.data.dataset import CheckedDataset, image_files
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, existing, make_table, shuffled
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError

logger = logging.getLogger(__name__)

URL = "https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection"
"""The authors' page."""

CATEGORIES = range(1, 11)
"""The classes."""

FOLDERS = {Split.TRAIN: "Train", Split.TEST: "Test"}
"""Folders of the official splits."""

LABELS = "Label"
"""Folder of the labels of a split."""

DRAW_SEED = 0
"""Seed of the draw of ISU-GAN's training images, which its paper does not list."""


class Counts(NamedTuple):
    """How many images there are."""

    normal: int
    defective: int


ISU_GAN = {1: Counts(400, 80), 6: Counts(100, 50), 7: Counts(100, 50)}
"""Training images by class in Table 1 of ISU-GAN's paper."""

ADVICE = (
    f"fetch DAGM 2007 from {URL} and unpack it such that root holds Class1 to Class10, each with Train/NNNN.PNG, "
    "Train/Label/NNNN_label.PNG, Test/NNNN.PNG and Test/Label/NNNN_label.PNG"
)


class Dagm2007(DefectDataModule):
    """DAGM 2007: one of ten textures, with ellipses around the defects as masks. Nothing is downloaded.

    The normal images of the training split train; its defective ones go to ``train_defects``. Ellipses are generous:
    they hold the defect and some sound texture, which bounds what pixel-level measures can reach.

    Args:
        root: Folder that holds ``Class1`` to ``Class10``; only the class asked for need be there.
        category: The class, 1 to 10.
        split: ``official`` trains with all training images. ``isu-gan`` draws from these, with a seed of its own, as
            many as Table 1 of ISU-GAN's paper says for the classes 1 (400 normal and 80 defective), 6 and 7 (100 and
            50). Class 1 has only 79 defective ones, which are all taken. The test split is the official one for both.
        kwargs: Batch sizes, processes, augmentations, validation split and seed, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: An argument cannot be, or the paper has no such split.
        MissingDataError: On setup: something is missing; the message says what to fetch from where.
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
        train = samples[Split.TRAIN]
        normal = [sample for sample in train if sample.defect_type == GOOD]
        defective = [sample for sample in train if sample.defect_type != GOOD]
        if self.split == "isu-gan":
            counts = ISU_GAN[int(self.category)]
            normal, defective = _draw(normal, counts.normal), _draw(defective, counts.defective)
        self.train_data = Dagm2007Dataset(normal)
        self.train_defects = Dagm2007Dataset(defective)
        self.test_data = Dagm2007Dataset(samples[Split.TEST])


class Dagm2007Dataset(CheckedDataset):
    """Images of DAGM 2007. A label that marks nothing is refused.

    Args:
        samples: The images.
        augmentations: Augmentations of images and masks.
    """

    def __init__(self, samples: Sequence[Sample], augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        self.samples = make_table(samples)

    def load_mask(self, path: str) -> Mask:
        """Read the label at ``path``: (H, W), uint8, 1 in the ellipse.

        Raises:
            InvalidInputError: It marks nothing.
        """
        mask = super().load_mask(path)
        if not mask.any():
            msg = f"label {path} marks nothing; put the file back as it was published, on {URL}"
            raise InvalidInputError(msg)
        return mask


def published_counts(category: int) -> Counts:
    """Give the images of a class that the authors' page tells, both splits together."""
    return Counts(1000, 150) if category <= 6 else Counts(2000, 300)


def _samples(folder: Path, split: Split) -> list[Sample]:
    images = _images(folder / FOLDERS[split])
    labels = folder / FOLDERS[split] / LABELS
    found = {label.stem: label for label in _images(labels)}
    names = {f"{image.stem}_label": image for image in images}
    for name, label in found.items():
        if name not in names:
            existing(label.parent.parent / f"{name.removesuffix('_label')}.PNG", f"label {label} needs it: {ADVICE}")
    return [
        Sample(str(image), split.value, "defect", str(found[name]))
        if name in found
        else Sample(str(image), split.value)
        for name, image in names.items()
    ]


def _images(folder: Path) -> list[Path]:
    images = image_files(folder) if folder.is_dir() else []
    if not images:
        msg = f"{folder} is missing or holds no image; {ADVICE}"
        raise MissingDataError(msg)
    return images


def _check_counts(folder: Path, samples: dict[Split, list[Sample]]) -> None:
    """An image without a label counts as normal, so a lost label must not go unseen."""
    expected = published_counts(int(folder.name.removeprefix("Class")))
    for split, images in samples.items():
        if len(images) != sum(expected) // 2:
            where = folder / FOLDERS[split]
            msg = f"{where} holds {len(images)} images, not {sum(expected) // 2}; {ADVICE}"
            raise MissingDataError(msg)
    labels = sum(sample.defect_type != GOOD for images in samples.values() for sample in images)
    if labels != expected.defective:
        where = folder / "*" / LABELS
        msg = f"{where} holds {labels} labels, not {expected.defective}; {ADVICE}"
        raise MissingDataError(msg)


def _draw(samples: list[Sample], count: int) -> list[Sample]:
    if count > len(samples):
        kind = "normal" if samples[0].defect_type == GOOD else "defective"
        logger.warning("ISU-GAN's Table 1 has %d %s images to train, the data %d: all train", count, kind, len(samples))
    wanted = set(shuffled(make_table(samples), DRAW_SEED).image_path.iloc[:count])
    return [sample for sample in samples if sample.image_path in wanted]


def _check_arguments(category: int, split: str) -> None:
    if category not in CATEGORIES:
        msg = f"Dagm2007 has no category {category}; choose one of {CATEGORIES[0]} to {CATEGORIES[-1]}"
        raise InvalidInputError(msg)
    if split not in {"official", "isu-gan"}:
        msg = f"Dagm2007 has no split {split!r}; choose official or isu-gan"
        raise InvalidInputError(msg)
    if split == "isu-gan" and category not in ISU_GAN:
        msg = f"ISU-GAN's paper has no split of class {category}; choose category 1, 6 or 7, or split official"
        raise InvalidInputError(msg)
