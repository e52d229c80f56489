"""Batches with the repaired images beside the predictions."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from anomalib.data import Batch, ImageBatch
from torch import Tensor

from anomalib_defect_plugins.data.dataclasses import DefectBatch, DefectItem, NumpyDefectBatch, NumpyDefectItem


@dataclass
class NumpyRepairedItem(NumpyDefectItem):
    """A sample as arrays."""

    repaired: object | None = None


@dataclass
class NumpyRepairedBatch(NumpyDefectBatch):
    """A batch as arrays."""

    item_class: ClassVar[type[NumpyRepairedItem]] = NumpyRepairedItem

    repaired: object | None = None


@dataclass
class RepairedItem(DefectItem):
    """A sample.

    Attributes:
        repaired: Repaired image, shape (1 or 3, H, W), float in [0, 1].
    """

    numpy_class: ClassVar[type[NumpyRepairedItem]] = NumpyRepairedItem

    repaired: Tensor | None = None


@dataclass
class RepairedBatch(DefectBatch):
    """A batch.

    Attributes:
        repaired: Repaired images, shape (B, 1 or 3, H, W), float in [0, 1].
    """

    item_class: ClassVar[type[RepairedItem]] = RepairedItem
    numpy_class: ClassVar[type[NumpyRepairedBatch]] = NumpyRepairedBatch

    repaired: Tensor | None = None


def add_repaired(batch: Batch[Any], repaired: Tensor) -> None:
    """Turn a batch into a :class:`RepairedBatch`, in place.

    anomalib passes its callbacks (evaluator, visualizer) the batch that went into a step, not the one that the step
    returns, so the repaired images have to be stored in this object.

    Args:
        batch: Batch. One of another class than ``ImageBatch`` or ``DefectBatch`` keeps its class and gets the images
            as a plain attribute.
        repaired: Repaired images, shape (B, 1 or 3, H, W), float in [0, 1].
    """
    if type(batch) in {ImageBatch, DefectBatch}:
        batch.__class__ = RepairedBatch
    cast(RepairedBatch, batch).repaired = repaired
