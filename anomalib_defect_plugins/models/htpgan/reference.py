"""Find and load the one normal image that HTP-GAN learns from, in any anomalib data module."""

import copy
from pathlib import Path
from typing import cast

from anomalib.data import AnomalibDataModule, ImageItem
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.utils import LabelName
from pandas import DataFrame
from torch import Tensor

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.data.dataset import reading


def load_reference(datamodule: AnomalibDataModule | None, reference: int | str, min_side: int) -> ImageItem:
    """Load the reference image; no other image file is opened.

    Args:
        datamodule: Data module of the training run, set up.
        reference: Index among the normal training images in the order of their paths, or a file name.
        min_side: Minimum of the image's height and width, in pixels.

    Returns:
        Item of the training data set.

    Raises:
        ConfigurationError: If there is no data module.
        MissingDataError: If the file does not exist.
        InvalidInputError: If no normal image matches ``reference``, or if the image is corrupt or too small.
    """
    if datamodule is None:
        msg = "HtpGan picks its reference image from a data module: pass datamodule= (--data on the command line)"
        raise ConfigurationError(msg)
    dataset = copy.copy(datamodule.train_data)
    dataset.augmentations = None  # a resumed run would draw different ones
    index = _find(dataset, reference, datamodule.name)
    path = dataset.samples.image_path[index]
    with reading("reference image", path):
        item = cast(ImageItem, dataset[index])
    height, width = cast(Tensor, item.image).shape[-2:]
    if min(width, height) < min_side:
        msg = (
            f"the reference image {path} is {width}x{height}, smaller than the coarsest scale ({min_side} pixels): "
            "choose a larger image, or lower --model.min_size"
        )
        raise InvalidInputError(msg)
    return item


def _find(dataset: AnomalibDataset, reference: int | str, name: str) -> int:
    """Return the row of the reference image in the table of samples."""
    samples = dataset.samples
    normal = samples[samples.label_index == LabelName.NORMAL].sort_values("image_path")
    if normal.empty:
        msg = f"the training split of {name} has no normal image: HtpGan needs one"
        raise InvalidInputError(msg)
    matches = _matching_rows(normal, str(reference))
    is_index = str(reference).lstrip("-").isdecimal() and (isinstance(reference, int) or not matches)
    if is_index and 0 <= int(reference) < len(normal):
        return int(normal.index[int(reference)])
    if len(matches) == 1:
        return matches[0]
    example = Path(normal.image_path.iloc[0]).name
    if is_index and not matches:
        images = counted(len(normal), "normal training image")
        msg = f"reference is {reference}, but {name} has {images}, counted from 0"
        raise InvalidInputError(msg + f" (or pass a file name, such as {example!r})")
    count = f"{len(matches)} of the" if matches else "none of the"
    msg = f"reference is {reference!r}, but {count} {len(normal)} normal training images of {name} match it"
    raise InvalidInputError(msg + (": add more of its path" if matches else f" (one is {example!r})"))


def _matching_rows(normal: DataFrame, reference: str) -> list[int]:
    """Return the rows whose path ends in ``reference``, with or without the suffix of the file."""
    ending = Path(reference).parts
    rows = []
    for row, path in normal.image_path.items():
        parts = Path(path).parts[-len(ending) :]
        if ending in (parts, (*parts[:-1], Path(parts[-1]).stem)):
            rows.append(int(row))
    return rows
