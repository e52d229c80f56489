"""Example photos for users who have none at hand."""

import numpy as np
import numpy.typing as npt
from skimage import data

from anomalib_defect_plugins.generators import draw_defect

KINDS = ("crack", "hole", "scratch", "stain")
"""Defects that are drawn on the examples."""


def brick() -> npt.NDArray[np.uint8]:
    """Return one half of scikit-image's photo of a brick wall, which is CC0; shape (256, 256, 3), uint8."""
    return _brick_wall()[256:, :256]


def defective_brick() -> dict[str, npt.NDArray[np.uint8]]:
    """Return the other half without a defect (``normal``) and with one of each kind; shape (256, 256, 3), uint8."""
    normal = _brick_wall()[256:, 256:]
    drawn = {kind: draw_defect(normal / np.float32(255), kind, np.random.default_rng(1))[0] for kind in KINDS}
    return {kind: (255 * pixels).round().astype(np.uint8) for kind, pixels in drawn.items()} | {"normal": normal}


def _brick_wall() -> npt.NDArray[np.uint8]:
    grey: npt.NDArray[np.uint8] = data.brick()  # type: ignore[no-untyped-call]
    return np.repeat(grey[..., None], 3, axis=2)
