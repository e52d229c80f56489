"""The supervision that a model needs during training."""

from enum import Enum


class Supervision(str, Enum):
    """Supervision regimes, ordered by labelling cost."""

    ONE_SHOT = "one-shot"
    """One normal image."""
    NORMAL = "normal"
    """Normal images only."""
    IMAGE_LABELS = "image-labels"
    """Normal and defective images with image labels."""
    PIXEL_MASKS = "pixel-masks"
    """Defective images with pixel masks."""
