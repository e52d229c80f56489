"""The size that the images of a data module have."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from statistics import median
from typing import Any

from anomalib.data import AnomalibDataModule, AnomalibDataset

from anomalib_defect_plugins.core.image_io import Size

SAMPLE = 25
"""Number of training images that are read for the size of all."""


def typical_size(datamodule: AnomalibDataModule) -> Size:
    """Return the median height and width of the training images, after the data module's own augmentations.

    Args:
        datamodule: Data module, set up. ``SAMPLE`` images, evenly spaced, are read.
    """
    dataset = datamodule.train_data
    with _own_augmentations(datamodule, dataset):
        step = max(1, len(dataset) // SAMPLE)
        items: list[Any] = [dataset[index] for index in range(0, len(dataset), step)]
    sizes = [tuple(item.image.shape[-2:]) for item in items]
    heights, widths = zip(*sizes, strict=True)
    return round(median(heights)), round(median(widths))


@contextmanager
def _own_augmentations(datamodule: AnomalibDataModule, dataset: AnomalibDataset) -> Iterator[None]:
    """Remove the resizing of the model, which anomalib adds to the augmentations, for as long as the context lasts."""
    before = dataset.augmentations
    dataset.augmentations = datamodule.train_augmentations
    try:
        yield
    finally:
        dataset.augmentations = before


def fit_size(size: Size, multiple: int, min_side: int, max_pixels: int) -> Size:
    """Return the size nearest to ``size`` that a model takes.

    Args:
        size: Height and width in pixels.
        multiple: The sides become multiples of it.
        min_side: Lowest height and width, a multiple of ``multiple``.
        max_pixels: Larger images are scaled down to this number of pixels, with their aspect ratio.
    """
    height, width = size
    scale = min(1.0, sqrt(max_pixels / (height * width)))
    rounded = (multiple * round(scale * side / multiple) for side in size)
    height, width = (max(min_side, side) for side in rounded)
    return height, width
