"""Images with more than 8 bits per sample: TIFF files by tifffile, PNG files by imagecodecs, others by Pillow.

The range that becomes [0, 1] is a property of the file and never of its values, so that all images of a camera are
scaled alike: the tagged bit depth, or else all bits of the samples.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalib_defect_plugins.core import tiff

Values = npt.NDArray[Any]
"""Values of an image, shape (H, W, C)."""

Planes = npt.NDArray[np.float32]
"""Values of an image, shape (1, H, W) if it is grey and (3, H, W) if it has colours, float32 in [0, 1]."""

ORIENTATION = 0x0112
"""Number of the EXIF tag, which says how an image is turned for display: 1 as it is stored, to 8."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_deep(image: Image.Image) -> bool:
    """Whether an open image has samples that Pillow would cut to 8 bits, or read with a wrong range."""
    if image.format == "TIFF":
        return tiff.is_deep(image)
    # Pillow shows the bit depth of a PNG file only in the description of its pixels.
    return image.mode[0] in "IF" or (image.format == "PNG" and ";16" in str(getattr(image, "tile", "")))


def read_deep(path: str | Path) -> Planes:
    """Read an image for which :func:`is_deep` is true, turned as its orientation tag says.

    Raises:
        OSError: If the file cannot be decoded.
        ValueError: If it has several pages, or values outside of its range, or colours that are not read.
        PIL.Image.DecompressionBombError: If it has more pixels than Pillow allows.
    """
    if tiff.is_tiff(path):
        values, top, orientation = tiff.read(path)
    else:
        with Image.open(path) as image:
            # Pillow brings the values of PGM and JPEG 2000 files to 16 bits.
            is_png = image.format == "PNG"
            values, top = _read_png(path) if is_png else (np.asarray(image), tiff.SIXTEEN_BITS)
            orientation = image.getexif().get(ORIENTATION, 1) if not is_png or has_metadata(path) else 1
    return turned(_scaled(values, top), orientation)


def turned(planes: Planes, orientation: Any) -> Planes:
    """Turn and mirror planes, shape (C, H, W), as an orientation tag says; values other than 2 to 8 change nothing."""
    if orientation not in range(2, 9):
        return planes
    if orientation > 4:
        planes = planes.swapaxes(1, 2)
    down, across = ((1, 1), (1, -1), (-1, -1), (-1, 1))[(orientation - 1) % 4]
    return np.ascontiguousarray(planes[:, ::down, ::across])


def png_chunks(path: str | Path) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over the names of the chunks of a PNG file, with the content of the short ones."""
    with Path(path).open("rb") as file:
        file.seek(len(PNG_SIGNATURE))
        while len(header := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", header)
            content = file.read(length) if length <= 4 else b""
            yield name, content
            file.seek(length - len(content) + 4, 1)  # the checksum has 4 bytes


def has_metadata(path: str | Path) -> bool:
    """Whether a PNG file has a chunk that may contain an orientation; it may be the last one."""
    return any(name in {b"eXIf", b"iTXt", b"zTXt", b"tEXt"} for name, _ in png_chunks(path))


def _read_png(path: str | Path) -> tuple[Values, int]:
    """Read a PNG file of 16 bits, and return its values and the highest possible one.

    The specification demands that values with fewer significant bits (``sBIT``) are scaled to 16 bits, but some
    programs store them as they are. Then the lowest bits, which scaling would have set to zero in dark images, are
    in use.
    """
    values: Values = imagecodecs.png_decode(Path(path).read_bytes())
    bits = max(dict(png_chunks(path)).get(b"sBIT", b"") or (16,))
    unscaled = 8 <= bits < 16 and not (values >> bits).any() and bool((values & ((1 << (16 - bits)) - 1)).any())
    return values, (1 << bits) - 1 if unscaled else tiff.SIXTEEN_BITS


def _scaled(values: Values, top: float) -> Planes:
    """Scale values, shape (H, W) or (H, W, C), by the highest possible one; alpha channels are dropped."""
    values = np.atleast_3d(values)
    channels = 3 if values.shape[-1] > 2 else 1
    planes: Planes = values[..., :channels].transpose(2, 0, 1).astype(np.float32) / np.float32(top)
    low, high = float(planes.min()), float(planes.max())
    if not (low >= 0 and high <= 1):  # also if a value is NaN
        kind = "floating-point" if values.dtype.kind == "f" else "integer"
        advice = "save it with 16 bits, or with floating-point values in [0, 1]"
        msg = f"its {kind} values are {low * top:g} to {high * top:g}, beyond its range of 0 to {top:g}; {advice}"
        raise ValueError(msg)
    return planes
