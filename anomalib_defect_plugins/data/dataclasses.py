"""Items and batches of anomalib with the type of each defect."""

from dataclasses import dataclass
from typing import ClassVar

from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from torch import Tensor

GOOD = "good"
"""Defect type of a normal image."""

SEPARATOR = "+"
"""Joins the types of an image with defects of several types: ``crack+efflorescence``."""


@dataclass
class NumpyDefectItem(NumpyImageItem):
    """A sample as arrays."""

    defect_type: str | None = None
    needs_synthetic_defect: bool | None = None


@dataclass
class NumpyDefectBatch(NumpyImageBatch):
    """A batch as arrays."""

    item_class: ClassVar[type[NumpyDefectItem]] = NumpyDefectItem

    defect_type: list[str] | None = None
    needs_synthetic_defect: object | None = None


@dataclass
class DefectItem(ImageItem):
    """A sample.

    Attributes:
        defect_type: Defect type, ``good`` for a normal image; several types are joined by ``+``.
        needs_synthetic_defect: Whether a synthetic defect is to be drawn once its batch is on the training device.
    """

    numpy_class: ClassVar[type[NumpyDefectItem]] = NumpyDefectItem

    defect_type: str | None = None
    needs_synthetic_defect: bool | None = None


@dataclass
class DefectBatch(ImageBatch):
    """A batch.

    Attributes:
        defect_type: Defect type of each image, ``good`` for a normal one; several types are joined by ``+``.
        needs_synthetic_defect: Images that a synthetic defect is still to be drawn on, shape (B,), bool.
    """

    item_class: ClassVar[type[DefectItem]] = DefectItem
    numpy_class: ClassVar[type[NumpyDefectBatch]] = NumpyDefectBatch

    defect_type: list[str] | None = None
    needs_synthetic_defect: Tensor | None = None


def split_types(defect_type: str) -> tuple[str, ...]:
    """Split a defect type into its single types; empty for ``good``."""
    return () if defect_type == GOOD else tuple(defect_type.split(SEPARATOR))
