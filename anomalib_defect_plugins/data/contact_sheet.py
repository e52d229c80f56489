"""A contact sheet: rows of thumbnails with the outlines of their masks."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from anomalib.data import ImageItem
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation
from skimage.segmentation import find_boundaries
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.dataclasses import SEPARATOR

PAGE = (2000, 3000)
"""Width and height in pixels that a contact sheet keeps to."""

THUMBNAIL_AREA = 160**2
"""Area in pixels of a thumbnail of the median shape, where the page has room for it."""

HEIGHTS = (56, 320)
"""Least and greatest height of a thumbnail in pixels."""

LARGEST = (1600, 400)
"""Width and height in pixels that an image is reduced to as soon as it is read."""

LABEL_WIDTH, GAP, FONT_SIZE = 180, 8, 15
OUTLINE = (255, 0, 110)


class Thumbnail(NamedTuple):
    """A reduced image and, where it has one, its mask in the same size (mode ``L``, 255 on the defect)."""

    image: Image.Image
    mask: Image.Image | None


def make_thumbnail(item: ImageItem) -> Thumbnail:
    """Make a thumbnail of a sample: image (3, H, W), float in [0, 1], and mask (H, W), if it has one."""
    pixels = (cast(Tensor, item.image).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    image.thumbnail(LARGEST)
    if item.gt_mask is None:
        return Thumbnail(image, None)
    mask = Image.fromarray((item.gt_mask.numpy() > 0).astype(np.uint8) * 255)
    return Thumbnail(image, _resize_mask(mask, image.size))


def _resize_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Keep every defect, however thin: a pixel is defective if any pixel that goes into it is."""
    return mask.resize(size, Image.Resampling.BOX).point(lambda value: 255 if value else 0)


def contact_sheet(groups: list[tuple[str, list[Thumbnail]]]) -> Image.Image:
    """Draw the thumbnails of each group in a row behind its label, with the outlines of their masks.

    Args:
        groups: Label and thumbnails. Of a row that is too long for the page, the thumbnails that fit are drawn.

    Returns:
        RGB image of at most ``PAGE``; it is higher only for groups by the hundred.
    """
    height, columns = _plan(groups)
    length = PAGE[0] // columns - LABEL_WIDTH - 3 * GAP
    rows = [_draw_row(label, thumbnails, height, length) for label, thumbnails in groups]
    each = math.ceil(len(rows) / columns)
    return _stack([_stack(rows[at : at + each], down=True) for at in range(0, len(rows), each)], down=False)


def _plan(groups: list[tuple[str, list[Thumbnail]]]) -> tuple[int, int]:
    """Give the height of a thumbnail and the number of columns of rows, as few as leave the thumbnails large enough."""
    shapes = [image.width / image.height for _, thumbnails in groups for image, _ in thumbnails]
    wanted = int(np.clip(math.sqrt(THUMBNAIL_AREA / np.median(shapes)), *HEIGHTS))
    for columns in (1, 2, 3):
        room = PAGE[1] // math.ceil(len(groups) / columns) - 2 * GAP
        if room >= min(wanted, 2 * HEIGHTS[0]):
            break
    return max(HEIGHTS[0], min(wanted, room)), columns


def _draw_row(label: str, thumbnails: list[Thumbnail], height: int, length: int) -> Image.Image:
    text = _draw_label(label, height)
    pictures = [_draw_thumbnail(thumbnail, height, length) for thumbnail in thumbnails]
    places = list(_arrange([picture.size for picture in pictures], length, text.height))
    width = max(left + picture.width for picture, (left, _) in zip(pictures, places, strict=False))
    row = Image.new("RGB", (LABEL_WIDTH + width + GAP, text.height + GAP), "white")
    row.paste(text, (0, 0))
    for picture, (left, top) in zip(pictures, places, strict=False):
        row.paste(picture, (LABEL_WIDTH + left, top))
    return row


def _arrange(sizes: list[tuple[int, int]], length: int, height: int) -> Iterator[tuple[int, int]]:
    """Give left and top of the pictures that fit into a row, which has lines where long strips leave it room."""
    left = top = line = 0
    for wide, high in sizes:
        if left + wide > length:
            left, top, line = 0, top + line + GAP, 0
        if top + high > height:
            return
        yield left, top
        left, line = left + wide + GAP, max(line, high)


def _draw_thumbnail(thumbnail: Thumbnail, height: int, length: int) -> Image.Image:
    """Bring a thumbnail to its height, or to its length if it is a long strip, and outline its mask."""
    image, mask = thumbnail
    scale = min(height / image.height, length / image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS)
    if mask is None:
        return image
    # A pixel away from the defect, so that a thin one is still to be seen; the margin closes outlines at the border.
    around = binary_dilation(np.asarray(_resize_mask(mask, size)) > 0, np.ones((5, 5)))
    pixels = np.array(image)
    inner = find_boundaries(np.pad(around, 1), mode="inner")  # type: ignore[no-untyped-call]
    pixels[inner[1:-1, 1:-1]] = OUTLINE
    return Image.fromarray(pixels)


def _draw_label(label: str, height: int) -> Image.Image:
    font = ImageFont.load_default(FONT_SIZE)
    lines = "\n".join(line for text in label.splitlines() for line in _wrap(text, font))
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), lines, font)
    image = Image.new("RGB", (LABEL_WIDTH, max(height, math.ceil(box[3]))), "white")
    ImageDraw.Draw(image).multiline_text((0, 0), lines, "black", font)
    return image


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[str]:
    """Break a line that is too long for a label, after a ``+``, ``_`` or blank where there is one."""
    line = ""
    for part in _parts(text):
        if line and font.getlength(line + part) > LABEL_WIDTH - GAP:
            yield line
            line = ""
        line += part
    yield line


def _parts(text: str) -> Iterator[str]:
    start = 0
    for end, character in enumerate(text, 1):
        if character in f"{SEPARATOR}_ " or end == len(text) or end - start == LABEL_WIDTH // FONT_SIZE:
            yield text[start:end]
            start = end


def _stack(pictures: list[Image.Image], down: bool) -> Image.Image:
    """Put pictures below or beside one another, with a margin around."""
    widths, heights = [picture.width for picture in pictures], [picture.height for picture in pictures]
    size = (max(widths), sum(heights)) if down else (sum(widths), max(heights))
    page = Image.new("RGB", (size[0] + (GAP if down else 0), size[1] + (GAP if down else 0)), "white")
    at = GAP if down else 0
    for picture in pictures:
        page.paste(picture, (GAP, at) if down else (at, 0))
        at += picture.height if down else picture.width
    return page


def label_of(defect_type: str, splits: tuple[str, ...], count: int) -> str:
    """Give the label of a row of the contact sheet: type, splits and how many images there are."""
    return f"{defect_type}\n{' and '.join(splits)}: {count}"


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write the contact sheet as PNG, atomically.

    Raises:
        InvalidInputError: Nothing can be written there.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        sheet.save(partial, "PNG")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        msg = f"cannot write the contact sheet {path} ({error.strerror or error}); give another file (--out)"
        raise InvalidInputError(msg) from error
