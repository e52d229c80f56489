"""Find and read the one normal image that HTP-GAN learns from, in any anomalib data module."""

from pathlib import Path

from anomalib.data import AnomalibDataModule, ImageItem
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.utils import LabelName
from pandas import DataFrame
from PIL import Image

from anomalib_defect_plugins.data.base import reading
from anomalib_defect_plugins.errors import ConfigurationError, InvalidInputError


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
    dataset = datamodule.train_data
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
    if isinstance(reference, int) or (reference.isdecimal() and not _named(normal, reference)):
        position = int(reference)
        if not 0 <= position < len(normal):
            msg = f"reference is {position}, but {name} has {len(normal)} normal training images, counted from 0"
            raise InvalidInputError(msg)
        return int(normal.index[position])
    found = _named(normal, reference)
    if len(found) != 1:
        example = Path(normal.image_path.iloc[0]).name
        count = f"{len(found)} of the" if found else "none of the"
        msg = f"reference is {reference!r}, but {count} {len(normal)} normal training images of {name} are called so"
        raise InvalidInputError(msg + (": give more of its path" if found else f" (one is {example!r})"))
    return found[0]


def _named(normal: DataFrame, reference: str) -> list[int]:
    """Give the rows whose path ends in ``reference``, with or without the file's ending."""
    wanted = Path(reference).parts
    rows = []
    for row, path in normal.image_path.items():
        parts = Path(path).parts[-len(wanted) :]
        if wanted in (parts, (*parts[:-1], Path(parts[-1]).stem)):
            rows.append(int(row))
    return rows
