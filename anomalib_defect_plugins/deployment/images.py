"""Images of a data module as a camera would yield them, for the calibration and checks of exported graphs."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from anomalib.data import AnomalibDataModule

from anomalib_defect_plugins.core.errors import MissingDataError
from anomalib_defect_plugins.core.image_io import read_bytes

Picture = npt.NDArray[np.uint8]
"""Image, shape (H, W, 3), uint8, RGB."""


class LabelledImages(NamedTuple):
    """Images and whether they are defective, shape (N,)."""

    images: list[Picture]
    labels: npt.NDArray[np.bool_]


def check_images(datamodule: AnomalibDataModule, number: int) -> LabelledImages:
    """Read images of the test split, evenly distributed over normal and defective ones.

    Args:
        datamodule: Data module that is set up.
        number: Maximum number of images.

    Raises:
        MissingDataError: If the split is empty.
    """
    table = _samples(datamodule, "test_data")
    groups = [group for _, group in table.groupby("label_index")]
    share = -(-number // len(groups))
    rows = pd.concat([group.iloc[_spread(len(group), share)] for group in groups]).iloc[:number]
    return LabelledImages([read_bytes(path)[0] for path in rows.image_path], rows.label_index.to_numpy() == 1)


def training_images(datamodule: AnomalibDataModule, number: int) -> list[Picture]:
    """Read images of the training split, evenly distributed.

    Args:
        datamodule: Data module that is set up.
        number: Maximum number of images.

    Raises:
        MissingDataError: If the split is empty.
    """
    table = _samples(datamodule, "train_data")
    return [read_bytes(path)[0] for path in table.image_path.iloc[_spread(len(table), number)]]


def _samples(datamodule: AnomalibDataModule, split: str) -> pd.DataFrame:
    data: Any = getattr(datamodule, split)
    if not len(data):
        msg = f"{datamodule.name} has no images in its {split.partition('_')[0]} split, which the export needs"
        raise MissingDataError(msg)
    samples: pd.DataFrame = data.samples
    return samples


def _spread(count: int, number: int) -> npt.NDArray[np.intp]:
    """Return the indices of ``number`` of ``count`` items, or of all, evenly distributed."""
    indices: npt.NDArray[np.intp] = np.linspace(0, count - 1, min(count, number)).round().astype(np.intp)
    return indices
