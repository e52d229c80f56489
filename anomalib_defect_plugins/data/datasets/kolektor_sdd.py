"""KolektorSDD: electrical commutators, some with a crack, in the three folds by object of the supervised papers.

Read in its authors' layout: ``kosNN/PartM.jpg`` and ``kosNN/PartM_label.bmp``, 399 grey images of 50 objects, about
1260x500 pixels; 52 show a crack. Tabernik et al., "Segmentation-based deep-learning approach for surface-defect
detection", Journal of Intelligent Manufacturing 31, 2020. The labels' dilation and the size of 1408x512 are those of
Section 3 of the one-stage paper (Sensors 20(7), 1829, 2020), which repeats that protocol.
"""

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from anomalib.data.utils import Split
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.v2 import Transform
from torchvision.transforms.v2.functional import resize
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.data.dataset import CheckedDataset, image_files, reading
from anomalib_defect_plugins.data.download import download_files
from anomalib_defect_plugins.data.dataclasses import GOOD, SEPARATOR
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, existing, make_table
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError

logger = logging.getLogger(__name__)

URL = "https://go.vicos.si/kolektorsdd"
"""The authors' archive."""

DIGEST = "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc"
"""SHA-256 of the archive, the one that anomalib's ``Kolektor`` expects."""

FILES = re.compile(r"kos\d\d/Part\w+\.(jpg|bmp)")
"""The files of the archive that are read here."""

OBJECTS = tuple(f"kos{number:02}" for number in range(1, 51))
"""Folders, one an object."""

IMAGES = 399
"""Number of images."""

FOLDS = 3
"""Number of folds."""

DILATIONS = (0, 5, 9, 13, 17)
"""Sides of the squares that labels are dilated with."""

LAYOUT = "kosNN/PartM.jpg and kosNN/PartM_label.bmp for kos01 to kos50 (399 images)"


class KolektorSdd(DefectDataModule):
    """KolektorSDD in three folds by object: one tests, the other two train. Under CC BY-NC-SA 4.0.

    The normal images of the two training folds are the training split, the cracked ones ``train_defects``. anomalib's
    ``Kolektor`` is the same data with a split of its own, by image.

    The lists of the authors' folds are not part of the data, so folds are made here, the same each time: object by
    object, such that each fold has as many cracked images and as many images as the others. Objects of which an image
    is the same, byte for byte, are one object, with a joint name in the column ``group``, and are in one fold.

    A missing root is downloaded from the authors' page.

    Args:
        root: Folder that holds ``kos01`` to ``kos50``.
        fold: The fold that tests: 0, 1 or 2.
        dilation: Side of the square, in pixels of the original image, that labels are dilated with: 5, 9, 13 or 17, or
            0 for the labels as they are. It holds for all splits, as in the papers: pixel-level measures at different
            dilations cannot be compared.
        image_size: Height and width that images and masks are resized to when read; ``None`` leaves them as they are.
            Images are resized bilinearly, with antialiasing. No defect is lost: where a mask shrinks, a pixel is
            defective if any part of it was.
        kwargs: Batch sizes, processes, augmentations, validation split and seed, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: An argument cannot be. On setup: a file is broken, or a label is not as large as its image.
        MissingDataError: On setup: a file is missing; the message names it.
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
        # What comes from a configuration file may be a list.
        self.image_size = None if image_size is None else (image_size[0], image_size[1])

    def prepare_data(self) -> None:
        """Download the data set if the root is missing or empty.

        Raises:
            MissingDataError: The download failed; the message says what to put where.
        """
        if self.root.is_dir() and any(self.root.iterdir()):
            return
        logger.warning(
            "KolektorSDD is under CC BY-NC-SA 4.0, so for non-commercial use only; downloading it from %s", URL
        )
        try:
            download_files(URL, self.root, FILES, archive_digest=DIGEST)
        except MissingDataError as error:
            msg = f"{error}; download it by hand and unpack it such that {self.root} holds {LAYOUT}"
            raise MissingDataError(msg) from error

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
        dilation: Side of the square, in pixels of the original image, that masks are dilated with; 0 leaves them.
        image_size: Height and width of what is given; ``None`` leaves images and masks as they are.
        augmentations: Augmentations of images and masks.

    Raises:
        InvalidInputError: The dilation or the size cannot be.
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
        """Read the image at ``path``: (3, H, W), float in [0, 1], of the size asked for."""
        image = super().load_image(path)
        return image if self.image_size is None else resize(image, list(self.image_size), antialias=True)

    def load_mask(self, path: str) -> Mask:
        """Read the mask at ``path``, dilated: (H, W) of the file, uint8, 1 on the defect."""
        return dilate(super().load_mask(path), self.dilation)

    def _mask_of(self, sample: pd.Series, image: torch.Tensor) -> Mask | None:
        if self.image_size is None:
            return super()._mask_of(sample, image)
        # The mask must fit the image as it is in its file.
        with Image.open(sample.image_path) as file:
            width, height = file.size
        mask = super()._mask_of(sample, torch.empty(height, width))
        return None if mask is None else resize_mask(mask, self.image_size)


class Part(NamedTuple):
    """An image and its label."""

    image: Path
    label: Path
    defective: bool
    group: str
    """The object, or the joint name of objects that share an image: ``kos08+kos19``."""


def dilate(mask: Mask, side: int) -> Mask:
    """Dilate a mask with a square.

    Args:
        mask: (H, W), uint8, 0 or 1.
        side: Side of the square in pixels, odd; 0 leaves the mask.

    Returns:
        (H, W), uint8, 0 or 1.
    """
    if not side:
        return mask
    return Mask(F.max_pool2d(mask[None].float(), side, stride=1, padding=side // 2)[0], dtype=torch.uint8)


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resize a mask such that nothing it marks is lost.

    Args:
        mask: (H, W), uint8, 0 or 1.
        size: Height and width. Along an axis that shrinks a pixel is marked if any part of it was; along one that grows
            it is as the nearest was.

    Returns:
        (height, width), uint8, 0 or 1.
    """
    shrunk = [min(sides) for sides in zip(mask.shape, size, strict=True)]
    marked = F.adaptive_max_pool2d(mask[None, None].float(), shrunk)
    return Mask(F.interpolate(marked, size, mode="nearest-exact")[0, 0], dtype=torch.uint8)


def read_parts(root: Path) -> list[Part]:
    """Find all images, their labels and which objects are one.

    Args:
        root: Folder that holds ``kos01`` to ``kos50``.

    Returns:
        The images, sorted by name.

    Raises:
        MissingDataError: A folder, an image or a label is missing.
        InvalidInputError: A label cannot be read or is not as large as its image.
    """
    images = [image for name in OBJECTS for image in _images(root, name)]
    if len(images) != IMAGES:
        msg = f"{root} holds {len(images)} images, not {IMAGES}; {_advice(root)}"
        raise MissingDataError(msg)
    group = _joint_names(images)
    labels = [_label(image) for image in images]
    return [
        Part(image, label, _is_defective(image, label), group[image.parent.name])
        for image, label in zip(images, labels, strict=True)
    ]


def fold_of_group(parts: Iterable[Part]) -> dict[str, int]:
    """Put objects into folds, the same each time: the largest first, each into the fold that has least.

    Args:
        parts: The images.

    Returns:
        The fold, from 0 to 2, by the object (``group``).
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
    """Images of an object; every label must have one."""
    folder = root / name
    files = image_files(folder) if folder.is_dir() else []
    if not files:
        msg = f"{folder} is missing or holds no image; {_advice(root)}"
        raise MissingDataError(msg)
    for label in files:
        if label.stem.endswith("_label"):
            existing(label.with_name(f"{label.stem.removesuffix('_label')}.jpg"), _advice(root))
    return [path for path in files if not path.stem.endswith("_label")]


def _label(image: Path) -> Path:
    label = image.with_name(f"{image.stem}_label.bmp")
    return Path(existing(label, f"{image} needs it: {_advice(image.parent.parent)}"))


def _is_defective(image: Path, label: Path) -> bool:
    """Whether a label marks anything."""
    with reading("label", str(label)), Image.open(label) as file:
        size, marked = file.size, file.convert("L").getbbox() is not None
    with reading("image", str(image)), Image.open(image) as file:
        image_size = file.size
    if size != image_size:
        given, needed = ("x".join(map(str, sides)) for sides in (size, image_size))
        msg = f"label {label} is {given} pixels and its image {image} {needed}; make them alike"
        raise InvalidInputError(msg)
    return marked


def _joint_names(images: Iterable[Path]) -> dict[str, str]:
    """Name of each object, joint for those that share an image."""
    names = {name: {name} for name in OBJECTS}
    first: dict[bytes, str] = {}
    for image in images:
        digest = hashlib.sha256(image.read_bytes()).digest()
        one, other = first.setdefault(digest, image.parent.name), image.parent.name
        if names[one] is not names[other]:
            names[one] |= names[other]
            names.update(dict.fromkeys(names[one], names[one]))
    return {name: SEPARATOR.join(sorted(joint)) for name, joint in names.items()}


def _check_shape(dilation: int, image_size: Sequence[int] | None) -> None:
    if dilation not in DILATIONS:
        msg = f"dilation is {dilation}; choose one of {', '.join(map(str, DILATIONS))}"
        raise InvalidInputError(msg)
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        msg = f"image_size is {tuple(image_size)}; give height and width, both 1 or more, or none"
        raise InvalidInputError(msg)


def _advice(root: Path) -> str:
    return f"{root} must hold {LAYOUT}, to be had from {URL} (for non-commercial use only)"
