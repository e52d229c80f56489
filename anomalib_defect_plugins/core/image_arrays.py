"""Images that are not files: arrays, tensors, Pillow's images, and encoded files in memory or in a stream."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomalib_defect_plugins.core.deep_images import is_deep
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import as_rgb, check_one_page, read_image, turn_upright
from anomalib_defect_plugins.core.image_limits import FORMATS

ImageLike = Any
"""An image: a path; the bytes of a file; a file open in binary mode; an image of Pillow; an array, shape (H, W),
(H, W, 1), (H, W, 3) or (H, W, 4); or a tensor of torch, shape (H, W), (1, H, W) or (3, H, W)."""

Pixels = npt.NDArray[Any]
"""Image of 8 bits, shape (H, W, 3), uint8; or of more, shape (3, H, W), float32 in [0, 1]."""

DEEP_SIGNATURES = (b"II", b"MM", b"\x89PNG", b"P", b"\x00\x00\x00\x0cjP", b"\xff\x4f\xff\x51")
"""First bytes of files with more than 8 bits, which are read from the disk: TIFF, PNG, PGM and JPEG 2000."""

FILE_FORMATS = sorted(set(FORMATS.values()))
"""Formats of files in memory; others start programs on this machine, or are rare."""

TEMPLATE = "use an array, shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a tensor, shape (H, W) or (C, H, W)"


def to_pixels(image: ImageLike) -> Pixels:
    """Convert an image as the image reader does: grey is repeated, alpha dropped, RGB in this order.

    Arrays of unsigned integers are scaled by all their bits; floating-point values have to be in [0, 1].

    Raises:
        InvalidInputError: If it is not an image, or has values beyond its range.
        OSError: If a file cannot be read.
        ValueError: If a file has several pages.
        PIL.Image.DecompressionBombError: If a file has more pixels than Pillow allows.
    """
    if isinstance(image, str | Path):
        return read_image(image)[0]
    if isinstance(image, bytes | bytearray | memoryview):
        return _decode(bytes(image))
    if isinstance(image, Image.Image):
        return _decode_open(image)
    if hasattr(image, "read"):
        stream: BinaryIO = image
        return _decode(stream.read())
    if hasattr(image, "detach"):
        return _convert(_channels_last(image.detach().cpu().numpy()))
    return _convert(np.asarray(image))


def _decode(content: bytes) -> Pixels:
    # Pillow does not read every TIFF file.
    with contextlib.suppress(UnidentifiedImageError), Image.open(io.BytesIO(content), formats=FILE_FORMATS) as image:
        if image.format != "TIFF" and not is_deep(image):
            return _decode_open(image)
    if not content.startswith(DEEP_SIGNATURES):
        msg = "the data is not an image; use PNG, JPEG, TIFF, BMP or WebP"
        raise InvalidInputError(msg)
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_image(file.name)[0]


def _decode_open(image: Image.Image) -> Pixels:
    if image.mode[0] in "IF":
        values = np.asarray(image)
        is_deep_grey = values.dtype.kind == "i" and values.min() >= 0 and values.max() < 2**16
        return _convert(values.astype(np.uint16) if is_deep_grey else values)
    if getattr(image, "filename", None) is not None or image.format:
        check_one_page(image)
        image = turn_upright(image)
    return np.asarray(as_rgb(image))


def _channels_last(values: Pixels) -> Pixels:
    """Return a tensor, shape (H, W) or (C, H, W), with the channels last."""
    return values.transpose(1, 2, 0) if values.ndim == 3 and values.shape[0] in {1, 3} else values


def _convert(values: Pixels) -> Pixels:
    """Convert an array, shape (H, W) or (H, W, C)."""
    if values.ndim not in {2, 3} or (values.ndim == 3 and values.shape[2] not in {1, 3, 4}) or not values.size:
        msg = f"{'x'.join(map(str, values.shape)) or 'a single value'} is not the shape of an image; {TEMPLATE}"
        raise InvalidInputError(msg)
    values = np.atleast_3d(values)[..., :3]
    values = np.repeat(values, 3 // values.shape[2], axis=2)
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    scaled = _scale(values).transpose(2, 0, 1)
    return np.ascontiguousarray(scaled)


def _scale(values: Pixels) -> npt.NDArray[np.float32]:
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.float32)
    if kind not in "uf":
        msg = f"an image of type {values.dtype} is not read; use uint8, uint16 or floating-point values in [0, 1]"
        raise InvalidInputError(msg)
    top = 1.0 if kind == "f" else float(np.iinfo(values.dtype).max)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= top):  # also if a value is NaN
        advice = "divide them by their highest possible value"
        msg = (
            f"the image has values from {low:g} to {high:g}, beyond the range of {values.dtype}, 0 to {top:g}; {advice}"
        )
        raise InvalidInputError(msg)
    return (values / top).astype(np.float32)
