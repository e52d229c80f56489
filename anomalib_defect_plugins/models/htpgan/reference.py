"""Find and read the one normal image that HTP-GAN learns from, in any anomalib data module."""

import copy
from pathlib import Path

from anomalib.data import AnomalibDataModule, ImageItem
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.utils import LabelName
from pandas import DataFrame
from PIL import Image

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data.dataset import reading


def load_reference(datamodule: AnomalibDataModule | None, reference: int | str, min_side: int) -> ImageItem:
    """Read the reference image; no other image file is opened.

    Args:
        datamodule: The data module that training is given, set up.
        reference: Index among the normal training images in the order of their paths, or a file name.
        min_side: Least shorter side of the image, in pixels.

    Returns:
        The item of the training data set.

    Raises:
        ConfigurationError: There is no data module.
        InvalidInputError: There is no such normal image, it cannot be read, or it is too small.
    """
    if datamodule is None:
        msg = "HtpGan picks its reference image from a data module: pass datamodule= (--data on the command line)"
        raise ConfigurationError(msg)
    dataset = copy.copy(datamodule.train_data)
    dataset.augmentations = None  # random ones would be drawn anew by a run that resumes
    index = _find(dataset, reference, datamodule.name)
    path = dataset.samples.image_path[index]
    with reading("reference image", path):
        with Image.open(path) as image:
            width, height = image.size
        item = dataset[index]
    if min(width, height) < min_side:
        msg = (
            f"the reference image {path} is {width}x{height}, smaller than the coarsest scale ({min_side} pixels): "
            "choose a larger image, or lower --model.min_size"
        )
        raise InvalidInputError(msg)
    return item


def _find(dataset: AnomalibDataset, reference: int | str, name: str) -> int:
    """Give the row of the reference image in the table of samples."""
    samples = dataset.samples
    normal = samples[samples.label_index == LabelName.NORMAL].sort_values("image_path")
    if normal.empty:
        msg = f"the training split of {name} has no normal image: HtpGan needs one"
        raise InvalidInputError(msg)
    found = _named(normal, str(reference))
    is_index = str(reference).lstrip("-").isdecimal() and (isinstance(reference, int) or not found)
    if is_index and 0 <= int(reference) < len(normal):
        return int(normal.index[int(reference)])
    if len(found) == 1:
        return found[0]
    example = Path(normal.image_path.iloc[0]).name
    if is_index and not found:
        msg = f"reference is {reference}, but {name} has {len(normal)} normal training images, counted from 0"
        raise InvalidInputError(msg + f" (or give a file name, such as {example!r})")
    count = f"{len(found)} of the" if found else "none of the"
    msg = f"reference is {reference!r}, but {count} {len(normal)} normal training images of {name} are called so"
    raise InvalidInputError(msg + (": give more of its path" if found else f" (one is {example!r})"))


def _named(normal: DataFrame, reference: str) -> list[int]:
    """Give the rows whose path ends in ``reference``, with or without the file's ending."""
    wanted = Path(reference).parts
    rows = []
    for row, path in normal.image_path.items():
        parts = Path(path).parts[-len(wanted) :]
        if wanted in (parts, (*parts[:-1], Path(parts[-1]).stem)):
            rows.append(int(row))
    return rows
