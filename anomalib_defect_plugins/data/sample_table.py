"""Tables of samples, and splits of them that keep all images of an object together."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_defect_plugins.data.dataclasses import GOOD


class Sample(NamedTuple):
    """One image of a data set."""

    image_path: str
    split: str
    defect_type: str = GOOD
    """Defect type, ``good`` for a normal image; several types are joined by ``+``."""
    mask_path: str = ""
    group: str = ""
    """The object that the image shows, where several images may show one object."""


def by_label(samples: Iterable[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Separate normal and defective samples."""
    normal: list[Sample] = []
    defective: list[Sample] = []
    for sample in samples:
        (normal if sample.defect_type == GOOD else defective).append(sample)
    return normal, defective


def make_table(samples: Iterable[Sample], task: TaskType = TaskType.SEGMENTATION) -> DataFrame:
    """Build the table that an anomalib data set takes as its ``samples``.

    Args:
        samples: The images.
        task: ``segmentation`` if defective images have masks, else ``classification``.

    Returns:
        Table with the columns ``image_path``, ``split``, ``label`` (``normal`` or ``abnormal``), ``label_index``
        (0 or 1), ``mask_path``, ``defect_type``, and ``group`` if the samples have one; ``attrs["task"]`` is the task.
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


def shuffled(table: DataFrame, seed: int | None) -> DataFrame:
    """Shuffle the rows; images of one object (column ``group``) stay adjacent.

    Args:
        table: Samples, in any order, which does not influence the result.
        seed: Seed of the order; ``None`` for that of torch, which ``--seed_everything`` sets.
    """
    rng = np.random.default_rng(torch.initial_seed() if seed is None else seed)
    table = table.sort_values("image_path")
    table = table.iloc[rng.permutation(len(table))]
    if "group" not in table:
        return table
    order = {group: rank for rank, group in enumerate(rng.permutation(sorted(set(table.group))))}
    return table.sort_values("group", key=lambda groups: groups.map(order), kind="stable")


def split_by_group(dataset: AnomalibDataset, ratio: float, seed: int | None) -> tuple[AnomalibDataset, AnomalibDataset]:
    """Split a data set at random without separating images of one object.

    Args:
        dataset: Data set whose table has a column ``group``.
        ratio: Minimum share of images in the second subset, which is filled object by object.
        seed: Seed of the split; ``None`` for that of torch, which ``--seed_everything`` sets.

    Returns:
        The two subsets.
    """
    table = shuffled(dataset.samples, seed)
    count = round(ratio * len(table))
    inside = set(table.group.iloc[:count])
    second = dataset.samples.group.isin(inside)
    return dataset.subsample(list(np.flatnonzero(~second))), dataset.subsample(list(np.flatnonzero(second)))
