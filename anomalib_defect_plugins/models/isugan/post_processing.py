"""Otsu's threshold for each image on its own, which is the paper's, for images that are decided to be defective.

Otsu's method splits whatever it is given, so the mask of a normal image would hold its darkest grain. Whether there is
a defect at all is therefore decided by the score of the image.
"""

import torch
from anomalib.data import Batch, InferenceBatch
from torch import Tensor

from anomalib_defect_plugins.post_processing import UnitPostProcessor


def otsu_threshold(values: Tensor) -> Tensor:
    """Otsu's threshold of each row: the value above which lies the class that differs most from the rest.

    Exact, without a histogram, and of operators that graphs of ONNX and OpenVINO have.

    Args:
        values: (B, N), N at least 2.

    Returns:
        (B,): the highest value of the lower class.
    """
    ordered = values.float().sort(dim=1).values
    centred = ordered - ordered.mean(1, keepdim=True)
    count = values.shape[1]
    below = torch.arange(1, count, device=values.device, dtype=ordered.dtype)
    # With a mean of 0, the variance between the classes is (sum of the lower)^2 / (n0 * n1), but for a factor.
    between = (centred.cumsum(1)[:, :-1] / count).square() / (below / count * (1 - below / count))
    return ordered.gather(1, between.argmax(1, keepdim=True))[:, 0]


def otsu_mask(anomaly_map: Tensor, defective: Tensor) -> Tensor:
    """Segment anomaly maps (B, ..., H, W); images that are not ``defective``, (B,), bool, have empty masks."""
    ones = (-1, *[1] * (anomaly_map.dim() - 1))
    return (anomaly_map > otsu_threshold(anomaly_map.flatten(1)).reshape(ones)) & defective.bool().reshape(ones)


class ImageOtsuPostProcessor(UnitPostProcessor):
    """anomalib's thresholds for images and scores in [0, 1], and a mask by Otsu in the images above the threshold."""

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Post-process predictions, as in anomalib."""
        output = super().forward(predictions)
        if output.pred_label is None:
            return output
        return output._replace(pred_mask=otsu_mask(predictions.anomaly_map, output.pred_label))

    def post_process_batch(self, batch: Batch) -> None:
        """Post-process a batch in place, as in anomalib."""
        raw = batch.anomaly_map
        super().post_process_batch(batch)
        if batch.pred_label is not None:
            batch.pred_mask = otsu_mask(raw, batch.pred_label)
