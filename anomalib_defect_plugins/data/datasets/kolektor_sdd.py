"""KolektorSDD: electrical commutators, some with a crack, in three folds by object.

Layout of the authors: ``kosNN/PartM.jpg`` and ``kosNN/PartM_label.bmp``, 399 grey images of 50 objects, about 1260x500
pixels; 52 show a crack. Tabernik et al., "Segmentation-based deep-learning approach for surface-defect detection",
Journal of Intelligent Manufacturing 31, 2020. The dilation of the labels and the size of 1408x512 follow Section 3 of
Sensors 20(7), 1829, 2020, which repeats that protocol.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from anomalib.data.utils import Split
from torch.nn import functional as F
from torchvision.transforms.v2 import Transform
from torchvision.transforms.v2.functional import resize
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import read_size
from anomalib_defect_plugins.core.mask_io import read_mask
from anomalib_defect_plugins.data.dataclasses import GOOD, SEPARATOR
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.dataset import CheckedDataset, reading
from anomalib_defect_plugins.data.download import download_if_missing
from anomalib_defect_plugins.data.mask_resize import resize_mask
from anomalib_defect_plugins.data.published_layout import check_count, existing_file, existing_images
from anomalib_defect_plugins.data.sample_table import Sample, make_table

URL = "https://go.vicos.si/kolektorsdd"
"""Archive of the authors."""

DIGEST = "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc"
"""SHA-256 of the archive, the same as in anomalib's ``Kolektor``."""

FILES = re.compile(r"kos\d\d/Part\w+\.(jpg|bmp)")
"""Files of the archive to unpack."""

OBJECTS = tuple(f"kos{number:02}" for number in range(1, 51))
"""Folders, one for each object."""

IMAGES = 399
"""Number of images."""

FOLDS = 3
"""Number of folds."""

DILATIONS = (0, 5, 9, 13, 17)
"""Sides of the squares that labels are dilated with, in pixels."""

LAYOUT = "kosNN/PartM.jpg and kosNN/PartM_label.bmp for kos01 to kos50 (399 images)"


class KolektorSdd(DefectDataModule):
    """KolektorSDD in three folds by object, one for testing and two for training. Licence: CC BY-NC-SA 4.0.

    Normal images of the training folds are the training split, cracked ones go to ``train_defects``. anomalib's
    ``Kolektor`` is the same data with a different split, by image.

    The data does not include the folds of the authors, so deterministic folds are built object by object, with similar
    numbers of cracked images and of images. Objects that share an identical image are treated as one object, with a
    joint name in the column ``group``, and are in one fold.

    A missing root is downloaded from the authors' page.

    Args:
        root: Folder with ``kos01`` to ``kos50``.
        fold: Test fold: 0, 1 or 2.
        dilation: Side of the square, in pixels of the original image, that labels are dilated with: 5, 9, 13 or 17, or
            0 for no dilation. It applies to all splits, as in the papers; pixel-level metrics at different dilations
            are not comparable.
        image_size: Height and width that images and masks are resized to on loading; ``None`` for no resizing. Images
            are resized bilinearly with antialiasing; a pixel of a reduced mask is defective if any part of it was.
        kwargs: Batch sizes, workers, augmentations, validation split and seed, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: If an argument is invalid. On setup, if a file is damaged, or the sizes of a label and its
            image differ.
        MissingDataError: On setup, if a file is missing; the message names it.
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/KolektorSdd",
        fold: int = 0,
        dilation: int = 0,
        image_size: tuple[int, int] | None = (1408, 512),
        **kwargs: Any,
    ) -> None:
        super().__init__(root, **kwargs)
        if fold not in range(FOLDS):
            msg = f"fold is {fold}; choose one of 0, 1 and 2"
            raise InvalidInputError(msg)
        _check_shape(dilation, image_size)
        self.fold = fold
        self.dilation = dilation
        # Configuration files may contain a list.
        self.image_size = None if image_size is None else (image_size[0], image_size[1])

    def prepare_data(self) -> None:
        """Download the data set if the root is missing or empty.

        Raises:
            MissingDataError: If the download fails; the message says what to put where.
        """
        notice = "KolektorSDD is licensed under CC BY-NC-SA 4.0, for non-commercial use only"
        download_if_missing(self.root, URL, FILES, LAYOUT, notice, archive_digest=DIGEST)

    def _setup(self, _stage: str | None = None) -> None:
        parts = read_parts(self.root)
        test = fold_of_group(parts)
        train = [part for part in parts if test[part.group] != self.fold]
        self.train_data = self._dataset((part for part in train if not part.defective), Split.TRAIN)
        self.train_defects = self._dataset((part for part in train if part.defective), Split.TRAIN)
        self.test_data = self._dataset((part for part in parts if test[part.group] == self.fold), Split.TEST)

    def _dataset(self, parts: Iterable["Part"], split: Split) -> "KolektorSddDataset":
        samples = [
            Sample(str(part.image), split.value, "crack", str(part.label), part.group)
            if part.defective
            else Sample(str(part.image), split.value, GOOD, "", part.group)
            for part in parts
        ]
        return KolektorSddDataset(samples, self.dilation, self.image_size)


class KolektorSddDataset(CheckedDataset):
    """Images of KolektorSDD.

    Args:
        samples: The images.
        dilation: Side of the square, in pixels of the original image, that masks are dilated with; 0 for no dilation.
        image_size: Height and width of the returned images and masks; ``None`` for no resizing.
        augmentations: Augmentations of images and masks.

    Raises:
        InvalidInputError: If the dilation or the size is invalid.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        dilation: int = 0,
        image_size: tuple[int, int] | None = None,
        augmentations: Transform | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        _check_shape(dilation, image_size)
        self.dilation = dilation
        self.image_size = image_size
        self.samples = make_table(samples)

    def load_image(self, path: str) -> ImageTensor:
        """Load an image and resize it, shape (3, H, W), float in [0, 1]."""
        image = super().load_image(path)
        return image if self.image_size is None else resize(image, list(self.image_size), antialias=True)

    def load_mask(self, path: str) -> Mask:
        """Load a mask and dilate it, shape (H, W) of the file, uint8, 1 on the defect."""
        return dilate(super().load_mask(path), self.dilation)

    def load_sample_mask(self, sample: pd.Series, image: torch.Tensor) -> Mask | None:
        """Load the mask of a sample, check its size against the image file, and resize it."""
        if self.image_size is None:
            return super().load_sample_mask(sample, image)
        width, height = read_size(sample.image_path)
        mask = super().load_sample_mask(sample, torch.empty(height, width))
        return None if mask is None else resize_mask(mask, self.image_size)


class Part(NamedTuple):
    """An image and its label."""

    image: Path
    label: Path
    defective: bool
    group: str
    """Object, or joint name of objects that share an image: ``kos08+kos19``."""


def dilate(mask: Mask, side: int) -> Mask:
    """Dilate a mask with a square.

    Args:
        mask: Mask, shape (H, W), uint8, 0 or 1.
        side: Side of the square in pixels, odd; 0 for no dilation.

    Returns:
        Dilated mask, shape (H, W), uint8, 0 or 1.
    """
    if not side:
        return mask
    return Mask(F.max_pool2d(mask[None].float(), side, stride=1, padding=side // 2)[0], dtype=torch.uint8)


def read_parts(root: Path) -> list[Part]:
    """Find all images, their labels and their objects.

    Args:
        root: Folder with ``kos01`` to ``kos50``.

    Returns:
        The images, sorted by name.

    Raises:
        MissingDataError: If a folder, an image or a label is missing.
        InvalidInputError: If a label cannot be read, or its size differs from that of its image.
    """
    images = [image for name in OBJECTS for image in _images(root, name)]
    check_count(root, len(images), IMAGES, _advice(root))
    group = _joint_names(images)
    labels = [_label(image) for image in images]
    return [
        Part(image, label, _is_defective(image, label), group[image.parent.name])
        for image, label in zip(images, labels, strict=True)
    ]


def fold_of_group(parts: Iterable[Part]) -> dict[str, int]:
    """Assign objects to folds deterministically: from the largest to the smallest, each to the smallest fold.

    Args:
        parts: The images.

    Returns:
        Fold, 0 to 2, by object (``group``).
    """
    objects: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        objects[part.group].append(part)
    loads = {name: (sum(part.defective for part in images), len(images)) for name, images in objects.items()}
    total = [(0, 0)] * FOLDS
    folds = {}
    for name in sorted(loads, key=lambda name: (*(-count for count in loads[name]), name)):
        fold = total.index(min(total))
        total[fold] = (total[fold][0] + loads[name][0], total[fold][1] + loads[name][1])
        folds[name] = fold
    return folds


def _images(root: Path, name: str) -> list[Path]:
    """Return the images of an object and check that every label has one."""
    files = existing_images(root / name, _advice(root))
    for label in files:
        if label.stem.endswith("_label"):
            existing_file(label.with_name(f"{label.stem.removesuffix('_label')}.jpg"), _advice(root))
    return [path for path in files if not path.stem.endswith("_label")]


def _label(image: Path) -> Path:
    label = image.with_name(f"{image.stem}_label.bmp")
    return Path(existing_file(label, f"{image} needs it: {_advice(image.parent.parent)}"))


def _is_defective(image: Path, label: Path) -> bool:
    """Whether a label marks any pixel; checks its size."""
    with reading("label", str(label)):
        marks = read_mask(label)
    with reading("image", str(image)):
        image_size = read_size(image)
    size = marks.shape[::-1]
    if size != image_size:
        actual, expected = ("x".join(map(str, sides)) for sides in (size, image_size))
        msg = f"label {label} is {actual} pixels and its image {image} {expected}; make their sizes equal"
        raise InvalidInputError(msg)
    return bool(marks.any())


def _joint_names(images: Iterable[Path]) -> dict[str, str]:
    """Return the name of each object by folder, joint for objects that share an image."""
    names = {name: {name} for name in OBJECTS}
    first: dict[bytes, str] = {}
    for image in images:
        name = image.parent.name
        twin = first.setdefault(hashlib.sha256(image.read_bytes()).digest(), name)
        if names[twin] is not names[name]:
            names[twin] |= names[name]
            names.update(dict.fromkeys(names[twin], names[twin]))
    return {name: SEPARATOR.join(sorted(joint)) for name, joint in names.items()}


def _check_shape(dilation: int, image_size: Sequence[int] | None) -> None:
    if dilation not in DILATIONS:
        msg = f"dilation is {dilation}; choose one of {', '.join(map(str, DILATIONS))}"
        raise InvalidInputError(msg)
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        msg = f"image_size is {tuple(image_size)}; it must be height and width, both 1 or more, or none"
        raise InvalidInputError(msg)


def _advice(root: Path) -> str:
    return f"{root} must contain {LAYOUT}, available from {URL} (for non-commercial use only)"
