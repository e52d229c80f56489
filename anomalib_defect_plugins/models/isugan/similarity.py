"""Similarity of images: SSIM, eq. 4 to 7, as a loss and as an anomaly map, and the mean squared error of eq. 16.

The SSIM window is kornia's, a Gaussian 1.5 pixels wide that is cut off at its side; the paper gives the side only. The
last form of its eq. 7 prints the product of the deviations where eq. 4 to 6 give the covariance; the covariance it is.
"""

from kornia.metrics import ssim
from torch import Tensor


def ssim_map(image: Tensor, other: Tensor, window_size: int = 9) -> Tensor:
    """SSIM around each pixel, eq. 7, with reflected borders.

    Args:
        image: (B, C, H, W), in [0, 1].
        other: The same.
        window_size: Side of the window in pixels, odd.

    Returns:
        (B, C, H, W), float32, in [-1, 1]; 1 where the images are alike.
    """
    return ssim(image.float(), other.float(), window_size, max_val=1.0, eps=0.0)


def anomaly_map_of(image: Tensor, repaired: Tensor, window_size: int = 9) -> Tensor:
    """What a repair changed: (1 - SSIM) / 2, the mean over channels; (B, 1, H, W), in [0, 1]."""
    similarity = ssim_map(image, repaired, window_size).mean(1, keepdim=True)
    return ((1 - similarity) / 2).clamp(0, 1)


def repair_error(image: Tensor, repaired: Tensor) -> Tensor:
    """Mean squared error of repairs, eq. 16, which is to be taken of normal images: they need none.

    Args:
        image: (B, C, H, W), in [0, 1].
        repaired: The same.

    Returns:
        (B,), in squares of grey levels from 0 to 255.
    """
    return (255 * (image - repaired)).square().flatten(1).mean(1)
