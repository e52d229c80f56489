"""Annotated regions of an image, and the masks that they mark."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.data.dataclasses import GOOD

Marks = npt.NDArray[np.bool_]
"""A mask, shape (H, W)."""

IGNORE = "ignore"
"""Label of regions that are neither defective nor normal, in any case."""

MAX_LABEL = 100
"""Most characters of a label."""

MAX_COORDINATE = 1e5
MAX_PERIMETER = 5e6
"""Highest coordinate and perimeter in pixels. The memory to draw a polygon grows with its perimeter."""


class Shape(ABC):
    """What a region marks."""

    @abstractmethod
    def draw(self, marks: Marks) -> None:
        """Mark the pixels.

        Args:
            marks: Mask of the image, shape (H, W), changed in place.

        Raises:
            InvalidInputError: If the shape does not fit the image.
        """


@dataclass(frozen=True)
class Box(Shape):
    """A rectangle around a defect, whose outline is not known.

    Args:
        left: Left edge in pixels.
        top: Top edge.
        right: Right edge.
        bottom: Bottom edge.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        check_coordinates([self.left, self.top, self.right, self.bottom])

    def draw(self, marks: Marks) -> None:
        """Mark all pixels that the box touches."""
        down, across = (
            slice(max(0, math.floor(min(ends))), max(0, math.ceil(max(ends))))
            for ends in ((self.top, self.bottom), (self.left, self.right))
        )
        marks[down, across] = True


@dataclass(frozen=True)
class Everywhere(Shape):
    """A label of the whole image, whose defect may be anywhere."""

    def draw(self, marks: Marks) -> None:
        """Mark all pixels."""
        marks[:] = True


@dataclass(frozen=True)
class Bitmap(Shape):
    """A mask of a part of the image.

    Args:
        bits: Rows of the part, packed by ``numpy.packbits``.
        left: Left edge in the image.
        top: Top edge.
        height: Height of the part.
        width: Width.
    """

    bits: bytes
    left: int
    top: int
    height: int
    width: int

    @classmethod
    def of(cls, marks: Marks, left: int = 0, top: int = 0) -> "Bitmap":
        """Pack a mask, shape (h, w), bool."""
        return cls(np.packbits(marks, axis=1).tobytes(), left, top, *marks.shape)

    def draw(self, marks: Marks) -> None:
        """Mark the pixels of the part.

        Raises:
            InvalidInputError: If the part is not inside the image.
        """
        right, bottom = self.left + self.width, self.top + self.height
        if min(self.left, self.top) < 0 or right > marks.shape[1] or bottom > marks.shape[0]:
            height, width = marks.shape
            msg = f"a mask at {self.left},{self.top} of {self.width}x{self.height} pixels does not fit the image of "
            msg += f"{width}x{height}; annotate it again"
            raise InvalidInputError(msg)
        rows = np.frombuffer(self.bits, np.uint8).reshape(self.height, -1)
        marks[self.top : bottom, self.left : right] |= np.unpackbits(rows, axis=1, count=self.width).astype(bool)


@dataclass(frozen=True)
class Region:
    """An annotated region.

    Args:
        label: Defect type, or ``ignore``.
        shape: What it marks.
    """

    label: str
    shape: Shape

    @property
    def is_ignored(self) -> bool:
        """Whether it is neither defective nor normal."""
        return self.label.lower() == IGNORE

    @property
    def has_outline(self) -> bool:
        """Whether it marks pixels rather than a rectangle or the image."""
        return not isinstance(self.shape, Box | Everywhere)


@dataclass
class AnnotatedImage:
    """The annotations of an image.

    Args:
        name: Path of the image, as its file of annotations names it.
        source: File of annotations.
        size: Height and width of the image as annotated, if known.
        regions: The regions; none if the image is normal.
    """

    name: str
    source: Path
    size: Size | None = None
    regions: list[Region] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What identifies it, in place of the path of a mask: the file of annotations and the name of the image."""
        return f"{self.source}#{self.name}"

    @property
    def labels(self) -> list[str]:
        """Defect types, sorted."""
        return sorted({region.label for region in self.regions if not region.is_ignored})

    @property
    def has_mask(self) -> bool:
        """Whether a defect has an outline."""
        return any(region.has_outline and not region.is_ignored for region in self.regions)

    @property
    def has_ignored(self) -> bool:
        """Whether there are pixels that are neither defective nor normal."""
        return any(region.is_ignored or (self.has_mask and not region.has_outline) for region in self.regions)

    def mask(self, size: Size) -> Marks:
        """Draw the defects whose outline is known.

        Args:
            size: Height and width of the image.

        Returns:
            Mask, shape (H, W), bool.

        Raises:
            InvalidInputError: If a shape does not fit the image.
        """
        return self._drawn(size, [r for r in self.regions if r.has_outline and not r.is_ignored])

    def ignored(self, size: Size) -> Marks:
        """Draw what is neither defective nor normal, as :meth:`mask` does.

        That are regions labelled ``ignore`` and, beside defects with an outline, those with a rectangle only.
        """
        unsure = [region for region in self.regions if region.is_ignored or not region.has_outline]
        return self._drawn(size, unsure) & ~self.mask(size)

    def draw(self, region: Region, size: Size) -> Marks:
        """Draw one region, as :meth:`mask` does."""
        return self._drawn(size, [region])

    def _drawn(self, size: Size, regions: Sequence[Region]) -> Marks:
        if self.size is not None and self.size != size:
            annotated, actual = (f"{width}x{height}" for height, width in (self.size, size))
            msg = f"image {self.name} was annotated at {annotated} pixels in {self.source}, but has {actual}; resize it"
            raise InvalidInputError(msg)
        marks = np.zeros(size, bool)
        for region in regions:
            region.shape.draw(marks)
        return marks


class Annotations(dict[str, AnnotatedImage]):
    """Annotations by image path, which copies of a data set share."""

    def __deepcopy__(self, memo: object) -> "Annotations":
        """Return itself: annotations do not change, and there may be many."""
        return self


def check_coordinates(values: Sequence[float] | npt.NDArray[Any]) -> None:
    """Check that coordinates are finite and not beyond any image.

    Raises:
        InvalidInputError: If one is not.
    """
    array = np.asarray(values, float)
    wrong = array[~(np.abs(array) <= MAX_COORDINATE)]
    if wrong.size:
        msg = f"a coordinate is {wrong.flat[0]:g}; correct or remove that region"
        raise InvalidInputError(msg)


def check_label(label: object) -> str:
    """Return a label, which has to be usable as the name of a folder.

    Raises:
        InvalidInputError: If it is not.
    """
    text = str(label).strip() if isinstance(label, str | int) else ""
    is_name = 0 < len(text) <= MAX_LABEL and text.isprintable() and not set(text) & set(r"\/:")
    if not is_name or text in {".", "..", GOOD}:
        msg = f"the label {str(label)[:50]!r} cannot be a defect type; use a name without slashes, other than {GOOD!r}"
        raise InvalidInputError(msg)
    return text
