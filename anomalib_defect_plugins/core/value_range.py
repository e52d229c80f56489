"""Images that use little of their range of values: unscaled values of cameras with 12 bits, black and white images."""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalib_defect_plugins.core.image_io import read_image

logger = logging.getLogger(__name__)

DARK = 1 / 16
"""Values up to here are dark. The highest value of 12 bits is slightly lower in samples of 16 bits."""

WHITE = 0.98
"""Values from here on are white."""

SHARE = 0.001
"""Share of the values that may be elsewhere, such as defective pixels of the camera."""

SIDE = 128
"""Rows and columns of an image that are looked at, evenly distributed, along its shorter side."""

MAX_IMAGES = 48
"""Maximum images of a data set that are looked at."""


def uses_little_range(pixels: npt.NDArray[Any]) -> bool:
    """Whether nearly all values of an image are dark, or nearly all are white.

    Args:
        pixels: Image, shape (3, H, W), in [0, 1]; or shape (H, W, 3), uint8.
    """
    if pixels.dtype == np.uint8:
        pixels = pixels.transpose(2, 0, 1)
    step = max(1, min(pixels.shape[-2:]) // SIDE)
    values = pixels[:, ::step, ::step]
    if values.dtype == np.uint8:
        values = values * np.float32(1 / 255)
    return bool((values > DARK).mean() < SHARE or (values < WHITE).mean() < SHARE)


def little_range_warning(first: str, number: int, looked_at: int) -> str:
    """Return the warning about images that use little of their range.

    Args:
        first: Path of the first one.
        number: Their number.
        looked_at: Number of images that were looked at.
    """
    others = f", as are {number} of {looked_at} images looked at" if number > 1 else ""
    return (
        f"image {first} is almost black or almost white{others}: its values do not leave the lowest 1/16 of their "
        "range, or the highest 1/50; correct the exposure, or tag or scale values of a camera of 10 or 12 bits"
    )


def warn_of_little_range(paths: Iterable[str]) -> None:
    """Warn once if images of a data set use little of their range of values.

    Args:
        paths: Image files; if there are many, a part of them is looked at, evenly distributed. Files that cannot be
            read are named elsewhere.
    """
    files = sorted(set(paths))
    rows = np.linspace(0, len(files) - 1, min(MAX_IMAGES, len(files))).round().astype(int)
    found = [files[row] for row in rows if _uses_little_range(files[row])]
    if found:
        logger.warning(little_range_warning(found[0], len(found), len(rows)))


def _uses_little_range(path: str) -> bool:
    try:
        return uses_little_range(read_image(path)[0])
    except Exception:  # noqa: BLE001 - decoders raise errors of many types on a damaged file
        return False
