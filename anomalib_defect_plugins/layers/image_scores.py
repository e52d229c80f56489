"""Image scores computed from maps."""

from torch import Tensor


def top_mean(anomaly_map: Tensor, share: float) -> Tensor:
    """Return the mean of the highest pixels, which is more robust than the maximum to a single noisy pixel.

    Args:
        anomaly_map: Anomaly maps, shape (B, 1, H, W).
        share: Fraction of the pixels that are averaged, in (0, 1]; at least one pixel is.

    Returns:
        Scores, shape (B,), in the units of the maps.
    """
    count = max(1, int(share * anomaly_map.shape[-1] * anomaly_map.shape[-2]))
    return anomaly_map.flatten(1).topk(count, dim=1).values.mean(1)


def spread(distances: Tensor) -> Tensor:
    """Return the fourth root of the mean fourth power of the deviations from an image's mean.

    A small defect changes it more than the standard deviation, and a grainy image less than the maximum.

    Args:
        distances: Maps, shape (B, 1, H, W).

    Returns:
        Scores, shape (B,), in the units of the maps.
    """
    values = distances.flatten(1)
    squared = (values - values.mean(1, keepdim=True)).square()
    return squared.square().mean(1).sqrt().sqrt()
