"""The one image reader: every format becomes three channels in [0, 1] over the full range of the file's bit depth."""

import contextlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from anomalib_defect_plugins.core import tiff
from anomalib_defect_plugins.core.deep_images import ORIENTATION, has_metadata, is_deep, read_deep

Size = tuple[int, int]
"""Height and width in pixels."""

MemoryOrder = Literal["C", "K"]
"""Memory order of an array as in numpy: ``C`` channel by channel, ``K`` pixel by pixel where the decoder allows it."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn an image by its orientation tag; 5 to 8 swap width and height."""


def read_image(
    path: str | Path, size: Size | None = None, order: MemoryOrder = "C"
) -> tuple[npt.NDArray[np.float32], int, int]:
    """Read an image file as training does.

    Images are turned as their orientation tag says. Values are scaled by the tagged bit depth, or else by all bits of
    the samples; floating-point values have to be in [0, 1]. An alpha channel is dropped, grey is repeated.

    Args:
        path: Image file.
        size: Height and width to resize to, bilinear; ``None`` keeps the file's.
        order: Memory order of the result.

    Returns:
        Image, shape (3, H, W), float32 in [0, 1]; and the width and height of the image before resizing, in pixels.

    Raises:
        OSError: If the file does not exist or cannot be decoded.
        ValueError: If it has several pages or frames, values beyond its range, or colours that are not read.
        PIL.Image.DecompressionBombError: If it has more pixels than Pillow allows.
    """
    try:
        with Image.open(path) as image:
            if not is_deep(image):
                check_one_page(image)
                upright = turn_upright(image)
                return colours_of(upright, size, order), *upright.size
    except UnidentifiedImageError:
        if not tiff.is_tiff(path):
            raise
    planes = read_deep(path)
    pixels = np.stack([_resized(Image.fromarray(plane), size) for plane in planes])
    return np.repeat(pixels, 3 // len(planes), axis=0), planes.shape[2], planes.shape[1]


def read_bytes(path: str | Path, size: Size | None = None) -> tuple[npt.NDArray[np.uint8], int, int]:
    """Read an image as :func:`read_image` does, with 8 bits; deeper images are rounded.

    Returns:
        Image, shape (H, W, 3), uint8; and the width and height of the image before resizing, in pixels.
    """
    with contextlib.suppress(UnidentifiedImageError), Image.open(path) as image:
        if not is_deep(image):
            check_one_page(image)
            upright = turn_upright(image)
            return _resized(as_rgb(upright), size), *upright.size
    values, width, height = read_image(path, size)
    return to_bytes(values), width, height


def to_bytes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Convert an image, shape (3, H, W), float in [0, 1], to 8 bits, shape (H, W, 3)."""
    return np.ascontiguousarray((values.transpose(1, 2, 0) * 255).round().astype(np.uint8))


def to_values(pixels: npt.NDArray[np.uint8], order: MemoryOrder = "C") -> npt.NDArray[np.float32]:
    """Convert an image, shape (H, W, 3), uint8, to one of shape (3, H, W), float32 in [0, 1]."""
    # Multiplied, as torchvision does, because a division would round differently.
    scaled: npt.NDArray[np.float32] = np.multiply(
        pixels.transpose(2, 0, 1), np.float32(1 / 255), dtype=np.float32, order=order
    )
    return scaled


def read_size(path: str | Path) -> tuple[int, int]:
    """Read width and height of an image as :func:`read_image` returns them, from the header if possible.

    Raises:
        OSError: If the file does not exist or is not an image.
    """
    try:
        with Image.open(path) as image:
            return upright_size(image)
    except UnidentifiedImageError:
        if not tiff.is_tiff(path):
            raise
    return tiff.read_size(path)


def check_image(path: str | Path) -> tuple[int, int]:
    """Find damage of an image file with as little work as possible, and return its width and height.

    Checks the checksums of a PNG, decodes a JPEG at an eighth of its size, and reads any other file.

    Raises:
        OSError: If the file does not exist or cannot be decoded.
        ValueError: If :func:`read_image` would refuse it.
    """
    try:
        with Image.open(path) as image:
            check_one_page(image)
            if image.format == "PNG":
                image.verify()
                return read_size(path) if has_metadata(path) else image.size
            if not is_deep(image):
                size = upright_size(image)
                # Only JPEG has reduced decoding; for other formats ``draft`` does nothing.
                image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
                image.load()
                return size
    except UnidentifiedImageError:
        if not tiff.is_tiff(path):
            raise
    planes = read_deep(path)
    return planes.shape[2], planes.shape[1]


def is_read_otherwise(path: str | Path) -> bool:
    """Whether ``Image.open(path).convert("RGB")``, as in anomalib, has other pixels than :func:`read_image`.

    That is so for images of more than 8 bits and for turned ones.
    """
    try:
        with Image.open(path) as image:
            if image.format == "TIFF":  # Pillow turns these, but wrongly if that swaps width and height
                return is_deep(image) or tiff.swaps_sides(image)
            return is_deep(image) or orientation(image) in TURNS
    except UnidentifiedImageError:
        return tiff.is_tiff(path)


def check_one_page(image: Image.Image) -> None:
    """Check that an open image has one page or frame. Further pictures in a photo (MPO) do not count.

    Raises:
        ValueError: If it has several.
    """
    if image.format == "TIFF":
        number = tiff.count_pages(_path(image)) if tiff.has_pages(image) else 1
    else:
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        number = getattr(image, "n_frames", 1) if animated else 1
    if number > 1:
        raise ValueError(tiff.several_pages(number))


def orientation(image: Image.Image) -> Any:
    """Return the orientation tag of an open image; 1 if it has none, or damaged metadata."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - parsing of damaged metadata fails in many ways, and no viewer heeds it either
        return 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an open image once it is turned as its orientation tag says."""
    # Pillow turns TIFF files itself, and decodes a PNG file to find metadata at its end.
    if image.format == "TIFF" or (image.format == "PNG" and not has_metadata(_path(image))):
        return image.size
    return image.size[::-1] if orientation(image) in {5, 6, 7, 8} else image.size


def turn_upright(image: Image.Image) -> Image.Image:
    """Decode an open image and turn it as its orientation tag says."""
    if image.format == "TIFF" and tiff.swaps_sides(image):
        # Pillow maps files with a name to memory, and then in the size that they have after they are turned.
        image.filename = ""  # type: ignore[attr-defined]
    image.load()
    turn = None if image.format == "TIFF" else TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def _path(image: Image.Image) -> str:
    return str(image.filename)  # type: ignore[attr-defined]  # every image has it that was opened by its path


def colours_of(image: Image.Image, size: Size | None = None, order: MemoryOrder = "C") -> npt.NDArray[np.float32]:
    """Return the pixels of an open image of 8 bits as :func:`read_image` does, without turning it."""
    return to_values(_resized(as_rgb(image), size), order)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB; an alpha channel is dropped, grey is repeated."""
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB") or image
    # Pillow warns when the transparency of a palette is dropped in one step.
    colours = image.convert("RGBA") if image.has_transparency_data else image
    return colours.convert("RGB")


def _resized(image: Image.Image, size: Size | None) -> npt.NDArray[Any]:
    if size is None or image.size == size[::-1]:
        return np.asarray(image)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
