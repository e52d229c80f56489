"""What a model needs to see of defects while it trains."""

from enum import Enum


class Supervision(str, Enum):
    """The supervision regimes, from the cheapest to the dearest."""

    ONE_SHOT = "one-shot"
    """One normal image."""
    NORMAL = "normal"
    """Normal images only."""
    IMAGE_LABELS = "image-labels"
    """Normal and defective images, labelled as such."""
    PIXEL_MASKS = "pixel-masks"
    """Defective images with a mask of each defect."""
