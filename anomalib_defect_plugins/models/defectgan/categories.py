"""Defect categories: those of a training set, and the label vectors of a batch."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataModule, Batch
from anomalib.data.utils import LabelName
from torch import Tensor

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.data.dataclasses import DefectBatch, split_types
from anomalib_defect_plugins.data.training_set import DefectTraining

UNNAMED = "defect"
"""Category of defects in data without defect types."""


def training_types(datamodule: AnomalibDataModule) -> list[tuple[str, ...]]:
    """Return the defect types of each defective training image; a synthetic source counts as one image of its type."""
    table = datamodule.train_data.samples
    defective = table[table.label_index == LabelName.ABNORMAL]
    if "defect_type" not in table:
        return [(UNNAMED,)] if len(defective) else []
    synthetic = datamodule.synthetic if isinstance(datamodule, DefectTraining) else None
    synthetic_types = [] if synthetic is None else [(synthetic.name,)]
    return [split_types(name) for name in defective.defect_type] + synthetic_types


def check_known(types: Sequence[str], known: Sequence[str], what: str) -> None:
    """Check that defect types are categories of the model.

    Args:
        types: Defect types.
        known: Categories of the model.
        what: Description of the data that has the types, for the message.

    Raises:
        ConfigurationError: If some are unknown; names these and lists the known ones.
    """
    unknown = sorted(set(types) - set(known))
    if unknown:
        msg = f"{what} has defects of type {', '.join(unknown)}, which DefectGan does not know; it knows "
        raise ConfigurationError(msg + f"{', '.join(known)} (--model.categories)")


def batch_labels(batch: Batch[Any], categories: Sequence[str]) -> Tensor:
    """Return the label vectors of a batch, shape (B, K), float: 1 for each defect type of an image.

    Without defect types in the batch, every defective image has the category ``defect``.

    Args:
        batch: Batch with labels and, if the data module has them, defect types.
        categories: The K categories.
    """
    image, gt_label = cast(Tensor, batch.image), cast(Tensor, batch.gt_label)
    labels = torch.zeros(len(gt_label), len(categories))
    names = batch.defect_type if isinstance(batch, DefectBatch) else None
    if names is None:
        labels[:, categories.index(UNNAMED)] = gt_label.float().cpu()
        names = []
    for row, name in enumerate(names):
        types = split_types(name)
        check_known(types, categories, "the training batch")
        labels[row, [categories.index(kind) for kind in types]] = 1
    return labels.to(image.device)
