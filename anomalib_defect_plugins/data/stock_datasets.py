"""Data sets of anomalib, read by the image and mask readers of this package."""

import copy
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataset, ImageItem, PredictDataset
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset
from torchvision.tv_tensors import Image

from anomalib_defect_plugins.core.image_files import (
    ANOMALIB_SUFFIXES,
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    has_suffix,
)
from anomalib_defect_plugins.core.image_io import is_read_otherwise, read_image
from anomalib_defect_plugins.data.dataset import CheckedDataset, reading
from anomalib_defect_plugins.data.wrapped_dataset import WrappedDataset

logger = logging.getLogger(__name__)


class StockDataset(CheckedDataset):
    """The samples of an anomalib data set that has no way of its own to load them.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: AnomalibDataset) -> None:
        super().__init__(augmentations=dataset.augmentations)
        # The setter of ``samples`` would sort the table, but a ``WrappedDataset`` has indices into it.
        self._samples = dataset.samples
        self._category = dataset.category
        self._name = dataset.name
        self._source: AnomalibDataset | None = dataset

    @property
    def name(self) -> str:
        """Name of the anomalib data set."""
        return self._name

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker process needs. A ``SyntheticAnomalyDataset`` there would delete its files at the end."""
        return {**vars(self), "_source": None}


class CheckedPredictDataset(PredictDataset):
    """A ``PredictDataset`` that reads images as this package does."""

    def __getitem__(self, index: int) -> ImageItem:
        """Load an image, shape (3, H, W), float in [0, 1].

        Raises:
            MissingDataError: If the file does not exist.
            InvalidInputError: If the file cannot be read.
        """
        path = str(self.image_filenames[index])
        with reading("image", path):
            image = Image(torch.from_numpy(read_image(path)[0]))
        return ImageItem(image=self.transform(image) if self.transform else image, image_path=path)


def checked(dataset: Any) -> Any:
    """Return a data set that reads the same files with the readers of this package.

    anomalib's reader turns 16 bits white and ignores orientation tags. A data set of another class that loads its
    samples itself is returned as it is, with a warning if that matters for its images.
    """
    if isinstance(dataset, WrappedDataset):
        dataset.dataset = checked(dataset.dataset)
    elif isinstance(dataset, PredictDataset) and type(dataset).__getitem__ is PredictDataset.__getitem__:
        dataset = copy.copy(dataset)
        dataset.__class__ = CheckedPredictDataset
        _warn_of_unlisted(dataset.image_filenames)
    elif isinstance(dataset, AnomalibDataset) and not isinstance(dataset, CheckedDataset):
        return _checked_dataset(dataset)
    return dataset


def _checked_dataset(dataset: AnomalibDataset) -> AnomalibDataset:
    _warn_of_unlisted(dataset.samples.image_path)
    if isinstance(dataset, SyntheticAnomalyDataset):
        cause = f"anomalib has drawn defects on images of {dataset.name}"
        _warn_of_other_pixels(dataset.source_samples.image_path, cause)
    if type(dataset).__getitem__ is AnomalibDataset.__getitem__:
        return StockDataset(dataset)
    _warn_of_other_pixels(dataset.samples.image_path, f"{type(dataset).__name__} reads images itself")
    return dataset


def _warn_of_other_pixels(paths: Iterable[str], cause: str) -> None:
    """Warn once if anomalib's reader has other pixels for one of the images."""
    other = next((path for path in paths if Path(path).is_file() and _is_read_otherwise(path)), None)
    if other is not None:
        logger.warning(
            "%s, wrongly if they have more than 8 bits or an orientation tag, as %s has; convert them to 8 bits, and "
            "turn them, or use DefectFolder and no synthetic validation images",
            cause,
            other,
        )


def _is_read_otherwise(path: str) -> bool:
    try:
        return is_read_otherwise(path)
    except Exception:  # noqa: BLE001 - a damaged file, which is named when it is loaded
        return False


def _warn_of_unlisted(paths: Iterable[str | Path]) -> None:
    """Warn once of image files beside those of a data set that anomalib does not list."""
    unlisted = set(IMAGE_SUFFIXES + UNREAD_SUFFIXES) - set(ANOMALIB_SUFFIXES)
    folders = sorted({Path(path).parent for path in paths})
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    skipped = [file for file in files if has_suffix(file, tuple(unlisted))]
    if skipped:
        logger.warning(
            "anomalib leaves out image files with the suffix of %s, %d in all; convert them to PNG or TIFF",
            skipped[0],
            len(skipped),
        )
