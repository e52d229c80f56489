"""Base class of the data sets, which names unusable files, and a check for any other anomalib data set."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from PIL import Image
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError, UserError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.core.image_io import check_image, read_image
from anomalib_defect_plugins.core.mask_io import check_background, read_mask
from anomalib_defect_plugins.data.dataclasses import DefectBatch, DefectItem
from anomalib_defect_plugins.data.mask_resize import augment
from anomalib_defect_plugins.data.wrapped_dataset import innermost


class CheckedDataset(AnomalibDataset):
    """Base class of data sets. A subclass sets ``samples`` and overrides ``load_mask`` for other mask formats.

    ``samples`` has anomalib's columns, ``defect_type`` (``good`` for a normal image) and, where several images show one
    object, ``group``; see :func:`~anomalib_defect_plugins.data.sample_table.make_table`.
    """

    @property
    def collate_fn(self) -> Callable[..., Any]:
        """Function that collates items into a ``DefectBatch``."""
        return DefectBatch.collate

    def load_image(self, path: str) -> ImageTensor:
        """Load an image, shape (3, H, W), float in [0, 1]; 16-bit values are scaled, an alpha channel is dropped."""
        # Images stored pixel by pixel collate into channels-last batches, which speed up convolutions.
        pixels, _, _ = read_image(path, order="K")
        return ImageTensor(torch.from_numpy(pixels))

    def load_mask(self, path: str) -> Mask:
        """Load a mask, shape (H, W), uint8, 1 where something is drawn that is neither black nor transparent."""
        return Mask(torch.from_numpy(read_mask(path)), dtype=torch.uint8)

    def __getitem__(self, index: int) -> DefectItem:
        """Load a sample: image, shape (3, H, W), float in [0, 1], and mask, shape (H, W), bool.

        Raises:
            MissingDataError: If a file does not exist.
            InvalidInputError: If a file cannot be read, or the sizes of mask and image differ.
        """
        sample = self.samples.iloc[index]
        with reading("image", sample.image_path):
            image = self.load_image(sample.image_path)
        mask = self.load_sample_mask(sample, image)
        ignored = self.load_ignored(sample, image)
        if self.augmentations:
            image, mask, ignored = augment(self.augmentations, image, mask, ignored)
        unlabelled = sample.label_index == LabelName.UNKNOWN
        return DefectItem(
            image=image,
            gt_mask=mask,
            gt_label=None if unlabelled else torch.tensor(sample.label_index),
            image_path=sample.image_path,
            mask_path=sample.mask_path,
            defect_type=sample.get("defect_type"),
            ignore_mask=None if ignored is None else Mask(ignored, dtype=torch.bool),
        )

    def load_ignored(self, sample: pd.Series, image: torch.Tensor) -> Mask | None:
        """Load the pixels of a sample that are neither defective nor normal, for training.

        Args:
            sample: Row of ``samples``.
            image: Its image, shape (C, H, W).

        Returns:
            Mask, shape (H, W), uint8; ``None`` for all samples of a data set that knows no such pixels.
        """
        del sample, image
        return None

    def load_sample_mask(self, sample: pd.Series, image: torch.Tensor) -> Mask | None:
        """Load the mask of a sample and check that it is as large as the image.

        Args:
            sample: Row of ``samples``.
            image: Its image, shape (C, H, W).

        Returns:
            Mask, shape (H, W), uint8; ``None`` for unlabelled images, defective ones without a mask, and for
            classification.

        Raises:
            MissingDataError: If the mask does not exist.
            InvalidInputError: If the mask cannot be read, marks everything or has another size.
        """
        if self.task != TaskType.SEGMENTATION or sample.label_index == LabelName.UNKNOWN:
            return None
        if sample.label_index == LabelName.NORMAL:
            return Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))
        if not sample.mask_path:
            return None
        mask = load_checked_mask(self, sample.mask_path)
        check_size(sample.mask_path, tuple(mask.shape[::-1]), sample.image_path, tuple(image.shape[:-3:-1]))
        return mask


def load_checked_mask(dataset: CheckedDataset, path: str) -> Mask:
    """Load a mask and check that it leaves a background.

    Args:
        dataset: Data set whose ``load_mask`` reads it.
        path: The file.

    Raises:
        MissingDataError: If it does not exist.
        InvalidInputError: If it cannot be read, or marks everything.
    """
    with reading("mask", path):
        mask = dataset.load_mask(path)
        check_background(mask.numpy() > 0, f"mask {path}")
    return mask


def check_not_empty(mask: Mask, what: str, advice: str) -> Mask:
    """Check that a mask marks at least one pixel, and return it.

    Args:
        mask: The mask.
        what: Kind and path of its file, for the message.
        advice: What to do, for the message.

    Raises:
        InvalidInputError: If no pixel is marked.
    """
    if not mask.any():
        msg = f"{what} marks nothing; {advice}"
        raise InvalidInputError(msg)
    return mask


def check_samples(*datasets: AnomalibDataset) -> None:
    """Check every image and mask of any anomalib data sets, and name all that are unusable in one message.

    The check does as little as finds a truncated or damaged file: it verifies the checksums of a PNG and decodes a JPEG
    at an eighth of its size. Masks of a :class:`CheckedDataset` are loaded by the data set, which may refuse their
    content.

    Raises:
        MissingDataError: If a file does not exist.
        InvalidInputError: If an image or a mask is damaged, or their sizes differ.
    """
    faults = Faults(", ".join(dict.fromkeys(dataset.name for dataset in datasets)))
    for dataset in datasets:
        for sample in dataset.samples.itertuples():
            with faults.collect():
                _check_sample(dataset, sample)
    faults.raise_all()


def _check_sample(dataset: AnomalibDataset, sample: Any) -> None:
    size = _check_image(sample.image_path)
    with_masks = dataset.samples.attrs.get("task") != TaskType.CLASSIFICATION
    if with_masks and sample.label_index == LabelName.ABNORMAL:
        mask_size = _check_mask(dataset, getattr(sample, "mask_path", None))
        if mask_size is not None:
            check_size(sample.mask_path, mask_size, sample.image_path, size)


def _check_image(path: str) -> tuple[int, int]:
    """Check an image file and return its width and height."""
    with reading("image", path):
        return check_image(path)


def _check_mask(dataset: AnomalibDataset, path: Any) -> tuple[int, ...] | None:
    """Check a mask and return its width and height; ``None`` for a format that only the data set could read."""
    dataset = innermost(dataset)
    if path and isinstance(dataset, CheckedDataset):
        return tuple(load_checked_mask(dataset, path).shape[::-1])
    if not isinstance(path, str | Path) or Path(path).suffix.lower() not in Image.registered_extensions():
        return None
    with reading("mask", str(path)):
        marks = read_mask(path)
        check_background(marks, f"mask {path}")
    return marks.shape[::-1]


def check_size(mask: str, mask_size: tuple[int, ...], image: str, image_size: tuple[int, ...]) -> None:
    """Check that a mask is as large as its image.

    Args:
        mask: Path of the mask.
        mask_size: Its width and height.
        image: Path of the image.
        image_size: Its width and height.

    Raises:
        InvalidInputError: If it is not.
    """
    if image_size != mask_size:
        actual, expected = ("x".join(map(str, size)) for size in (mask_size, image_size))
        msg = f"mask {mask} is {actual} pixels and its image {image} {expected}; make their sizes equal"
        raise InvalidInputError(msg)


@contextlib.contextmanager
def reading(what: str, path: str, advice: str = "Restore it or remove its sample.") -> Iterator[None]:
    """Name the file in any error that is raised while it is read.

    Args:
        what: Kind of file, such as ``mask``, for the message.
        path: The file.
        advice: What to do if it is missing, for the message.

    Raises:
        MissingDataError: If the file does not exist.
        InvalidInputError: If anything else goes wrong.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        msg = f"{what} {path} not found. {advice}"
        raise MissingDataError(msg) from error
    except Exception as error:  # decoders raise errors of many types on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"cannot read {what} {path} ({reason}); replace that file or remove it"
        raise InvalidInputError(msg) from error
