"""Image similarity: SSIM (eq. 4 to 7), as a loss and as an anomaly map, and the mean squared error (eq. 16).

The SSIM window is kornia's truncated Gaussian with a standard deviation of 1.5 pixels; the paper only states its side.
The last form of the paper's eq. 7 prints the product of the deviations where eq. 4 to 6 have the covariance, which is
used here.
"""

from kornia.metrics import ssim
from torch import Tensor


def ssim_map(image: Tensor, other: Tensor, window_size: int = 9) -> Tensor:
    """SSIM around each pixel, eq. 7, with reflected borders.

    Args:
        image: Images, shape (B, C, H, W), float in [0, 1].
        other: Images to compare with, same shape and range.
        window_size: Side of the window in pixels, odd.

    Returns:
        Similarity, shape (B, C, H, W), float32 in [-1, 1]; 1 where the images are equal.
    """
    return ssim(image.float(), other.float(), window_size, max_val=1.0, eps=0.0)


def anomaly_map_of(image: Tensor, repaired: Tensor, window_size: int = 9) -> Tensor:
    """Anomaly map of a repair: (1 - SSIM) / 2, averaged over channels; shape (B, 1, H, W), in [0, 1]."""
    similarity = ssim_map(image, repaired, window_size).mean(1, keepdim=True)
    return ((1 - similarity) / 2).clamp(0, 1)


def repair_error(image: Tensor, repaired: Tensor) -> Tensor:
    """Mean squared error of repairs, eq. 16; meaningful for normal images, which need no repair.

    Args:
        image: Images, shape (B, C, H, W), float in [0, 1].
        repaired: Repaired images, same shape and range.

    Returns:
        Error of each image, shape (B,), in squared grey levels of 0 to 255.
    """
    return (255 * (image - repaired)).square().flatten(1).mean(1)
