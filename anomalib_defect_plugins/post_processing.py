"""Thresholds that need no defective image, and no label at all."""

from abc import ABC, abstractmethod
from typing import Any, cast

import numpy as np
import torch
from anomalib.data import Batch
from anomalib.post_processing import PostProcessor
from kornia.morphology import opening
from lightning import LightningModule, Trainer
from skimage.filters import threshold_otsu
from torch import Tensor


class _LabelFreePostProcessor(PostProcessor):
    """A post-processor that never looks at ground truth; validation only tells it the range of the scores.

    Attributes:
        needs_validation: Whether there are no thresholds without validation images.
    """

    needs_validation = True

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: Batch[Any], *args: Any, **kwargs: Any
    ) -> None:
        """Update the range of scores and maps."""
        del trainer, pl_module, args, kwargs
        if self.enable_normalization:
            self._image_min_max_metric.update(outputs)
            self._pixel_min_max_metric.update(outputs)


class _PooledPostProcessor(_LabelFreePostProcessor, ABC):
    """One threshold from the pooled anomaly maps of the validation images, whose labels are not read.

    It serves pixels and, by the highest pixel, images.
    """

    def __init__(self) -> None:
        super().__init__()
        self._maps: list[Tensor] = []

    @abstractmethod
    def choose_threshold(self, values: np.ndarray) -> float:
        """Give the threshold for all pixels of all maps, ``(N,)``."""

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: Batch[Any], *args: Any, **kwargs: Any
    ) -> None:
        """Keep the anomaly maps, and update the range."""
        super().on_validation_batch_end(trainer, pl_module, outputs, *args, **kwargs)
        self._maps.append(cast(Tensor, outputs.anomaly_map).detach().flatten().float().cpu())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the threshold."""
        super().on_validation_epoch_end(trainer, pl_module)
        if self._maps:
            self._pixel_threshold.fill_(self.choose_threshold(torch.cat(self._maps).numpy()))
            self._maps.clear()


class OtsuPostProcessor(_PooledPostProcessor):
    """Otsu's threshold over the pooled anomaly maps: best where defects are a good share of all pixels."""

    def choose_threshold(self, values: np.ndarray) -> float:
        """Give Otsu's threshold, from a histogram of 1024 bins."""
        return float(threshold_otsu(values, nbins=1024))  # type: ignore[no-untyped-call]


class SigmaPostProcessor(_PooledPostProcessor):
    """A control limit over the pooled anomaly maps, so many standard deviations above the mean: for rare defects.

    Args:
        sigmas: How many. 3 is the usual limit of a control chart; 2.5 was best for HTP-GAN on synthetic cracks.
    """

    def __init__(self, sigmas: float = 2.5) -> None:
        super().__init__()
        self.sigmas = sigmas

    def choose_threshold(self, values: np.ndarray) -> float:
        """Give mean + sigmas * standard deviation."""
        return float(values.mean(dtype=np.float64) + self.sigmas * values.std(dtype=np.float64))


class ReferencePostProcessor(_LabelFreePostProcessor):
    """A threshold from the model's own response to normal images: no other image is needed.

    The pixel threshold is a percentile of their maps, the image threshold their highest score. Without validation
    images, scores are scaled so that the lowest normal pixel is 0 and the threshold 0.5.

    Args:
        percentile: Share of normal pixels under the threshold, in percent.
    """

    needs_validation = False

    def __init__(self, percentile: float = 99.8) -> None:
        super().__init__()
        self.percentile = percentile

    def set_reference(self, anomaly_map: Tensor, pred_score: Tensor) -> None:
        """Take the threshold from the response to normal images.

        Args:
            anomaly_map: ``(B, 1, H, W)``, raw.
            pred_score: ``(B,)``, raw.
        """
        flat = anomaly_map.detach().flatten()
        rank = max(1, min(flat.numel(), round(self.percentile / 100 * flat.numel())))
        self._pixel_threshold.copy_(flat.kthvalue(rank).values)
        self._image_threshold.copy_(pred_score.max())
        self.pixel_min.copy_(flat.min())
        self.pixel_max.copy_(2 * self._pixel_threshold - self.pixel_min)
        self.image_min.copy_(self.pixel_min)
        self.image_max.copy_(2 * self._image_threshold - self.image_min)


class UnitPostProcessor(PostProcessor):
    """anomalib's post-processor for scores and maps in [0, 1], of which it keeps the order.

    anomalib shifts the threshold to 0.5 and cuts off what leaves [0, 1]: below a high threshold, all that is but a
    little suspicious becomes 0, as what is normal does, and every figure that goes by ranks suffers. Here 0, the
    threshold and 1 become 0, 0.5 and 1, with a straight line from each to the next.
    """

    @staticmethod
    def _normalize(preds: Tensor | None, norm_min: Tensor, norm_max: Tensor, threshold: Tensor) -> Tensor | None:
        if preds is None:
            return None
        middle = torch.where(torch.isnan(threshold), 0.5, threshold).clamp(1e-6, 1 - 1e-6)
        normalized = 0.5 * torch.where(preds < middle, preds / middle, 1 + (preds - middle) / (1 - middle))
        validated = ~torch.isnan(norm_min) & ~torch.isnan(norm_max)
        return torch.where(validated, normalized, preds)


class FixedPostProcessor(_LabelFreePostProcessor, UnitPostProcessor):
    """Thresholds that no data changes, for scores and maps in [0, 1].

    Args:
        image_threshold: An image is defective above it in units of the score.
        pixel_threshold: A pixel is defective above it, in units of the anomaly map.
    """

    needs_validation = False

    def __init__(self, image_threshold: float, pixel_threshold: float = 0.5) -> None:
        super().__init__()
        self._image_threshold.fill_(image_threshold)
        self._pixel_threshold.fill_(pixel_threshold)
        for limit, value in (("min", 0), ("max", 1)):
            for name in ("image", "pixel"):
                getattr(self, f"{name}_{limit}").fill_(value)


class OpeningPostProcessor(UnitPostProcessor):
    """For scores and maps in [0, 1]; it takes specks out of the masks by a morphological opening.

    Exported graphs have no such step: their masks are those before it.

    Args:
        size: Side of the square that a speck must hold to stay, in pixels; 1 changes nothing.
    """

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.size = size

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, "size")

    def threshold_batch(self, batch: Batch[Any]) -> None:
        """Set labels and masks, and open the masks."""
        super().threshold_batch(batch)
        if self.size > 1 and batch.pred_mask is not None:
            mask = batch.pred_mask.float().reshape(-1, 1, *batch.pred_mask.shape[-2:])
            square = torch.ones(self.size, self.size, device=mask.device)
            batch.pred_mask = opening(mask, square).reshape(batch.pred_mask.shape) > 0
