"""Tables of samples, and how they are split without tearing the images of one object apart."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_defect_plugins.core.errors import MissingDataError
from anomalib_defect_plugins.data.dataclasses import GOOD


class Sample(NamedTuple):
    """One image of a data set."""

    image_path: str
    split: str
    defect_type: str = GOOD
    """``good`` for a normal image; several types are joined by ``+``."""
    mask_path: str = ""
    group: str = ""
    """The object that the image shows, where there are several images of one."""


def make_table(samples: Iterable[Sample], task: TaskType = TaskType.SEGMENTATION) -> DataFrame:
    """Make the table that an anomalib data set takes as its ``samples``.

    Args:
        samples: The images.
        task: ``segmentation`` if every defective image has a mask, else ``classification``.

    Returns:
        Columns ``image_path``, ``split``, ``label`` (``normal`` or ``abnormal``), ``label_index`` (0 or 1),
        ``mask_path``, ``defect_type``, and ``group`` if the samples have one; ``attrs["task"]`` is the task.
    """
    table = DataFrame(samples, columns=Sample._fields)
    label = (table.defect_type != GOOD).astype(int)
    table.insert(2, "label", [LabelName(index).name.lower() for index in label])
    table.insert(3, "label_index", label)
    table = table[["image_path", "split", "label", "label_index", "mask_path", "defect_type", "group"]]
    if not table.group.astype(bool).any():
        table = table.drop(columns="group")
    table.attrs["task"] = str(TaskType(task).value)
    return table


def existing(path: Path, advice: str) -> str:
    """Give the path of a file that must be there, as a string.

    Raises:
        MissingDataError: It is not; the message ends in ``advice``.
    """
    if not path.is_file():
        msg = f"{path} is missing; {advice}"
        raise MissingDataError(msg)
    return str(path)


def shuffled(table: DataFrame, seed: int | None) -> DataFrame:
    """Give the rows in random order, the images of one object (column ``group``) in a row.

    Args:
        table: Samples; the order of its rows does not matter.
        seed: The same seed gives the same order; ``None`` another one each time.
    """
    rng = np.random.default_rng(seed)
    table = table.sort_values("image_path")
    table = table.iloc[rng.permutation(len(table))]
    if "group" not in table:
        return table
    order = {group: rank for rank, group in enumerate(rng.permutation(sorted(set(table.group))))}
    return table.sort_values("group", key=lambda groups: groups.map(order), kind="stable")


def split_by_group(dataset: AnomalibDataset, ratio: float, seed: int | None) -> tuple[AnomalibDataset, AnomalibDataset]:
    """Split a data set such that all images of an object stay together.

    Args:
        dataset: Its table has a column ``group``.
        ratio: Share of the second part; objects go to it until it has at least so many images.
        seed: The same seed gives the same split; ``None`` another one each time.

    Returns:
        The two parts.
    """
    table = shuffled(dataset.samples, seed)
    count = round(ratio * len(table))
    inside = set(table.group.iloc[:count])
    second = dataset.samples.group.isin(inside)
    return dataset.subsample(list(np.flatnonzero(~second))), dataset.subsample(list(np.flatnonzero(second)))
