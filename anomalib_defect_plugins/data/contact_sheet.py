"""Contact sheet: rows of thumbnails with outlined masks."""

import math
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
from anomalib_defect_plugins.core.files import atomic_path
from anomalib_defect_plugins.data.dataclasses import SEPARATOR

PAGE = (2000, 3000)
"""Maximum width and height of a contact sheet, in pixels."""

THUMBNAIL_AREA = 160**2
"""Area of a thumbnail with the median aspect ratio, in pixels, where it fits the page."""

HEIGHTS = (56, 320)
"""Minimum and maximum height of a thumbnail, in pixels."""

MAX_SIZE = (1600, 400)
"""Width and height that an image is reduced to when it is read, in pixels."""

LABEL_WIDTH, GAP, FONT_SIZE = 180, 8, 15
OUTLINE = (255, 0, 110)


class Thumbnail(NamedTuple):
    """A reduced image and, if it has one, its mask of the same size (mode ``L``, 255 on the defect)."""

    image: Image.Image
    mask: Image.Image | None


def make_thumbnail(item: ImageItem) -> Thumbnail:
    """Create a thumbnail of a sample: image, shape (3, H, W), float in [0, 1], and optional mask, shape (H, W)."""
    pixels = (cast(Tensor, item.image).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    image.thumbnail(MAX_SIZE)
    if item.gt_mask is None:
        return Thumbnail(image, None)
    mask = Image.fromarray((item.gt_mask.numpy() > 0).astype(np.uint8) * 255)
    return Thumbnail(image, _resize_mask(mask, image.size))


def _resize_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize a mask without losing thin defects: a pixel is defective if any of its source pixels is."""
    return mask.resize(size, Image.Resampling.BOX).point(lambda value: 255 if value else 0)


def contact_sheet(groups: list[tuple[str, list[Thumbnail]]]) -> Image.Image:
    """Draw the thumbnails of each group, with outlined masks, in a row behind its label.

    Args:
        groups: Label and thumbnails of each row. Thumbnails that do not fit the page are left out.

    Returns:
        RGB image no larger than ``PAGE``, but higher for hundreds of groups.
    """
    height, columns = _plan(groups)
    length = PAGE[0] // columns - LABEL_WIDTH - 3 * GAP
    rows = [_draw_row(label, thumbnails, height, length) for label, thumbnails in groups]
    each = math.ceil(len(rows) / columns)
    return _stack([_stack(rows[at : at + each], down=True) for at in range(0, len(rows), each)], down=False)


def _plan(groups: list[tuple[str, list[Thumbnail]]]) -> tuple[int, int]:
    """Return the height of a thumbnail and the number of columns: the fewest with large enough thumbnails."""
    shapes = [image.width / image.height for _, thumbnails in groups for image, _ in thumbnails]
    target = int(np.clip(math.sqrt(THUMBNAIL_AREA / np.median(shapes)), *HEIGHTS))
    for columns in (1, 2, 3):
        room = PAGE[1] // math.ceil(len(groups) / columns) - 2 * GAP
        if room >= min(target, 2 * HEIGHTS[0]):
            break
    return max(HEIGHTS[0], min(target, room)), columns


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
    """Yield left and top of the pictures that fit into a row, which has several lines if the pictures are flat."""
    left = top = line = 0
    for wide, high in sizes:
        if left + wide > length:
            left, top, line = 0, top + line + GAP, 0
        if top + high > height:
            return
        yield left, top
        left, line = left + wide + GAP, max(line, high)


def _draw_thumbnail(thumbnail: Thumbnail, height: int, length: int) -> Image.Image:
    """Scale a thumbnail to ``height``, or to ``length`` if it would be longer, and outline its mask."""
    image, mask = thumbnail
    scale = min(height / image.height, length / image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS)
    if mask is None:
        return image
    # The outline is one pixel away so that a thin defect stays visible; the padding closes it at the border.
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
    """Wrap a line that is too long for a label, if possible after a ``+``, ``_`` or blank."""
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
    """Stack pictures vertically or horizontally with a margin."""
    widths, heights = [picture.width for picture in pictures], [picture.height for picture in pictures]
    size = (max(widths), sum(heights)) if down else (sum(widths), max(heights))
    page = Image.new("RGB", (size[0] + (GAP if down else 0), size[1] + (GAP if down else 0)), "white")
    at = GAP if down else 0
    for picture in pictures:
        page.paste(picture, (GAP, at) if down else (at, 0))
        at += picture.height if down else picture.width
    return page


def row_label(defect_type: str, splits: tuple[str, ...], count: int) -> str:
    """Format the label of a row of the contact sheet: type, splits and number of images."""
    return f"{defect_type}\n{' and '.join(splits)}: {count}"


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write the contact sheet as PNG, atomically.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    try:
        with atomic_path(path) as partial:
            sheet.save(partial, "PNG")
    except OSError as error:
        msg = f"cannot write the contact sheet {path} ({error.strerror or error}); choose another file (--out)"
        raise InvalidInputError(msg) from error
