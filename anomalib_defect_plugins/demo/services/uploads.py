"""Images that people hand in: limits of bytes and pixels, guarded decoding, one line for whatever is wrong."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_io import read_image

MOST_FILES = 24
"""Images at a time."""

MOST_BYTES = 24 * 2**20
"""Size of a file."""

MOST_PIXELS = 40_000_000
"""Pixels of an image, which decoding takes four bytes each for."""

LEAST_SIDE = 32
"""Shorter side of an image in pixels: less of it says nothing of a surface."""

SIDE = 2048
"""Longer side that images are looked at with, in pixels; greater ones are made smaller first."""

ENDINGS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
"""Endings of names, and the format that each stands for. No other is decoded."""

ADVICE = "give a photo as PNG, JPEG, TIFF, BMP or WebP"


PAINT = "data:image/png;base64,"
"""What begins all that is painted on the page."""

MOST_PAINT = 4 * 2**20
"""Length of what is painted, at most."""


class Photo(NamedTuple):
    """An image that someone has handed in.

    Args:
        name: Name of its file, without folders.
        pixels: (H, W, 3), uint8, at most ``SIDE`` pixels a side.
        size: Height and width of the file in pixels.
    """

    name: str
    pixels: np.ndarray
    size: tuple[int, int]


def read_upload(path: str | Path) -> Photo:
    """Read an image that someone has uploaded.

    Nothing is decoded before its size is known. As everywhere in this package, an orientation in the metadata is not
    followed, an alpha channel is dropped, and of several pages the first counts.

    Args:
        path: Where the server has put it.

    Raises:
        MissingDataError: It is gone.
        InvalidInputError: It is too large, no image, damaged, or has the ending of another format.
    """
    path = Path(path)
    _check_file(path)
    width, height = _check_head(path)
    scale = min(1, SIDE / max(width, height))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    try:
        values, _, _ = read_image(path, size)
    except Exception as error:  # decoders raise errors of many kinds on a broken file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        msg = f"{path.name} cannot be decoded ({reason}); save it again, or give another photo"
        raise InvalidInputError(msg) from error
    return Photo(path.name, (255 * values.transpose(1, 2, 0)).round().astype(np.uint8), (height, width))


def png(pixels: np.ndarray) -> bytes:
    """Write an image (H, W, 3) or (H, W), uint8, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def read_paint(painted: object, size: tuple[int, int]) -> np.ndarray:
    """Read where someone has painted on an image.

    Args:
        painted: A PNG as large as the image, as a data URI: clear where there is no paint. Nothing if all of it is.
        size: Height and width of the image.

    Returns:
        (H, W), bool.

    Raises:
        InvalidInputError: It is none.
    """
    if not painted:
        return np.zeros(size, bool)
    try:
        return _opacity(painted, size) > 127
    except Exception as error:  # decoders raise errors of many kinds on a broken file
        msg = "what was painted cannot be read; paint it again"
        raise InvalidInputError(msg) from error


def check_count(paths: Sequence[str]) -> None:
    """Refuse more images than are looked at in one go.

    Raises:
        InvalidInputError: There are more than ``MOST_FILES``.
    """
    if len(paths) > MOST_FILES:
        msg = f"{len(paths)} images are too many at a time; give {MOST_FILES} at most ('anomalib-defects inspect' "
        raise InvalidInputError(msg + "looks at folders of any size)")


def check_pixels(name: str, width: int, height: int) -> None:
    """Refuse an image by its size.

    Raises:
        InvalidInputError: It has more than ``MOST_PIXELS``, or a side of less than ``LEAST_SIDE``.
    """
    if width * height > MOST_PIXELS:
        msg = f"{name} has {width}x{height} pixels, more than {MOST_PIXELS // 10**6} million; make it smaller"
        raise InvalidInputError(msg)
    if min(width, height) < LEAST_SIDE:
        msg = f"{name} has {width}x{height} pixels; give an image of {LEAST_SIDE} a side or more"
        raise InvalidInputError(msg)


def _opacity(painted: str, size: tuple[int, int]) -> np.ndarray:
    if not painted.startswith(PAINT) or len(painted) > MOST_PAINT:
        raise ValueError(painted[:40])
    content = base64.b64decode(painted[len(PAINT) :], validate=True)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        if image.size != size[::-1]:
            raise ValueError(image.size)
        return np.asarray(image.convert("RGBA"))[..., 3]


def _check_file(path: Path) -> None:
    if path.suffix.lower() not in ENDINGS:
        msg = f"{path.name} is no photo by the end of its name; {ADVICE}"
        raise InvalidInputError(msg)
    if not path.is_file():
        msg = f"{path.name} is not here any more; upload it again"
        raise MissingDataError(msg)
    size = path.stat().st_size
    if size > MOST_BYTES:
        msg = f"{path.name} has {size / 2**20:.0f} MB, more than {MOST_BYTES // 2**20}; make it smaller"
        raise InvalidInputError(msg)


def _check_head(path: Path) -> tuple[int, int]:
    """Give width and height, of which the head of the file tells."""
    wanted = ENDINGS[path.suffix.lower()]
    try:
        with Image.open(path, formats=sorted(set(ENDINGS.values()))) as image:
            # Many telephones add a second picture to a JPEG file.
            found, (width, height) = {"MPO": "JPEG"}.get(image.format, image.format), image.size
    except Image.DecompressionBombError as error:
        msg = f"{path.name} has more than {MOST_PIXELS // 10**6} million pixels; make it smaller"
        raise InvalidInputError(msg) from error
    except Exception as error:  # decoders raise errors of many kinds on a broken file
        msg = f"{path.name} is no {wanted} image, or is damaged; {ADVICE}"
        raise InvalidInputError(msg) from error
    if found != wanted:
        msg = f"{path.name} holds a {found} image, not {wanted}; give it the right ending"
        raise InvalidInputError(msg)
    check_pixels(path.name, width, height)
    return width, height
