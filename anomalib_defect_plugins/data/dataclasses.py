"""Samples and batches that know the type of their defect: anomalib's own, with one field more."""

from dataclasses import dataclass
from typing import ClassVar

from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from torch import Tensor

GOOD = "good"
"""Defect type of a normal image."""

SEPARATOR = "+"
"""Stands between the types of an image with defects of several: ``crack+efflorescence``."""


@dataclass
class NumpyDefectItem(NumpyImageItem):
    """A sample as arrays."""

    defect_type: str | None = None
    wanted: bool | None = None


@dataclass
class NumpyDefectBatch(NumpyImageBatch):
    """A batch as arrays."""

    item_class: ClassVar[type[NumpyDefectItem]] = NumpyDefectItem

    defect_type: list[str] | None = None
    wanted: object | None = None


@dataclass
class DefectItem(ImageItem):
    """A sample.

    Attributes:
        defect_type: Kind of defect, ``good`` for a normal image; several are joined by ``+``.
        wanted: Whether a synthetic defect is still to be drawn on it, when its batch is on the training device.
    """

    numpy_class: ClassVar[type[NumpyDefectItem]] = NumpyDefectItem

    defect_type: str | None = None
    wanted: bool | None = None


@dataclass
class DefectBatch(ImageBatch):
    """A batch.

    Attributes:
        defect_type: Kind of defect of each image, ``good`` for a normal one; several are joined by ``+``.
        wanted: (B,), bool: on which images a synthetic defect is still to be drawn.
    """

    item_class: ClassVar[type[DefectItem]] = DefectItem
    numpy_class: ClassVar[type[NumpyDefectBatch]] = NumpyDefectBatch

    defect_type: list[str] | None = None
    wanted: Tensor | None = None


def split_types(defect_type: str) -> tuple[str, ...]:
    """Give the single types of what a table or a batch holds: none for ``good``, several where ``+`` joins them."""
    return () if defect_type == GOOD else tuple(defect_type.split(SEPARATOR))
