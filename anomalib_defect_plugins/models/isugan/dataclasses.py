"""Batches that carry the repaired images beside the predictions."""

from dataclasses import dataclass
from typing import ClassVar

from anomalib.data import ImageBatch
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
        repaired: The repaired image, (1 or 3, H, W), in [0, 1].
    """

    numpy_class: ClassVar[type[NumpyRepairedItem]] = NumpyRepairedItem

    repaired: Tensor | None = None


@dataclass
class RepairedBatch(DefectBatch):
    """A batch.

    Attributes:
        repaired: The repaired images, (B, 1 or 3, H, W), in [0, 1].
    """

    item_class: ClassVar[type[RepairedItem]] = RepairedItem
    numpy_class: ClassVar[type[NumpyRepairedBatch]] = NumpyRepairedBatch

    repaired: Tensor | None = None


def add_repaired(batch: ImageBatch, repaired: Tensor) -> None:
    """Turn a batch into a :class:`RepairedBatch`, in place.

    anomalib's callbacks (evaluator, visualiser) are handed the batch that went into a step, not what came out of it, so
    it must be this very object that knows the repaired images.

    Args:
        batch: A batch; one of a class of its own keeps it, and has the images as a plain attribute.
        repaired: (B, 1 or 3, H, W), in [0, 1].
    """
    if type(batch) in {ImageBatch, DefectBatch}:
        batch.__class__ = RepairedBatch
    batch.repaired = repaired
