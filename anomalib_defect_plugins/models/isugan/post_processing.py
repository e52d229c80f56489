"""Otsu's threshold for each image, as in the paper, but only in images whose score reaches the image threshold.

Otsu's method splits any image, so the mask of a normal image would contain its darkest grain. The image score therefore
decides first whether there is a defect.
"""

from typing import Any

import torch
from anomalib.data import Batch, InferenceBatch
from torch import Tensor

from anomalib_defect_plugins.post_processing import DefectPostProcessor, UnitPostProcessor


def otsu_threshold(values: Tensor) -> Tensor:
    """Otsu's threshold of each row, which maximises the variance between the values above and below it.

    Exact, without a histogram, and built from operators that ONNX and OpenVINO support.

    Args:
        values: Values, shape (B, N), N at least 2.

    Returns:
        Highest value of the lower class, shape (B,).
    """
    ordered = values.float().sort(dim=1).values
    centred = ordered - ordered.mean(1, keepdim=True)
    count = values.shape[1]
    below = torch.arange(1, count, device=values.device, dtype=ordered.dtype)
    # With a mean of 0, the variance between the classes is (sum of the lower)^2 / (n0 * n1), up to a constant factor.
    between = (centred.cumsum(1)[:, :-1] / count).square() / (below / count * (1 - below / count))
    return ordered.gather(1, between.argmax(1, keepdim=True))[:, 0]


def otsu_mask(anomaly_map: Tensor, defective: Tensor) -> Tensor:
    """Segment anomaly maps by Otsu's threshold.

    Args:
        anomaly_map: Anomaly maps, shape (B, ..., H, W).
        defective: Images with a defect, shape (B,), bool; the masks of the others are empty.

    Returns:
        Masks, shape (B, ..., H, W), bool.
    """
    ones = (-1, *[1] * (anomaly_map.dim() - 1))
    return (anomaly_map > otsu_threshold(anomaly_map.flatten(1)).reshape(ones)) & defective.bool().reshape(ones)


class OtsuOfImagePostProcessor(DefectPostProcessor):
    """anomalib's thresholds for images, and Otsu masks in defective images."""

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Post-process predictions, as in anomalib."""
        output = super().forward(predictions)
        if output.pred_label is None or predictions.anomaly_map is None:
            return output
        return output._replace(pred_mask=otsu_mask(predictions.anomaly_map, output.pred_label))

    def post_process_batch(self, batch: Batch[Any]) -> None:
        """Post-process a batch in place, as in anomalib."""
        anomaly_map = batch.anomaly_map
        super().post_process_batch(batch)
        if batch.pred_label is not None and anomaly_map is not None:
            batch.pred_mask = otsu_mask(anomaly_map, batch.pred_label)


class ImageOtsuPostProcessor(OtsuOfImagePostProcessor, UnitPostProcessor):
    """The same for maps and scores in [0, 1]."""
