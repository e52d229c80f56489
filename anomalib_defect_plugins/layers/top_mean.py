"""The score of an image from its anomaly map."""

from torch import Tensor


def top_mean(anomaly_map: Tensor, share: float) -> Tensor:
    """The mean of the highest pixels: steadier than the maximum, which one noisy pixel decides.

    Args:
        anomaly_map: (B, 1, H, W).
        share: Share of the pixels that count, in (0, 1]; one pixel does at least.

    Returns:
        (B,), in the units of the map.
    """
    count = max(1, int(share * anomaly_map.shape[-1] * anomaly_map.shape[-2]))
    return anomaly_map.flatten(1).topk(count, dim=1).values.mean(1)
