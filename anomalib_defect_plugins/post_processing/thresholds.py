"""Thresholds of a trained model, replaced without training."""

import math

import torch
from anomalib.post_processing import PostProcessor
from torch import Tensor, nn

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.post_processing.base import DEFAULT_SENSITIVITY, DefectPostProcessor

KINDS = ("image", "pixel")
"""Kinds of thresholds."""


def set_thresholds(
    post_processor: nn.Module | None,
    image: float | None = None,
    pixel: float | None = None,
    value_range: tuple[float, float] | None = None,
) -> None:
    """Replace the thresholds of a post-processor, anomalib's own included.

    The sensitivities become 0.5, at which the thresholds apply as they are. A range of scores that was never validated
    becomes ``value_range``, because anomalib's post-processor compares values with the threshold only after it has
    normalised them.

    Args:
        post_processor: Post-processor of a model.
        image: Raw score from which an image is defective; ``None`` keeps the threshold.
        pixel: Value of the raw anomaly map from which a pixel is defective; ``None`` keeps the threshold.
        value_range: Lowest and highest raw value to normalise by where none were validated; by default the threshold
            is in the middle of a range of twice its size.

    Raises:
        ConfigurationError: If the model has no post-processor of anomalib.
        InvalidInputError: If a threshold is not finite.
    """
    if not isinstance(post_processor, PostProcessor):
        msg = "the model has no post-processor with thresholds; train it with post_processor=True"
        raise ConfigurationError(msg)
    for kind, threshold in zip(KINDS, (image, pixel), strict=True):
        if threshold is not None:
            if not math.isfinite(threshold):
                msg = f"the {kind} threshold is {threshold}; it must be a finite number"
                raise InvalidInputError(msg)
            getattr(post_processor, f"_{kind}_threshold").fill_(threshold)
            setattr(post_processor, f"{kind}_sensitivity", DEFAULT_SENSITIVITY)
    post_processor.enable_thresholding = True
    for kind in KINDS:
        _complete(post_processor, kind, value_range)


def _complete(post_processor: PostProcessor, kind: str, value_range: tuple[float, float] | None) -> None:
    """Determine what anomalib's comparison needs besides the threshold."""
    threshold: Tensor = getattr(post_processor, f"{kind}_threshold")
    if torch.isnan(threshold):
        return
    if not post_processor.enable_normalization:
        if not isinstance(post_processor, DefectPostProcessor):
            # Without normalisation, anomalib compares raw values with 1 - sensitivity.
            setattr(post_processor, f"{kind}_sensitivity", 1 - float(threshold))
        return
    low, high = (getattr(post_processor, f"{kind}_{end}") for end in ("min", "max"))
    if bool(torch.isnan(low) | torch.isnan(high)):
        unit = float(threshold.abs()) or 1.0
        start, end = value_range or (float(threshold) - unit, float(threshold) + unit)
        low.fill_(start)
        high.fill_(end)
