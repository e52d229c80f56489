"""Photographs for those who have none at hand."""

import numpy as np
from skimage import data

from anomalib_defect_plugins.generators import draw_defect

KINDS = ("crack", "hole", "scratch", "stain")
"""Defects that are drawn on examples."""


def brick() -> np.ndarray:
    """Give one half of scikit-image's photograph of a brick wall, (256, 256, 3), uint8; it is CC0."""
    return np.repeat(data.brick()[256:, :256, None], 3, axis=2)


def defective_brick() -> dict[str, np.ndarray]:
    """Give the other half with a defect of each kind, and without, by kind; (256, 256, 3), uint8."""
    normal = np.repeat(data.brick()[256:, 256:, None], 3, axis=2)
    drawn = {kind: draw_defect(normal / np.float32(255), kind, np.random.default_rng(1))[0] for kind in KINDS}
    return {kind: (255 * pixels).round().astype(np.uint8) for kind, pixels in drawn.items()} | {"normal": normal}
