"""Post-processor whose verdicts, masks and scores follow from one threshold of the anomaly map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from anomalib.data import Batch, InferenceBatch
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_positive
from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.regions import find_regions, region_score
from anomalib_defect_plugins.post_processing.base import DefectPostProcessor


class RegionPostProcessor(DefectPostProcessor):
    """Post-processor for defects of a minimum area: an image is defective exactly if its mask is not empty.

    The score of an image is the highest threshold at which it has a region of the minimum area, so that it belongs to
    the pixel threshold. Exported graphs contain the threshold, and a minimum area of 1.

    Args:
        min_area: Minimum area of a defect, in pixels of the anomaly map.
        **kwargs: Arguments of the base class.
    """

    def __init__(self, min_area: int = 1, **kwargs: Any) -> None:
        check_positive(min_area=min_area)
        super().__init__(**kwargs)
        self.min_area = min_area

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, "min_area")

    @property
    def image_threshold(self) -> Tensor:
        """Threshold of image scores, that of pixels."""
        return self.pixel_threshold

    @property
    def pixel_threshold(self) -> Tensor:
        """Threshold of pixels."""
        return torch.where(torch.isnan(self._pixel_threshold), self._image_threshold, self._pixel_threshold)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any) -> None:
        """Update thresholds and range with the scores of regions."""
        outputs.pred_score = self.scores(outputs.anomaly_map)
        super().on_validation_batch_end(trainer, pl_module, outputs, *args, **kwargs)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Use the threshold of image scores for pixels, because the labels of images are what it is chosen by."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._pixel_threshold.copy_(self._image_threshold)

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Threshold and normalise predictions; the score of an image is that of its highest region."""
        maps = _required(predictions.anomaly_map)
        if torch.compiler.is_compiling():
            return super().forward(predictions._replace(pred_score=maps.amax(dim=tuple(range(1, maps.dim())))))
        output = super().forward(predictions._replace(pred_score=self.scores(maps)))
        return output._replace(pred_mask=self.regions(maps))

    def post_process_batch(self, batch: Batch[Any]) -> None:
        """Threshold and normalise a batch in place."""
        maps = _required(batch.anomaly_map)
        batch.pred_score, batch.pred_mask = self.scores(maps), self.regions(maps)
        super().post_process_batch(batch)

    def scores(self, maps: Tensor) -> Tensor:
        """Return the scores of raw maps, shape (B, ..., H, W), as shape (B,)."""
        scores = [region_score(plane, plane.shape, self.min_area) for plane in _planes(maps)]
        return torch.tensor(scores, dtype=maps.dtype, device=maps.device)

    def regions(self, maps: Tensor) -> Tensor | None:
        """Return the masks of raw maps, shape (B, ..., H, W), with regions of the minimum area only."""
        threshold = float(self.pixel_threshold)
        if np.isnan(threshold):
            return None
        masks = [find_regions(plane, threshold, plane.shape, self.min_area)[0] for plane in _planes(maps)]
        return torch.from_numpy(np.stack(masks)).reshape(maps.shape).to(maps.device)


def _required(maps: Tensor | None) -> Tensor:
    if maps is None:
        msg = "RegionPostProcessor needs anomaly maps, and the model has none; use another post_processor"
        raise ConfigurationError(msg)
    return maps


def _planes(maps: Tensor) -> Sequence[Any]:
    """Return maps, shape (B, ..., H, W), as arrays of shape (H, W)."""
    return list(maps.detach().float().cpu().reshape(-1, *maps.shape[-2:]).numpy())
