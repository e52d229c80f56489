"""TIFF files that Pillow cannot open or reads with a wrong range: more than 8 bits, signed values, odd depths."""

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

# Damage is an error here, and tifffile logs a line for each invalid tag of each file.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files."""

BITS_PER_SAMPLE, IMAGE_DESCRIPTION, ORIENTATION, SAMPLE_FORMAT, IMAGE_DEPTH = 258, 270, 274, 339, 32997
UNSIGNED = 1
REDUCED, MASK = 1, 4
"""Bits of ``NewSubfileType``: a smaller copy of another page, and its transparency."""

SIXTEEN_BITS = 65535
"""Highest value of 16 bits."""

FEW_BITS = 2**24
"""Values of integers of 32 or 64 bits without a tagged depth, up to which they are taken for values of 16 bits."""

SIGNIFICANT_BITS = re.compile(r'SignificantBits="(\d+)"')
"""Bit depth in the description of an OME-TIFF file."""

CHANNELS = {"MINISWHITE": 1, "MINISBLACK": 1, "RGB": 3}
"""Number of channels without alpha, by the colour spaces that are read."""

ALPHA = (1, 2)
"""Values of ``ExtraSamples`` for an alpha channel."""


def is_tiff(path: str | Path) -> bool:
    """Whether a file starts as TIFF files do."""
    with Path(path).open("rb") as file:
        return file.read(4) in MAGIC


def is_deep(image: Image.Image) -> bool:
    """Whether an open TIFF file has samples that Pillow would cut to 8 bits, or read with a wrong range."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]  # only TIFF files have it
    bits, kinds = tags.get(BITS_PER_SAMPLE, (1,)), tags.get(SAMPLE_FORMAT, (UNSIGNED,))
    return max(bits) > 8 or set(kinds) != {UNSIGNED}


def has_pages(image: Image.Image) -> bool:
    """Whether an open TIFF file may have several pages; ImageJ lists those of a stack in the description only."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    is_stack = str(tags.get(IMAGE_DESCRIPTION, "")).startswith("ImageJ") or IMAGE_DEPTH in tags
    return is_stack or bool(getattr(image, "is_animated", False))


def swaps_sides(image: Image.Image) -> bool:
    """Whether the orientation of an open TIFF file swaps width and height."""
    return image.tag_v2.get(ORIENTATION) in {5, 6, 7, 8}  # type: ignore[attr-defined]


def count_pages(path: str | Path) -> int:
    """Return the number of pages of a TIFF file, without previews and transparency masks.

    Raises:
        ValueError: If its first page is a preview.
    """
    with tifffile.TiffFile(path) as file:
        _first_page(file)
        return _count_pages(file)


def has_alpha(path: str | Path) -> bool:
    """Whether the first page of a TIFF file has an alpha channel."""
    with tifffile.TiffFile(path) as file:
        return any(kind in ALPHA for kind in file.pages.first.extrasamples)


def read_size(path: str | Path) -> tuple[int, int]:
    """Read width and height of a TIFF file from its header, turned as its orientation tag says."""
    with tifffile.TiffFile(path) as file:
        page = _first_page(file)
        width, height = page.imagewidth, page.imagelength
        return (height, width) if _orientation(page) > 4 else (width, height)


def read(path: str | Path) -> tuple[npt.NDArray[Any], float, int]:
    """Read a TIFF file with one page.

    Returns:
        Values as stored, shape (H, W, C), of which black is 0; the highest possible one; and the orientation, 1 to 8.

    Raises:
        ValueError: If it has several pages, or colours that are not read.
        PIL.Image.DecompressionBombError: If it has more pixels than Pillow allows.
    """
    with tifffile.TiffFile(path) as file:
        page = _first_page(file)
        number = _count_pages(file)
        if number > 1:
            raise ValueError(several_pages(number))
        _check_pixels(page.imagewidth * page.imagelength)
        channels = _channels(page)
        values = page.asarray()
        top = _highest_value(page, values, file.ome_metadata if file.is_ome else None)
    values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values
    values = np.atleast_3d(values)[..., :channels]
    return top - values if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE else values, top, _orientation(page)


def several_pages(number: int) -> str:
    """Return the message about an image file with several pages."""
    return f"it has {number} pages or frames, of which one would be read; save each page as a file of its own"


def _first_page(file: tifffile.TiffFile) -> tifffile.TiffPage:
    page = file.pages.first
    if page.subfiletype & (REDUCED | MASK):
        msg = "its first page is only a preview; save the image without it"
        raise ValueError(msg)
    return page


def _count_pages(file: tifffile.TiffFile) -> int:
    pages = [page for page in file.pages if not page.aspage().subfiletype & (REDUCED | MASK)]
    in_stack = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    return max(len(pages), int(in_stack), file.pages.first.imagedepth)


def _check_pixels(number: int) -> None:
    """Apply Pillow's limit, which Pillow checks only in files that it can open."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or number <= limit:
        return
    msg = f"Image size ({number} pixels) exceeds limit of {limit} pixels, could be decompression bomb DOS attack."
    if number > 2 * limit:
        raise Image.DecompressionBombError(msg)
    warnings.warn(msg, Image.DecompressionBombWarning, stacklevel=2)


def _channels(page: tifffile.TiffPage) -> int:
    """Return the number of channels without alpha."""
    name = getattr(page.photometric, "name", str(page.photometric))
    channels, colours = CHANNELS.get(name), page.samplesperpixel - sum(kind in ALPHA for kind in page.extrasamples)
    if channels is None or page.axes not in {"YX", "YXS", "SYX"} or (channels == 1 and colours != 1):
        msg = f"its colours ({name}, {page.samplesperpixel} channels of {page.bitspersample} bits) are not read; "
        raise ValueError(msg + "save it as grey or RGB")
    return channels


def _highest_value(page: tifffile.TiffPage, values: npt.NDArray[Any], ome: str | None) -> int:
    """Return the value of white: by a tagged depth, or else by the number of bits.

    Integers of 32 or 64 bits mostly hold values of 16 bits, and otherwise use all bits. Values between the two are
    beyond the range that is returned.
    """
    if values.dtype.kind in "fb":
        return 1
    bits = _tagged_depth(page, ome)
    if bits is None:
        bits = page.bitspersample - (values.dtype.kind == "i")
        if page.bitspersample in {32, 64} and values.max(initial=0) <= FEW_BITS:
            return SIXTEEN_BITS
    return (1 << bits) - 1


def _tagged_depth(page: tifffile.TiffPage, ome: str | None) -> int | None:
    """Return the bits in use, from the description of an OME-TIFF file or from the tag ``MaxSampleValue``.

    Some programs write the highest value of the image to that tag, so only powers of 2 minus 1 count.
    """
    found = SIGNIFICANT_BITS.search(ome or "")
    if found:
        return int(found[1])
    value = np.max(page.tags.valueof("MaxSampleValue", 0))
    bits = int(value).bit_length()
    return bits if bits > 8 and value == 2**bits - 1 else None


def _orientation(page: tifffile.TiffPage) -> int:
    value = page.tags.valueof("Orientation", 1)
    return int(value) if value in range(1, 9) else 1
