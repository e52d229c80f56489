"""The one mask reader: a pixel of any image format is marked if something is drawn there."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from anomalib_defect_plugins.core import tiff
from anomalib_defect_plugins.core.deep_images import has_metadata, is_deep, turned
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import check_one_page, orientation, turn_upright

Marks = npt.NDArray[np.bool_]
"""A mask, shape (H, W)."""

Values = npt.NDArray[Any]

LOSSY_FORMATS = {"JPEG", "MPO", "JPEG2000", "AVIF", "HEIF"}

LOSSY_COMPRESSIONS = {"jpeg", "tiff_jpeg", "jpeg2000", "webp"}
"""Compressions of TIFF files."""

FAINT = 64
"""Lowest value of 255 that a drawing in a lossy format has; lower ones do not survive compression."""

LARGEST_SHARE_BETWEEN = 0.2
"""Share of pixels between dark and bright above which a file in a lossy format is taken for a photo."""

MAX_IDENTIFIERS = 2
"""Number of different values below half of the highest one up to which they are taken for identifiers."""

SINGLE_SHARE = 0.1
"""Share of faint pixels without an equal neighbour above which they are noise or soft edges instead of identifiers."""

BACKGROUND_SHARE = 0.2
"""Share of pixels that are black in a mask that was saved with loss before, unlike in a photo."""

LARGEST_SHARE = 0.95
LARGEST_SHARE_OF_BORDER = 0.9
"""Shares of marked pixels, of the image and of its border, above which a mask is taken for an inverted one."""


def read_mask(path: str | Path) -> Marks:
    """Read a mask file.

    A pixel is marked if it is neither black nor transparent; where all that is visible is black, if it is not
    transparent. Values of a format with lossy compression, or of a file that was saved in one before, are compared with
    half of the highest value, and so are fractions. An orientation tag is followed.

    Args:
        path: Image file.

    Returns:
        Mask, shape (H, W), bool.

    Raises:
        OSError: If the file does not exist or cannot be decoded.
        ValueError: If it has several pages, values that are negative or not finite, or is a photo or an identifier in a
            format with lossy compression.
        PIL.Image.DecompressionBombError: If it has more pixels than Pillow allows.
    """
    try:
        with Image.open(path) as image:
            check_one_page(image)
            if not is_deep(image):
                return marks_of(image, _is_lossy(image, path))
    except UnidentifiedImageError:
        if not tiff.is_tiff(path):
            raise
    return _marks(*_read_deep(path), soft=False)


def marks_of(image: Image.Image, soft: bool) -> Marks:
    """Return the mask in an open image of 8 bits per sample, as :func:`read_mask` does.

    Args:
        image: The image.
        soft: Whether edges are soft, so that half of the highest value, and of opacity, is the limit.
    """
    image = turn_upright(image)
    if image.has_transparency_data:
        *colours, alpha = np.asarray(image.convert("RGBA")).transpose(2, 0, 1)
        return _marks(np.stack(colours), alpha, soft)
    # Pillow converts to grey by weights that turn a dark colour black.
    values = np.asarray(image)[None] if image.mode == "L" else np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return _marks(values, None, soft)


def leaves_background(marks: Marks) -> bool:
    """Whether a mask leaves a background: not if it marks nearly everything, or most of the image and its border."""
    border = np.concatenate([marks[0], marks[-1], marks[:, 0], marks[:, -1]])
    share = float(marks.mean())
    return share <= LARGEST_SHARE and (share <= 0.5 or float(border.mean()) <= LARGEST_SHARE_OF_BORDER)


def check_background(marks: Marks, what: str) -> None:
    """Check that a mask leaves a background.

    Args:
        marks: Mask, shape (H, W), bool.
        what: Kind and path of its file, for the message.

    Raises:
        InvalidInputError: If it does not.
    """
    if not leaves_background(marks):
        extent = "everything" if marks.all() else f"{100 * marks.mean():.3g} % of its pixels, and so its background"
        msg = f"{what} marks {extent}; invert it, or make the background black or transparent"
        raise InvalidInputError(msg)


def _is_lossy(image: Image.Image, path: str | Path) -> bool:
    if image.format == "WEBP":
        return _is_lossy_webp(path)
    return image.format in LOSSY_FORMATS or image.info.get("compression") in LOSSY_COMPRESSIONS


def _is_lossy_webp(path: str | Path) -> bool:
    """Whether the picture of a WebP file is in the chunk of lossy ones, which others may precede."""
    with Path(path).open("rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8 and header[:4] not in {b"VP8 ", b"VP8L"}:
            length = int.from_bytes(header[4:], "little")
            file.seek(length + length % 2, io.SEEK_CUR)
    return header[:4] == b"VP8 "


def _read_deep(path: str | Path) -> tuple[Values, Values | None]:
    """Read the values of a file of more than 8 bits: colours, shape (C, H, W), and the alpha channel, shape (H, W)."""
    if tiff.is_tiff(path):
        if tiff.has_alpha(path):
            msg = "it has more than 8 bits and transparency; save it with 8 bits"
            raise ValueError(msg)
        values, _, turn = tiff.read(path)
        return turned(values.transpose(2, 0, 1), turn), None
    with Image.open(path) as image:
        is_png = image.format == "PNG"
        values = np.atleast_3d(_read_png(path) if is_png else np.asarray(image))
        turn = orientation(image) if not is_png or has_metadata(path) else 1
    planes = turned(values.transpose(2, 0, 1), turn)
    has_alpha = len(planes) in {2, 4}
    return planes[: len(planes) - has_alpha], planes[-1] if has_alpha else None


def _read_png(path: str | Path) -> Values:
    import imagecodecs

    values: Values = imagecodecs.png_decode(Path(path).read_bytes())
    return values


def _marks(colours: Values, alpha: Values | None, soft: bool) -> Marks:
    brightest = colours.max(axis=0)
    _check_values(brightest, soft)
    top = float(brightest.max())
    fractions = brightest.dtype.kind == "f" and bool((brightest % 1).any())
    limit = top / 2 if soft or fractions or _was_lossy(brightest, top) else 0
    marks: Marks = brightest >= max(limit, np.finfo(np.float32).tiny)
    if alpha is None:
        return marks
    shown = alpha > (127 if soft else 0)
    marks &= shown
    # Black on a transparent layer is a drawing, too.
    return marks if marks.any() or shown.all() else shown


def _check_values(brightest: Values, soft: bool) -> None:
    """Check that values are those of a mask.

    Args:
        brightest: Highest value of each pixel over the channels, shape (H, W).
        soft: Whether edges are soft.
    """
    low, top = float(brightest.min()), float(brightest.max())
    if not 0 <= low <= top < np.inf:  # also if a value is NaN
        msg = f"its values are {low:g} to {top:g}; save it with 0 for the background, and positive values for defects"
        raise ValueError(msg)
    if soft and 0 < top < FAINT:
        msg = f"its highest value is {top:g} of 255, which lossy compression does not keep; save it as PNG"
        raise ValueError(msg)
    share = float(_is_between(brightest, top).mean())
    if soft and share > LARGEST_SHARE_BETWEEN:
        msg = f"{100 * share:.3g} % of its pixels are neither dark nor bright, as in a photo; save the mask as PNG"
        raise ValueError(msg)


def _was_lossy(brightest: Values, top: float) -> bool:
    """Whether a mask has soft edges or the noise of lossy compression: faint values without an equal neighbour."""
    faint = (brightest > 0) & (brightest < top / 2)
    is_photo = float((brightest == 0).mean()) < BACKGROUND_SHARE
    if is_photo or len(np.unique(brightest[faint])) <= MAX_IDENTIFIERS:
        return False
    single = np.ones(brightest.shape, bool)
    rows, columns = brightest[1:] != brightest[:-1], brightest[:, 1:] != brightest[:, :-1]
    single[1:] &= rows
    single[:-1] &= rows
    single[:, 1:] &= columns
    single[:, :-1] &= columns
    return bool(single[faint].mean() > SINGLE_SHARE)


def _is_between(brightest: Values, top: float) -> Marks:
    between: Marks = (brightest > top / 4) & (brightest < 3 * top / 4)
    return between
