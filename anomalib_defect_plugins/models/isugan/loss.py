"""The losses of ISU-GAN, eq. 8 to 11.

The paper's sums are means here, as in CycleGAN, whose weights are used: the weight of a sum over pixels would change
with the image size.
"""

from torch import Tensor

from anomalib_defect_plugins.models.isugan.similarity import ssim_map


def adversarial_loss(fake: Tensor) -> Tensor:
    """Generator term of L_GAN_G, eq. 8: the discriminator's scores of its images, of any shape, should be 1."""
    return (fake - 1).square().mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Discriminator term of L_GAN_D, eq. 9: scores should be 1 for real images and 0 for fake ones.

    The equation prints the real image where its score D(p) is meant.
    """
    return (real - 1).square().mean() + fake.square().mean()


def difference(image: Tensor, other: Tensor, structural: bool, window_size: int = 9) -> Tensor:
    """Term of L_cycle and L_identity, eq. 10 and 11: 1 - SSIM in the first epochs, then the mean absolute error.

    Args:
        image: Images, shape (B, C, H, W), float in [-1, 1].
        other: Images to compare with, same shape and range.
        structural: Whether to use SSIM, which is computed on the images scaled to [0, 1].
        window_size: Side of the SSIM window in pixels.
    """
    if structural:
        return 1 - ssim_map((image + 1) / 2, (other + 1) / 2, window_size).mean()
    return (image - other).abs().mean()
