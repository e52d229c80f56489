"""Defect types as numbers: which there are in a training set, and the labels of a batch."""

from collections.abc import Sequence

import torch
from anomalib.data import AnomalibDataModule, Batch
from anomalib.data.utils import LabelName
from torch import Tensor

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.data.dataclasses import split_types

UNNAMED = "defect"
"""The one category of defects whose type nobody tells."""


def training_types(datamodule: AnomalibDataModule) -> list[tuple[str, ...]]:
    """Give the types of each defective image that a data module has for training; a synthetic source counts as one."""
    table = datamodule.train_data.samples
    defective = table[table.label_index == LabelName.ABNORMAL]
    if "defect_type" not in table:
        return [(UNNAMED,)] if len(defective) else []
    synthetic = getattr(datamodule, "synthetic", None)
    drawn = [] if synthetic is None else [(synthetic.name,)]
    return [split_types(name) for name in defective.defect_type] + drawn


def check_known(found: Sequence[str], known: Sequence[str], what: str) -> None:
    """Refuse categories that are not known.

    Args:
        found: The categories.
        known: Those of the model.
        what: Where they were found, for the message.

    Raises:
        ConfigurationError: Names those that are not known, and lists those that are.
    """
    unknown = sorted(set(found) - set(known))
    if unknown:
        msg = f"{what} has defects of type {', '.join(unknown)}, which DefectGan does not know; it knows "
        raise ConfigurationError(msg + f"{', '.join(known)} (--model.categories)")


def batch_labels(batch: Batch, categories: Sequence[str]) -> Tensor:
    """Give the labels of a batch, (B, K), float: 1 for each type of defect that an image has.

    Without defect types in the batch, each defective image is of the category ``defect``.

    Args:
        batch: Images with labels, and with defect types if the data module knows them.
        categories: The K categories.
    """
    names = getattr(batch, "defect_type", None)
    labels = torch.zeros(len(batch.gt_label), len(categories))
    if names is None:
        labels[:, categories.index(UNNAMED)] = batch.gt_label.float().cpu()
        names = []
    for row, name in enumerate(names):
        types = split_types(name)
        check_known(types, categories, "the training batch")
        labels[row, [categories.index(one) for one in types]] = 1
    return labels.to(batch.image.device)
