"""Tiles of an image, and the weights that blend their anomaly maps.

Unlike anomalib's ``Tiler``, which pads images with zeros to a multiple of the stride, tiles are spread evenly, so that
the last one ends with the image.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_defect_plugins.core.errors import InvalidInputError

Weights = npt.NDArray[np.float32]

MIN_TILE = 16
"""Smallest side of a tile in pixels."""

UNUSED = 0.25
"""Part of the overlap, at each inner side of a tile, that is not used: a network sees padding there."""


class Box(NamedTuple):
    """A part of an image: rows from ``top`` to ``bottom`` and columns from ``left`` to ``right``, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def rows(self) -> slice:
        """Its rows."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Its columns."""
        return slice(self.left, self.right)


def check_tiles(size: int, overlap: int, names: tuple[str, str] = ("size", "overlap")) -> None:
    """Check the size and overlap of tiles.

    Args:
        size: Side of a tile in pixels.
        overlap: Lowest number of pixels that neighbouring tiles share.
        names: Names of the two for messages.

    Raises:
        InvalidInputError: If a tile is too small, or the overlap is not from 0 to half of the size.
    """
    if size < MIN_TILE:
        msg = f"{names[0]} is {size}; tiles must have a side of {MIN_TILE} pixels or more"
        raise InvalidInputError(msg)
    if not 0 <= overlap <= size // 2:
        msg = f"{names[1]} is {overlap}; it must be from 0 to half of the size, {size // 2}"
        raise InvalidInputError(msg)


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Return the first pixels of the tiles along one side of an image.

    Args:
        length: Length of the side; at most ``size`` for one tile.
        size: Side of a tile.
        overlap: Lowest number of pixels that neighbouring tiles share.
    """
    if length <= size:
        return [0]
    number = -(-(length - overlap) // (size - overlap))
    return [index * (length - size) // (number - 1) for index in range(number)]


def strips(length: int, size: int, overlap: int, limit: int) -> Iterator[tuple[slice, list[int]]]:
    """Divide one side of an image into strips, so that a large image can be inspected one strip after the other.

    Args:
        length: Length of the side.
        size: Side of a tile.
        overlap: Lowest number of pixels that neighbouring tiles share.
        limit: Lowest length of a strip, except the last one.

    Yields:
        The pixels of a strip, and the first pixels of all tiles that cover any of them.
    """
    firsts, borders = starts(length, size, overlap), [0]
    borders.extend(first for first in firsts if first >= borders[-1] + limit)
    for start, stop in pairwise([*borders, length]):
        yield slice(start, stop), [first for first in firsts if first < stop and first + size > start]


def grid(height: int, width: int, size: int, overlap: int) -> Iterator[Box]:
    """Iterate over the tiles of an image, row by row; those of an image that is smaller than a tile end with it."""
    for top in starts(height, size, overlap):
        for left in starts(width, size, overlap):
            yield Box(top, left, min(top + size, height), min(left + size, width))


def side_weights(start: int, stop: int, length: int, overlap: int) -> Weights:
    """Return the weights of a tile along one side: 1, falling to 0 within the overlap, except at the image's border.

    Args:
        start: First pixel of the tile.
        stop: Pixel after its last one.
        length: Length of the side of the image.
        overlap: Lowest number of pixels that neighbouring tiles share.
    """
    weights = np.ones(stop - start, np.float32)
    if not overlap:
        return weights
    distance = np.arange(overlap, dtype=np.float32) + 0.5
    ramp = np.clip((distance / overlap - UNUSED) / (1 - 2 * UNUSED), 0, 1)
    if start > 0:
        weights[:overlap] = ramp
    if stop < length:
        weights[-overlap:] = np.minimum(weights[-overlap:], ramp[::-1])
    return weights


def weights_of(box: Box, height: int, width: int, overlap: int) -> Weights:
    """Return the weights of a tile's pixels, shape (rows, columns); their sum over all tiles is positive anywhere."""
    rows = side_weights(box.top, box.bottom, height, overlap)
    return rows[:, None] * side_weights(box.left, box.right, width, overlap)
