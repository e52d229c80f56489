"""Post-processors with thresholds that need no labels.

A threshold that is the score of a normal image or pixel is moved to the next higher number, because values at the
threshold are defective.
"""

from abc import ABC, abstractmethod
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from anomalib.data import Batch
from lightning import LightningModule, Trainer
from skimage.filters import threshold_otsu
from torch import Tensor

from anomalib_defect_plugins.layers.restricted_forward import values_inside
from anomalib_defect_plugins.post_processing.base import DefectPostProcessor, UnitPostProcessor, just_above


class _LabelFreePostProcessor(DefectPostProcessor):
    """Post-processor that ignores the ground truth; validation determines only the range of the scores.

    Attributes:
        needs_validation: Whether the thresholds need validation images.
    """

    needs_validation = True

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
        """Return Otsu's threshold, computed from a histogram of 1024 bins."""
        return float(threshold_otsu(values, nbins=1024))  # type: ignore[no-untyped-call]


class SigmaPostProcessor(_PooledPostProcessor):
    """Control limit of the pooled anomaly maps, in standard deviations above the mean, for rare defects.

    Args:
        sigmas: Number of standard deviations. 3 is usual in control charts; 2.5 was best on synthetic cracks.
    """

    def __init__(self, sigmas: float = 2.5) -> None:
        super().__init__()
        self.sigmas = sigmas

    def choose_threshold(self, values: npt.NDArray[np.float32]) -> float:
        """Return mean + sigmas * standard deviation."""
        return float(values.mean(dtype=np.float64) + self.sigmas * values.std(dtype=np.float64))


class ReferencePostProcessor(_LabelFreePostProcessor):
    """Thresholds from the model's response to normal images; no other images are needed.

    The pixel threshold is just above a percentile of their maps, the image threshold just above their highest score.
    Without validation images, scores are scaled so that the lowest normal pixel becomes 0 and the threshold 0.5.

    Args:
        percentile: Percentage of normal pixels below the threshold.
    """

    needs_validation = False

    def __init__(self, percentile: float = 99.8) -> None:
        super().__init__()
        self.percentile = percentile

    def set_reference(self, anomaly_map: Tensor, pred_score: Tensor) -> None:
        """Compute the thresholds from the response to normal images.

        Args:
            anomaly_map: Raw anomaly maps, or their values in the region of interest, any shape.
            pred_score: Raw scores, shape (B,).
        """
        flat = anomaly_map.detach().flatten()
        rank = max(1, min(flat.numel(), round(self.percentile / 100 * flat.numel())))
        self._pixel_threshold.copy_(just_above(flat.kthvalue(rank).values))
        self._image_threshold.copy_(just_above(pred_score.max(), flat.min()))
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

    def __init__(self, image_threshold: float, pixel_threshold: float = 0.5) -> None:
        super().__init__()
        self._image_threshold.fill_(image_threshold)
        self._pixel_threshold.fill_(pixel_threshold)
        for lower, upper in ((self.image_min, self.image_max), (self.pixel_min, self.pixel_max)):
            lower.fill_(0)
            upper.fill_(1)
