"""Reading samples such that a bad file is named: a base for the data sets here, and a check for any other's."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName, read_mask
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2.functional import to_dtype, to_image
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError, UserError
from anomalib_defect_plugins.data.dataclasses import DefectBatch, DefectItem


class CheckedDataset(AnomalibDataset):
    """Base of the data sets here. A subclass sets ``samples``, and overrides ``load_mask`` for masks of its own format.

    ``samples`` has anomalib's columns, ``defect_type`` (the kind of defect, ``good`` for a normal image) and, where
    several images show one object, ``group``; see :func:`~anomalib_defect_plugins.data.sample_table.make_table`.
    """

    @property
    def collate_fn(self) -> Callable[..., Any]:
        """What makes a ``DefectBatch`` of samples."""
        return DefectBatch.collate

    def load_image(self, path: str) -> ImageTensor:
        """Read the image at ``path``: (3, H, W), float in [0, 1]; 16 bits are scaled, an alpha channel is dropped."""
        return _read_image(path)

    def load_mask(self, path: str) -> Mask:
        """Read the mask at ``path``: (H, W), uint8, 1 on the defect, which is what is neither black nor transparent."""
        with Image.open(path) as image:
            if not image.has_transparency_data:
                return read_mask(path, as_tensor=True)
            *colours, alpha = np.array(image.convert("RGBA")).transpose(2, 0, 1)
        return Mask(torch.from_numpy(np.any(colours, axis=0) & (alpha > 0)), dtype=torch.uint8)

    def __getitem__(self, index: int) -> DefectItem:
        """Read a sample: image (3, H, W), float in [0, 1], and mask (H, W), bool.

        Raises:
            MissingDataError: A file is gone.
            InvalidInputError: A file cannot be read, or the mask is not as large as the image.
        """
        sample = self.samples.iloc[index]
        with reading("image", sample.image_path):
            image = self.load_image(sample.image_path)
        mask = self._mask_of(sample, image)
        if self.augmentations:
            image, mask = (self.augmentations(image), None) if mask is None else self.augmentations(image, mask)
        unlabelled = sample.label_index == LabelName.UNKNOWN
        return DefectItem(
            image=image,
            gt_mask=mask,
            gt_label=None if unlabelled else torch.tensor(sample.label_index),
            image_path=sample.image_path,
            mask_path=sample.mask_path,
            defect_type=sample.get("defect_type"),
        )

    def _mask_of(self, sample: pd.Series, image: torch.Tensor) -> Mask | None:
        if self.task != TaskType.SEGMENTATION or sample.label_index == LabelName.UNKNOWN:
            return None
        if sample.label_index == LabelName.NORMAL:
            return Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))
        with reading("mask", sample.mask_path):
            mask = self.load_mask(sample.mask_path)
        _check_size(sample, image_size=tuple(image.shape[:-3:-1]), mask_size=tuple(mask.shape[::-1]))
        return mask


def image_files(folder: Path) -> list[Path]:
    """Give the images in a folder, sorted: by suffix, as anomalib does, without hidden files and subfolders."""
    return sorted(path for path in folder.iterdir() if is_image_file(path))


def is_image_file(path: Path) -> bool:
    """Whether a file is meant to be an image: by its suffix, and not hidden."""
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _read_image(path: str) -> ImageTensor:
    with Image.open(path) as image:
        _check_mode(image)
        if not image.mode.startswith("I"):
            # Pillow warns when the transparency of a palette is dropped in one step.
            colours = image.convert("RGBA") if image.has_transparency_data else image
            return to_dtype(to_image(colours.convert("RGB")), torch.float32, scale=True)
        # Pillow opens 16 grey bits as integers, and would clip them to 255 on conversion.
        values = torch.from_numpy(np.array(image).astype(np.float32) / 65535)
    if values.max() > 1 or values.min() < 0:
        msg = "its values need more than 16 bits, or a sign"
        raise ValueError(msg)
    return ImageTensor(values.expand(3, *values.shape))


def _check_mode(image: Image.Image) -> None:
    """Refuse what has no full range to scale by; Pillow would clip it to whole numbers."""
    if image.mode == "F":
        msg = "its values are floating-point numbers, save it with 8 or 16 bits"
        raise ValueError(msg)


def check_samples(dataset: AnomalibDataset) -> None:
    """Look at every image and mask of any anomalib data set and stop at the first that cannot be used.

    Files are examined as little as finds a cut or damaged one: the checksums of a PNG, a JPEG decoded at an eighth of
    its size. Masks are read by the data set if it is one of ours, so that it can refuse what it cannot use.

    Raises:
        MissingDataError: A file is gone.
        InvalidInputError: An image or a mask is broken, or a mask is not as large as its image.
    """
    with_masks = dataset.samples.attrs.get("task") != TaskType.CLASSIFICATION
    for sample in dataset.samples.itertuples():
        size = _examine("image", sample.image_path)
        if with_masks and sample.label_index == LabelName.ABNORMAL:
            mask_size = _examine_mask(dataset, getattr(sample, "mask_path", None))
            if mask_size is not None:
                _check_size(sample, size, mask_size)


def _examine_mask(dataset: AnomalibDataset, path: Any) -> tuple[int, ...] | None:
    """Check a mask and give its (width, height); nothing where only the data set could tell."""
    dataset = getattr(dataset, "dataset", dataset)  # what a training set with defects is made of
    if path and isinstance(dataset, CheckedDataset):
        with reading("mask", path):
            return tuple(dataset.load_mask(path).shape[::-1])
    return _examine("mask", path) if _is_image(path) else None


def _is_image(path: object) -> bool:
    return isinstance(path, str | Path) and Path(path).suffix.lower() in Image.registered_extensions()


def _examine(what: str, path: str) -> tuple[int, int]:
    """Check an image file and give its (width, height)."""
    with reading(what, path), Image.open(path) as image:
        size = image.size
        if what == "image":
            _check_mode(image)
        if image.format == "PNG":
            image.verify()
        else:
            # Only a JPEG decoder knows how to draw a small draft; for other formats this changes nothing.
            image.draft("L", (max(1, size[0] // 8), max(1, size[1] // 8)))
            image.load()
    return size


def _check_size(sample: Any, image_size: tuple[int, ...], mask_size: tuple[int, ...]) -> None:
    if image_size != mask_size:
        given, needed = ("x".join(map(str, size)) for size in (mask_size, image_size))
        msg = f"mask {sample.mask_path} is {given} pixels and its image {sample.image_path} {needed}; make them alike"
        raise InvalidInputError(msg)


@contextlib.contextmanager
def reading(what: str, path: str) -> Iterator[None]:
    """Name the file in whatever goes wrong while it is read.

    Args:
        what: What the file is to the user, such as ``mask``.
        path: The file.

    Raises:
        MissingDataError: The file is gone.
        InvalidInputError: Anything else.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        msg = f"{what} {path} does not exist; put it back, or remove what belongs to it"
        raise MissingDataError(msg) from error
    except Exception as error:  # decoders raise errors of many kinds on a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"cannot read {what} {path} ({reason}); replace that file or remove it"
        raise InvalidInputError(msg) from error
