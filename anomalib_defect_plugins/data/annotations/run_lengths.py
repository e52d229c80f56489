"""Run lengths of masks, as COCO, CVAT and Label Studio write them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.data.annotations.regions import Marks

MAX_PIXELS = 2**28
"""Maximum pixels of a mask, more than those of the largest image that is read."""


def from_runs(counts: Sequence[int] | npt.NDArray[np.int64], size: Size, order: str) -> Marks:
    """Return the mask of alternating runs of unmarked and marked pixels.

    Args:
        counts: Lengths of the runs, unmarked ones first.
        size: Height and width.
        order: ``F`` if runs go down the columns, as in COCO, or ``C`` along the rows, as in CVAT.

    Raises:
        InvalidInputError: If the lengths do not add up to the size.
    """
    check_size(size)
    runs = np.asarray(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != size[0] * size[1] or (runs > MAX_PIXELS).any():
        msg = f"run lengths do not add up to a mask of {size[1]}x{size[0]} pixels; export it again"
        raise InvalidInputError(msg)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[::-1]).T if order == "F" else flat.reshape(size)


def to_runs(marks: Marks) -> list[int]:
    """Return the lengths of runs down the columns of a mask, unmarked ones first, as COCO writes them."""
    flat = marks.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    first = [0] if flat[0] else []
    lengths: list[int] = np.diff(np.concatenate([[0], ends, [len(flat)]])).tolist()
    return first + lengths


def from_coco_string(text: str) -> list[int]:
    """Return the run lengths in a string of COCO: digits of 5 bits, differences to the last but one run.

    Raises:
        InvalidInputError: If it is not such a string.
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii", "replace"):
        digit = code - 48
        if not 0 <= digit < 64 or shift > 35:
            msg = "run lengths are not encoded as in COCO; export it again"
            raise InvalidInputError(msg)
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value |= -1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        msg = "run lengths of COCO end in the middle of a number; export it again"
        raise InvalidInputError(msg)
    return counts


def from_label_studio(values: Sequence[int], size: Size) -> Marks:
    """Return the mask in the bytes of a brush of Label Studio.

    The format is that of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack: 32 bits with the number of
    values, 5 with their size, four of 4 with the sizes of run lengths; then runs, of one value or several. The values
    are those of an RGBA image, and opaque pixels are marked.

    Args:
        values: Bytes.
        size: Height and width.

    Raises:
        InvalidInputError: If the bytes are not in this format, or of another size.
    """
    check_size(size)
    count = 4 * size[0] * size[1]
    reader = _Bits(np.unpackbits(np.asarray(values).astype(np.uint8, casting="unsafe")))
    if np.asarray(values).min(initial=0) < 0 or np.asarray(values).max(initial=0) > 255 or reader.number(32) != count:
        msg = f"the brush is not one of an image of {size[1]}x{size[0]} pixels; export it again"
        raise InvalidInputError(msg)
    width = reader.number(5) + 1
    lengths = [reader.number(4) + 1 for _ in range(4)]
    out = np.zeros(count, np.int64)
    at = 0
    while at < count:
        is_run = reader.number(1)
        end = min(at + 1 + reader.number(lengths[reader.number(2)]), count)
        out[at:end] = reader.number(width) if is_run else reader.numbers(end - at, width)
        at = end
    return out.reshape(*size, 4)[..., 3] > 0


class _Bits:
    """A stream of bits, highest first."""

    def __init__(self, bits: npt.NDArray[np.uint8]) -> None:
        self.bits = bits
        self.at = 0

    def number(self, width: int) -> int:
        """Read a number of some bits."""
        return int(self.numbers(1, width)[0])

    def numbers(self, count: int, width: int) -> npt.NDArray[np.int64]:
        """Read numbers of the same number of bits."""
        bits = self.bits[self.at : self.at + count * width]
        self.at += count * width
        if len(bits) < count * width:
            msg = "the brush ends in the middle; export it again"
            raise InvalidInputError(msg)
        return bits.reshape(count, width) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))


def check_size(size: Size) -> None:
    """Check that a mask is not empty, and not larger than any image.

    Raises:
        InvalidInputError: If it is.
    """
    height, width = size
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        msg = f"a mask has {width}x{height} pixels; export it again"
        raise InvalidInputError(msg)
