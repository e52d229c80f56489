"""The post-processor of all models: verdicts on raw scores at the threshold that was chosen."""

import logging
from typing import Any, cast

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.post_processing import PostProcessor
from kornia.morphology import opening
from lightning import LightningModule, Trainer
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from anomalib_defect_plugins.post_processing.normalization import normalize, reaches

logger = logging.getLogger(__name__)

DEFAULT_SENSITIVITY = 0.5
"""Sensitivity at which the threshold is the one that was chosen."""


MARGIN = 1e-3
"""Part of the range of normal values by which a threshold above them is higher than the highest one."""


def just_above(highest: Tensor, lowest: Tensor | None = None) -> Tensor:
    """Return a threshold in single precision that the highest normal value does not reach.

    Args:
        highest: Highest normal value, scalar.
        lowest: Lowest normal value; the threshold is higher by ``MARGIN`` of the range, so that rounding in another
            engine has no effect. By default it is the next higher number.
    """
    highest = highest.float()
    following = torch.nextafter(highest, torch.full_like(highest, torch.inf))
    return following if lowest is None else torch.maximum(following, highest + MARGIN * (highest - lowest.float()))


class AdaptiveThreshold(F1AdaptiveThreshold):
    """anomalib's search for the threshold with the highest F1 score.

    anomalib returns the lowest score that counts as anomalous. All values down to the next lower score have the same F1
    score; the middle is returned, so that rounding in another engine or batch has no effect. Without anomalous samples,
    the threshold is just above the highest normal score, as values at the threshold are anomalous.
    """

    def compute(self) -> Tensor:  # type: ignore[override]  # torchmetrics returns the curve
        """Return the threshold, a scalar; ``None`` if there were no labels, as in anomalib."""
        threshold: Tensor = super().compute()
        if len(self.target) == 0:  # a list, or a tensor after it was gathered from several processes
            return threshold
        values, threshold = dim_zero_cat(self.preds).float(), threshold.float()
        if not bool((dim_zero_cat(self.target) == 1).any()):
            return just_above(threshold, values.min())
        lower = values[values < threshold]
        if not lower.numel():
            return threshold
        middle = lower.max() + (threshold - lower.max()) / 2
        return torch.where(middle > lower.max(), middle, threshold)


class DefectPostProcessor(PostProcessor):
    """anomalib's post-processor with verdicts and normalisation that agree with the search for the threshold.

    A score or pixel at or above the threshold is defective, as in the search; anomalib 2.7 would require more, and
    thereby miss the weakest defect that the search counts. Raw values are compared, so that the rounding of the
    normalisation has no effect. Without a threshold there are no labels and masks.

    The normalisation maps the lowest validated value, the threshold and the highest one to about 0, 0.5 and 1, linearly
    in between, and preserves the order of all values; anomalib clips, which makes values equal.

    Args:
        **kwargs: Arguments of anomalib's post-processor. A sensitivity other than 0.5 moves the threshold of the
            normalised values to 1 - sensitivity.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._image_threshold_metric = AdaptiveThreshold(fields=["pred_score", "gt_label"], strict=False)
        self._pixel_threshold_metric = AdaptiveThreshold(fields=["anomaly_map", "gt_mask"], strict=False)

    @property
    def has_threshold(self) -> bool:
        """Whether there is a threshold, of images or of pixels; not to be used in an exported graph."""
        return not bool(torch.isnan(self.image_threshold) & torch.isnan(self.pixel_threshold))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn once if there are no thresholds."""
        del trainer
        if self.enable_thresholding and not self.has_threshold:
            logger.warning(
                "%s has no thresholds, because it was not validated after training: scores are raw, and labels, masks "
                "and their metrics, such as F1, are left out",
                pl_module.__class__.__name__,
            )

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Threshold and normalise predictions, as in anomalib."""
        scores, maps = predictions.pred_score, predictions.anomaly_map
        if scores is None:
            if maps is None:
                msg = "At least one of pred_score or anomaly_map must be provided."
                raise ValueError(msg)
            scores = maps.amax(dim=(-2, -1))
        return InferenceBatch(
            pred_label=self.label(scores) if self.enable_thresholding else None,
            pred_mask=self.mask(maps) if self.enable_thresholding else None,
            pred_score=self._normalized_scores(scores) if self.enable_normalization else scores,
            anomaly_map=self._normalized_maps(maps) if self.enable_normalization else maps,
        )

    def post_process_batch(self, batch: Batch[Any]) -> None:
        """Threshold and normalise a batch in place; thresholds apply to the raw values."""
        if self.enable_thresholding:
            self.threshold_batch(batch)
        if self.enable_normalization:
            self.normalize_batch(batch)

    def threshold_batch(self, batch: Batch[Any]) -> None:
        """Add the labels and masks that a batch with raw scores and maps lacks."""
        if batch.pred_label is None:
            batch.pred_label = self.label(batch.pred_score)
        if batch.pred_mask is None:
            batch.pred_mask = self.mask(batch.anomaly_map)

    def label(self, scores: Tensor | None) -> Tensor | None:
        """Return which raw scores, shape (B,), are defective; ``None`` without scores or threshold."""
        return self._verdict(scores, self.image_min, self.image_max, self.image_threshold, self.image_sensitivity)

    def mask(self, maps: Tensor | None) -> Tensor | None:
        """Return which pixels of raw maps, shape (B, ..., H, W), are defective; ``None`` without maps or threshold."""
        return self._verdict(maps, self.pixel_min, self.pixel_max, self.pixel_threshold, self.pixel_sensitivity)

    def _verdict(
        self, values: Tensor | None, low: Tensor, high: Tensor, threshold: Tensor, sensitivity: float
    ) -> Tensor | None:
        """Return which values are at or above the threshold, or at another sensitivity, the moved one."""
        if values is None or (not torch.compiler.is_compiling() and bool(torch.isnan(threshold))):
            return None
        is_defective = reaches(values, threshold)
        # Not normalised in vain: an exporter converts each operator before it drops it.
        if sensitivity == DEFAULT_SENSITIVITY:
            return is_defective
        normalized = cast(Tensor, self._normalize(values, low, high, threshold))
        is_scaled = torch.isfinite(low) & torch.isfinite(high)
        return torch.where(is_scaled, normalized >= 1 - sensitivity, is_defective)

    def _normalized_scores(self, scores: Tensor | None) -> Tensor | None:
        return self._normalize(scores, self.image_min, self.image_max, self.image_threshold)

    def _normalized_maps(self, maps: Tensor | None) -> Tensor | None:
        return self._normalize(maps, self.pixel_min, self.pixel_max, self.pixel_threshold)

    @staticmethod
    def _normalize(preds: Tensor | None, norm_min: Tensor, norm_max: Tensor, threshold: Tensor) -> Tensor | None:
        """Normalise values; they are unchanged if the range was not validated."""
        if preds is None:
            return None
        is_scaled = ~torch.isnan(norm_min) & ~torch.isnan(norm_max)
        return torch.where(is_scaled, normalize(preds, norm_min, norm_max, threshold), preds)


class UnitPostProcessor(DefectPostProcessor):
    """Post-processor for scores and maps in [0, 1]: 0, the threshold and 1 are mapped to 0, 0.5 and 1."""

    @staticmethod
    def _normalize(preds: Tensor | None, norm_min: Tensor, norm_max: Tensor, threshold: Tensor) -> Tensor | None:
        if preds is None:
            return None
        is_scaled = ~torch.isnan(norm_min) & ~torch.isnan(norm_max)
        zero, one = torch.zeros_like(threshold), torch.ones_like(threshold)
        return torch.where(is_scaled, normalize(preds, zero, one, threshold, tail=0), preds)


class OpeningPostProcessor(DefectPostProcessor):
    """Post-processor that removes specks from masks by morphological opening.

    Exported graphs do not include the opening.

    Args:
        size: Side in pixels of the smallest square that is kept; 1 disables the opening.
    """

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.size = size

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, "size")

    def threshold_batch(self, batch: Batch[Any]) -> None:
        """Compute labels and masks, and open the masks."""
        super().threshold_batch(batch)
        if self.size > 1 and batch.pred_mask is not None:
            mask = batch.pred_mask.float().reshape(-1, 1, *batch.pred_mask.shape[-2:])
            square = torch.ones(self.size, self.size, device=mask.device)
            batch.pred_mask = opening(mask, square).reshape(batch.pred_mask.shape) > 0


class UnitOpeningPostProcessor(OpeningPostProcessor, UnitPostProcessor):
    """The same for scores and maps in [0, 1]."""
