"""Numbers that describe how an image was taken: exposure, focus and position."""

from typing import Any

import numpy as np
import numpy.typing as npt

COLUMNS = ("brightness", "sharpness", "centre_x", "centre_y")
"""Names of the numbers."""

SIDE = 128
"""Rows and columns of an image that are looked at, evenly distributed, along its shorter side."""


def image_statistics(pixels: npt.NDArray[Any]) -> dict[str, float]:
    """Compute brightness, sharpness and the position of the light in an image.

    Args:
        pixels: Image, shape (3, H, W), in [0, 1]; or shape (H, W, 3), uint8.

    Returns:
        ``brightness``, the mean value; ``sharpness``, the root mean square of the second differences of horizontal
        neighbours in units of that of the first ones, which neither light nor contrast changes, 0 in a uniform image;
        ``centre_x`` and ``centre_y``, the centre of the brightness as part of width and height.
    """
    is_bytes = pixels.dtype == np.uint8
    pixels = pixels.transpose(2, 0, 1) if is_bytes else pixels
    step = max(1, min(pixels.shape[-2:]) // SIDE)
    rows = pixels[:, ::step].mean(0) / (255 if is_bytes else 1)
    first, second = (float(np.square(np.diff(rows, order, axis=1)).sum()) for order in (1, 2))
    grid = rows[:, ::step]
    total = float(grid.sum()) or 1.0
    down, across = ((np.arange(side) + 0.5) / side for side in grid.shape)
    return {
        "brightness": float(grid.mean()),
        "sharpness": (second / first) ** 0.5 if first else 0.0,
        "centre_x": float(grid.sum(0) @ across) / total,
        "centre_y": float(grid.sum(1) @ down) / total,
    }
