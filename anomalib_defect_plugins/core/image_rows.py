"""Images that are decoded a few rows at a time, for images that are too large to be kept as floating-point numbers.

A PNG file of 8 bits is decoded as it is read, whatever its size. Other files are decoded at once, with 3 or 4 bytes a
pixel, or 12 if they have more than 8 bits.
"""

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomalib_defect_plugins.core.deep_images import PNG_SIGNATURE, has_metadata, is_deep
from anomalib_defect_plugins.core.image_io import check_one_page, colours_of, read_image, turn_upright

Rows = npt.NDArray[np.float32]
"""Rows of an image, shape (3, h, W), float32 in [0, 1]."""

CHUNK = 1 << 16
"""Bytes that are read at once."""

PIXELS_AT_ONCE = 1 << 18
"""Pixels that are decoded or written at once, if they are at least a row."""

EIGHT_BITS, NOT_INTERLACED = 8, 0

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel by the colour type of a PNG file."""


class RowImage(NamedTuple):
    """An image that is decoded from the top to the bottom.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        read: Function that returns the next rows; it takes their number.
        restart: Function that goes back to the first row.
    """

    width: int
    height: int
    read: Callable[[int], Rows]
    restart: Callable[[], None]


def open_rows(path: Path) -> RowImage:
    """Open an image file, to be read as :func:`~anomalib_defect_plugins.core.image_io.read_image` does.

    Raises:
        OSError: If the file does not exist or cannot be decoded.
        ValueError: As in ``read_image``.
        PIL.Image.DecompressionBombError: If it has more pixels than Pillow allows.
    """
    # ``read_image`` knows more kinds of TIFF files than Pillow.
    with contextlib.suppress(UnidentifiedImageError), Image.open(path) as image:
        if not is_deep(image):
            check_one_page(image)
            if image.format == "PNG" and not has_metadata(path) and (rows := _png_rows(path)):
                return rows
            cropped = _Cropped(turn_upright(image))
            return RowImage(*cropped.image.size, cropped, cropped.restart)
    pixels, width, height = read_image(path)
    sliced = _Sliced(pixels)
    return RowImage(width, height, sliced, sliced.restart)


def rows_at_once(width: int) -> int:
    """Return the number of rows of an image that are decoded or written at once: fewer if it is wider."""
    return max(1, PIXELS_AT_ONCE // width)


class _Sliced:
    """Rows of an array, shape (3, H, W)."""

    def __init__(self, pixels: Rows) -> None:
        self.pixels = pixels
        self.top = 0

    def __call__(self, number: int) -> Rows:
        self.top += number
        return self.pixels[:, self.top - number : self.top]

    def restart(self) -> None:
        """Go back to the first row."""
        self.top = 0


class _Cropped:
    """Rows of an image that Pillow has decoded."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.top = 0

    def __call__(self, number: int) -> Rows:
        top, self.top = self.top, self.top + number
        return colours_of(self.image.crop((0, top, self.image.width, self.top)))

    def restart(self) -> None:
        """Go back to the first row."""
        self.top = 0


def _png_rows(path: Path) -> RowImage | None:
    """Open a PNG file of 8 bits; ``None`` if it is interlaced or has another depth."""
    with path.open("rb") as file:
        file.read(len(PNG_SIGNATURE))
        (length,) = struct.unpack(">I4x", file.read(8))
        header = file.read(length)
    width, height, depth, kind, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if depth != EIGHT_BITS or interlace != NOT_INTERLACED or kind not in CHANNELS:
        return None
    rows = _PngRows(path, header, width * CHANNELS[kind] + 1)
    return RowImage(width, height, rows, rows.restart)


class _PngRows:
    """Rows of a PNG file.

    A row depends on the one above. So the compressed rows are put into a small file below the last row that was read,
    which the usual decoder reads.

    Args:
        path: The file.
        header: Content of its chunk IHDR.
        stride: Bytes of an uncompressed row, with the one for its filter.
    """

    def __init__(self, path: Path, header: bytes, stride: int) -> None:
        self.path = path
        self.header = header
        self.stride = stride
        self.restart()

    def restart(self) -> None:
        """Go back to the first row."""
        self.palette: list[tuple[bytes, bytes]] = []
        self.above = b""
        self.data = self._inflate(self.path)
        self.buffer = bytearray()

    def __call__(self, number: int) -> Rows:
        while len(self.buffer) < number * self.stride:
            block = next(self.data, None)
            if block is None:
                msg = "image file is truncated"
                raise OSError(msg)
            self.buffer += block
        rows = bytes(self.buffer[: number * self.stride])
        del self.buffer[: number * self.stride]
        above = bytes(1) + self.above if self.above else b""
        with Image.open(BytesIO(self._file(above + rows, number + bool(above)))) as image:
            image.load()
            self.above = np.asarray(image)[-1].tobytes()
            return colours_of(image.crop((0, bool(above), image.width, image.height)))

    def _file(self, rows: bytes, height: int) -> bytes:
        header = self.header[:4] + struct.pack(">I", height) + self.header[8:]
        chunks = [(b"IHDR", header), *self.palette, (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]
        return PNG_SIGNATURE + b"".join(map(_chunk, *zip(*chunks, strict=True)))

    def _inflate(self, path: Path) -> Iterator[bytes]:
        """Yield the uncompressed rows in blocks, and note the palette."""
        inflater = zlib.decompressobj()
        with path.open("rb") as file:
            file.seek(len(PNG_SIGNATURE))
            for kind, length in _chunk_headers(file):
                if kind in {b"PLTE", b"tRNS"}:
                    self.palette.append((kind, file.read(length)))
                    file.seek(4, 1)
                elif kind == b"IDAT":
                    yield from _inflate_chunk(file, length, inflater)
                else:
                    file.seek(length + 4, 1)
        yield inflater.flush()


def _inflate_chunk(file: BinaryIO, length: int, inflater: Any) -> Iterator[bytes]:
    """Yield the uncompressed content of a chunk in small blocks.

    Raises:
        OSError: If it is damaged.
    """
    checksum = zlib.crc32(b"IDAT")
    while length:
        block = file.read(min(CHUNK, length))
        if not block:
            return
        length -= len(block)
        checksum = zlib.crc32(block, checksum)
        while block:
            try:
                yield inflater.decompress(block, CHUNK)
            except zlib.error as error:
                msg = f"broken PNG file ({error})"
                raise OSError(msg) from error
            block = inflater.unconsumed_tail
    if file.read(4) != struct.pack(">I", checksum):
        msg = "broken PNG file (bad checksum)"
        raise OSError(msg)


def _chunk_headers(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the kind and length of each chunk; the content is read or skipped by the caller."""
    while len(header := file.read(8)) == 8 and header[4:] != b"IEND":
        yield header[4:], struct.unpack(">I", header[:4])[0]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_grey_png(path: Path, width: int, height: int, rows: Iterator[npt.NDArray[np.uint8]]) -> None:
    """Write a grey PNG file row by row.

    Args:
        path: The file.
        width: Width in pixels.
        height: Height in pixels.
        rows: Rows, shape (h, width), from the top to the bottom.
    """
    deflater = zlib.compressobj()
    with path.open("wb") as file:
        header = struct.pack(">IIBBBBB", width, height, EIGHT_BITS, 0, 0, 0, NOT_INTERLACED)
        file.write(PNG_SIGNATURE + _chunk(b"IHDR", header))
        for part in rows:
            # Each row starts with its filter, 0 for none.
            content = np.concatenate([np.zeros((len(part), 1), np.uint8), part], axis=1)
            if data := deflater.compress(content.tobytes()):
                file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IDAT", deflater.flush()) + _chunk(b"IEND", b""))
