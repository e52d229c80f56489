"""The one image reader: every format becomes three channels in [0, 1] over the full range of the file's bit depth."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Size = tuple[int, int]
"""Height and width in pixels."""


MemoryOrder = Literal["C", "K"]
"""Memory order of an array as in numpy: ``C`` channel by channel, ``K`` pixel by pixel where the decoder allows it."""


def read_image(
    path: str | Path, size: Size | None = None, order: MemoryOrder = "C"
) -> tuple[npt.NDArray[np.float32], int, int]:
    """Read an image file as training does.

    As in anomalib, an orientation tag is not applied. 16-bit values are scaled by 65535, an alpha channel is dropped,
    grey is repeated.

    Args:
        path: Image file.
        size: Height and width to resize to, bilinear; ``None`` keeps the file's.
        order: Memory order of the result.

    Returns:
        Image, shape (3, H, W), float32 in [0, 1]; and the file's width and height in pixels.

    Raises:
        OSError: If the file does not exist or cannot be decoded.
        ValueError: If its values have no known range.
        PIL.Image.DecompressionBombError: If it has more pixels than Pillow allows.
    """
    with Image.open(path) as image:
        width, height = image.size
        pixels = _pixels(image, size, order)
    return pixels, width, height


def check_mode(image: Image.Image) -> None:
    """Check that the pixel format has a full range to scale by; Pillow would clip floats to whole numbers.

    Raises:
        ValueError: If the pixels are floating-point numbers.
    """
    if image.mode == "F":
        msg = "its values are floating-point numbers, save it with 8 or 16 bits"
        raise ValueError(msg)


def _pixels(image: Image.Image, size: Size | None, order: MemoryOrder) -> npt.NDArray[np.float32]:
    check_mode(image)
    if image.mode.startswith("I"):
        # Pillow opens 16-bit grey as integers, and would clip them to 255 on conversion.
        values = np.asarray(image).astype(np.float32) / np.float32(65535)
        if values.max() > 1 or values.min() < 0:
            msg = "its values need more than 16 bits, or a sign"
            raise ValueError(msg)
        return np.repeat(_resized(Image.fromarray(values), size)[None], 3, axis=0)
    # Pillow warns when the transparency of a palette is dropped in one step.
    colours = image.convert("RGBA") if image.has_transparency_data else image
    values = _resized(colours.convert("RGB"), size).transpose(2, 0, 1)
    # Multiplied, as torchvision does, because a division would round differently.
    scaled: npt.NDArray[np.float32] = np.multiply(values, np.float32(1 / 255), dtype=np.float32, order=order)
    return scaled


def _resized(image: Image.Image, size: Size | None) -> npt.NDArray[Any]:
    if size is None or image.size == size[::-1]:
        return np.asarray(image)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
