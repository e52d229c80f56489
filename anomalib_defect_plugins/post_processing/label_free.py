"""Post-processors with thresholds that need no labels.

A threshold that is the score of a normal image or pixel is moved to the next higher number, because values at the
threshold are defective.
"""

import logging
from abc import ABC, abstractmethod
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from anomalib.data import Batch
from lightning import LightningModule, Trainer
from skimage.filters import threshold_otsu
from torch import Tensor
from torch.nn.functional import interpolate

from anomalib_defect_plugins.core.operating_points import check_share, normal_tolerance_limit
from anomalib_defect_plugins.layers.restricted_forward import values_inside
from anomalib_defect_plugins.post_processing.base import DefectPostProcessor, UnitPostProcessor, just_above

logger = logging.getLogger(__name__)

MIN_SEPARATION = 0.75
"""Part of the variance of all pixels between the two kinds, from which there are two: that of a uniform distribution;
of a normal one, it is 2 / pi."""

MAX_RARE_SHARE = 0.03
"""Share of pixels above the control limit up to which defects are rare; 0.6 % of a normal distribution are above it."""

CORNER = 0.75
"""Sides of the corner of a view, as a part of those of the image."""

INDEPENDENT_VIEWS = 3
"""Number of views of an image that count as independent, as they resemble each other more than other images do."""

CONFIDENCE = 0.97
"""Confidence level of the tolerance limit.

Both were set on test images of brick and leather-like ones. On images that took no part in that, other textures of
``TextureDefects`` and other leather-like images, none of 40 models flags a good one: ``docs/operating-points.md``.
"""


class _LabelFreePostProcessor(DefectPostProcessor):
    """Post-processor that ignores the ground truth; validation determines only the range of the scores.

    Attributes:
        needs_validation: Whether the thresholds need validation images.
        threshold_origin: What the thresholds come from, for reports.
    """

    needs_validation = True
    threshold_origin = "unlabelled images"

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: Batch[Any], *args: Any, **kwargs: Any
    ) -> None:
        """Update the range of the scores and maps."""
        del trainer, pl_module, args, kwargs
        if self.enable_normalization:
            self._image_min_max_metric.update(outputs)
            self._pixel_min_max_metric.update(outputs)


class _PooledPostProcessor(_LabelFreePostProcessor, ABC):
    """One threshold from the pooled anomaly maps of the validation images, without their labels.

    It applies to pixels and, as images are scored by their highest pixel, to images.
    """

    def __init__(self) -> None:
        super().__init__()
        self._maps: list[Tensor] = []

    @abstractmethod
    def choose_threshold(self, values: npt.NDArray[np.float32]) -> float:
        """Return the highest normal value for the pixels of all maps, shape (N,)."""

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: Batch[Any], *args: Any, **kwargs: Any
    ) -> None:
        """Collect the anomaly maps, and update the range."""
        super().on_validation_batch_end(trainer, pl_module, outputs, *args, **kwargs)
        values = values_inside(pl_module, cast(Tensor, outputs.anomaly_map).detach())
        self._maps.append(values.float().cpu())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the threshold."""
        super().on_validation_epoch_end(trainer, pl_module)
        if self._maps:
            threshold = self.choose_threshold(torch.cat(self._maps).numpy())
            self._pixel_threshold.copy_(just_above(torch.tensor(threshold)))
            self._maps.clear()


class OtsuPostProcessor(_PooledPostProcessor):
    """Otsu's threshold of the pooled anomaly maps, for defects that cover a considerable fraction of the pixels."""

    def choose_threshold(self, values: npt.NDArray[np.float32]) -> float:
        """Return Otsu's threshold, computed from a histogram of 1024 bins; warn if the pixels are not of two kinds."""
        threshold = float(threshold_otsu(values, nbins=1024))  # type: ignore[no-untyped-call]
        above = values > threshold
        share, variance = float(above.mean()), float(values.var(dtype=np.float64))
        if 0 < share < 1:
            distance = float(values[above].mean(dtype=np.float64) - values[~above].mean(dtype=np.float64))
            separation = share * (1 - share) * distance**2 / variance
            if separation < MIN_SEPARATION:
                logger.warning(
                    "otsu does not fit: the anomaly maps are not of two kinds (separation %.2f, less than %.2f), so "
                    "that the threshold divides normal pixels; use sigma or reference, or 'anomalib-defects threshold'",
                    *(separation, MIN_SEPARATION),
                )
        return threshold


class SigmaPostProcessor(_PooledPostProcessor):
    """Control limit of the pooled anomaly maps, in standard deviations above the mean, for rare defects.

    Args:
        sigmas: Number of standard deviations. 3 is usual in control charts; 2.5 was best on synthetic cracks.
    """

    def __init__(self, sigmas: float = 2.5) -> None:
        super().__init__()
        self.sigmas = sigmas

    def choose_threshold(self, values: npt.NDArray[np.float32]) -> float:
        """Return mean + sigmas * standard deviation; warn if too many pixels are above it for rare defects."""
        threshold = float(values.mean(dtype=np.float64) + self.sigmas * values.std(dtype=np.float64))
        share = float((values > threshold).mean())
        if share > MAX_RARE_SHARE:
            logger.warning(
                "sigma does not fit: %.1f %% of all pixels are above %g standard deviations, so that defects are not "
                "rare or the maps have a long tail; use otsu, or 'anomalib-defects threshold'",
                *(100 * share, self.sigmas),
            )
        return threshold


def unseen_views(image: Tensor) -> Tensor:
    """Return views of normal images that a model has not been trained on, and that show normal texture all the same.

    They are the enlarged corners of an image, three quarters of its sides, and its reflections and rotations.

    Args:
        image: Images, shape (B, 3, H, W).

    Returns:
        Views, shape (N, 3, H, W): nine of each square image, and seven of any other.
    """
    height, width = image.shape[-2:]
    down, across = (round(CORNER * side) for side in (height, width))
    corners = [
        image[..., top : top + down, left : left + across] for top in (0, height - down) for left in (0, width - across)
    ]
    enlarged = [interpolate(corner, (height, width), mode="bilinear", antialias=True) for corner in corners]
    turns = [image.flip(-1), image.flip(-2), image.flip(-1, -2)]
    turns += [image.rot90(quarters, (-2, -1)) for quarters in (1, 3) if height == width]
    return torch.cat([*enlarged, *turns])


class ReferencePostProcessor(_LabelFreePostProcessor):
    """Thresholds from the model's response to normal images; no other images are needed.

    The pixel threshold is just above a percentile of their maps, or the image threshold. The latter is the tolerance
    limit of the scores of views that the model was not trained on, see :func:`unseen_views`: the scores of training
    images are lower than those of any other normal image. Without validation images, scores are scaled so that the
    lowest normal pixel becomes 0 and the threshold 0.5.

    Args:
        percentile: Percentage of normal pixels below the threshold.
        false_alarm_rate: Maximum share of good images above the threshold, with 97 % confidence if their scores are
            distributed like those of the views. Views of one image resemble each other, so that they count as
            ``INDEPENDENT_VIEWS``.
    """

    needs_validation = False
    threshold_origin = "training images"

    def __init__(self, percentile: float = 99.8, false_alarm_rate: float = 0.05) -> None:
        check_share("false_alarm_rate", false_alarm_rate)
        super().__init__()
        self.percentile = percentile
        self.false_alarm_rate = false_alarm_rate

    def set_reference(
        self,
        anomaly_map: Tensor,
        pred_score: Tensor,
        unseen_score: Tensor | None = None,
        common_limit: bool = False,
    ) -> None:
        """Compute the thresholds from the response to normal images.

        Args:
            anomaly_map: Raw anomaly maps, or their values in the region of interest, any shape.
            pred_score: Raw scores, shape (B,).
            unseen_score: Raw scores of views that the model was not trained on, shape (N,), N at least 2. Without them,
                the image threshold is just above the highest score, and most unseen images may be above it.
            common_limit: Whether the image threshold is also the lowest pixel threshold, for scores that are the mean
                of few pixels: the percentile of the training images is too low for other images, which score higher.
        """
        flat = anomaly_map.detach().flatten()
        rank = max(1, min(flat.numel(), round(self.percentile / 100 * flat.numel())))
        self._pixel_threshold.copy_(just_above(flat.kthvalue(rank).values))
        self._image_threshold.copy_(just_above(pred_score.max(), flat.min()))
        if unseen_score is not None:
            scores = unseen_score.detach().double().cpu().numpy()
            limit = normal_tolerance_limit(
                scores, self.false_alarm_rate, CONFIDENCE, min(INDEPENDENT_VIEWS, len(scores))
            )
            self._image_threshold.clamp_(min=limit)
        if common_limit:
            self._pixel_threshold.clamp_(min=float(self._image_threshold))
        self.pixel_min.copy_(flat.min())
        self.pixel_max.copy_(2 * self._pixel_threshold - self.pixel_min)
        self.image_min.copy_(self.pixel_min)
        self.image_max.copy_(2 * self._image_threshold - self.image_min)


class FixedPostProcessor(_LabelFreePostProcessor, UnitPostProcessor):
    """Fixed thresholds for scores and maps in [0, 1].

    Args:
        image_threshold: Score from which an image is defective.
        pixel_threshold: Value of the anomaly map from which a pixel is defective.
    """

    needs_validation = False
    threshold_origin = "given"

    def __init__(self, image_threshold: float, pixel_threshold: float = 0.5) -> None:
        super().__init__()
        self._image_threshold.fill_(image_threshold)
        self._pixel_threshold.fill_(pixel_threshold)
        for lower, upper in ((self.image_min, self.image_max), (self.pixel_min, self.pixel_max)):
            lower.fill_(0)
            upper.fill_(1)
