"""Reading of uploaded images: limits on bytes and pixels, guarded decoding, one-line errors."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomalib_defect_plugins.core import tiff
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_files import UNREAD_SUFFIXES
from anomalib_defect_plugins.core.image_io import Size, read_image, read_size
from anomalib_defect_plugins.core.image_limits import FORMATS, MAX_BYTES, MAX_PIXELS
from anomalib_defect_plugins.core.mask_io import marks_of

MAX_IMAGES = 400
"""Maximum number of images per upload."""

MIN_SIDE = 32
"""Minimum shorter side of an image in pixels."""

MAX_SIDE = 2048
"""Longer side that larger images are resized to, in pixels."""

ADVICE = "use a photo as PNG, JPEG, TIFF, BMP or WebP"

PAINTED_PREFIX = "data:image/png;base64,"
"""Start of the data URI of a painted region."""

MAX_PAINTED_LENGTH = 4 * 2**20
"""Maximum length of the data URI of a painted region."""


class Photo(NamedTuple):
    """An uploaded image.

    Args:
        name: File name, without folders.
        pixels: Pixels, shape (H, W, 3), uint8, at most ``MAX_SIDE`` pixels a side.
        size: Size of the file.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    size: Size


def read_upload(path: str | Path) -> Photo:
    """Read an uploaded image.

    Its size is checked before it is decoded. As everywhere in this package, an orientation tag is followed, an alpha
    channel is dropped, and a file with several pages is refused.

    Args:
        path: Path on the server.

    Raises:
        MissingDataError: If the file does not exist.
        InvalidInputError: If it is too large, damaged, not an image, or its suffix is that of another format.
    """
    path = Path(path)
    _check_file(path)
    width, height = _check_header(path)
    scale = min(1, MAX_SIDE / max(width, height))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    try:
        values, _, _ = read_image(path, size)
    except Exception as error:  # decoders raise many kinds of errors for a damaged file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        msg = f"{path.name} cannot be decoded ({reason}); save it again, or use another photo"
        raise InvalidInputError(msg) from error
    return Photo(path.name, (255 * values.transpose(1, 2, 0)).round().astype(np.uint8), (height, width))


def check_upload(path: str | Path) -> None:
    """Check bytes, format and size of an uploaded image by its header.

    Raises:
        MissingDataError: If the file does not exist.
        InvalidInputError: If it is too large, not an image, or its suffix is that of another format.
    """
    path = Path(path)
    _check_file(path)
    _check_header(path)


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode an image, shape (H, W, 3) or (H, W), uint8, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def read_painted_region(painted: object, size: Size) -> npt.NDArray[np.bool_]:
    """Read the region that a user has painted on an image.

    Args:
        painted: PNG of the image's size as a data URI, transparent where nothing is painted; empty if nothing is.
        size: Size of the image.

    Returns:
        Region, shape (H, W), bool.

    Raises:
        InvalidInputError: If it cannot be read.
    """
    if not painted:
        return np.zeros(size, bool)
    try:
        return _read_painted(painted, size)
    except Exception as error:  # decoders raise many kinds of errors for a damaged file
        msg = "the painted region cannot be read; paint it again"
        raise InvalidInputError(msg) from error


def check_count(paths: Sequence[str]) -> None:
    """Check the number of images.

    Raises:
        InvalidInputError: If there are more than ``MAX_IMAGES``.
    """
    if len(paths) > MAX_IMAGES:
        msg = f"{len(paths)} images are too many at a time; choose {MAX_IMAGES} at most ('anomalib-defects inspect' "
        raise InvalidInputError(msg + "takes folders of any size)")


def check_pixels(name: str, width: int, height: int) -> None:
    """Check the size of an image.

    Raises:
        InvalidInputError: If it has more than ``MAX_PIXELS`` pixels, or a side shorter than ``MIN_SIDE``.
    """
    if width * height > MAX_PIXELS:
        msg = f"{name} has {width}x{height} pixels, more than {MAX_PIXELS // 10**6} million; make it smaller"
        raise InvalidInputError(msg)
    if min(width, height) < MIN_SIDE:
        msg = f"{name} has {width}x{height} pixels; use an image of {MIN_SIDE} pixels a side or more"
        raise InvalidInputError(msg)


def _read_painted(painted: object, size: Size) -> npt.NDArray[np.bool_]:
    if not isinstance(painted, str) or not painted.startswith(PAINTED_PREFIX) or len(painted) > MAX_PAINTED_LENGTH:
        raise ValueError(str(painted)[:40])
    content = base64.b64decode(painted[len(PAINTED_PREFIX) :], validate=True)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        if image.size != size[::-1]:
            raise ValueError(image.size)
        return marks_of(image, soft=True)


def _check_file(path: Path) -> None:
    if path.suffix.lower() in UNREAD_SUFFIXES:
        msg = f"{path.name} has a format that is not read; convert it to PNG or JPEG"
        raise InvalidInputError(msg)
    if path.suffix.lower() not in FORMATS:
        msg = f"{path.name} does not have the suffix of a photo; {ADVICE}"
        raise InvalidInputError(msg)
    if not path.is_file():
        msg = f"{path.name} is no longer on the server; upload it again"
        raise MissingDataError(msg)
    size = path.stat().st_size
    if size > MAX_BYTES:
        msg = f"{path.name} has {size / 2**20:.0f} MB, more than {MAX_BYTES // 2**20}; make it smaller"
        raise InvalidInputError(msg)


def _check_header(path: Path) -> Size:
    """Check format and size by the header of the file, and return width and height as they are shown."""
    expected = FORMATS[path.suffix.lower()]
    try:
        actual, (width, height) = _read_header(path)
    except Image.DecompressionBombError as error:
        msg = f"{path.name} has more than {MAX_PIXELS // 10**6} million pixels; make it smaller"
        raise InvalidInputError(msg) from error
    except Exception as error:  # decoders raise many kinds of errors for a damaged file
        msg = f"{path.name} is not a {expected} image, or is damaged; {ADVICE}"
        raise InvalidInputError(msg) from error
    if actual != expected:
        msg = f"{path.name} is a {actual} image, not {expected}; correct its suffix"
        raise InvalidInputError(msg)
    check_pixels(path.name, width, height)
    return read_size(path)


def _read_header(path: Path) -> tuple[str | None, Size]:
    """Read the format of a file, and width and height as they are stored."""
    try:
        with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
            # Many phones add a second picture to a JPEG file, which Pillow reads as MPO.
            return "JPEG" if image.format == "MPO" else image.format, image.size
    except UnidentifiedImageError:
        if not tiff.is_tiff(path):
            raise
        return "TIFF", tiff.read_size(path)
