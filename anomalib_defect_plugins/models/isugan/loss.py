"""The losses of ISU-GAN, eq. 8 to 11. Sums of the paper are means here, as in CycleGAN, whose weights are taken.

A sum over pixels would change its weight with the size of the images.
"""

from torch import Tensor

from anomalib_defect_plugins.models.isugan.similarity import ssim_map


def adversarial_loss(fake: Tensor) -> Tensor:
    """One generator's part of L_GAN_G, eq. 8: the discriminator's scores of its images, of any shape, should be 1."""
    return (fake - 1).square().mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """One discriminator's part of L_GAN_D, eq. 9: scores 1 for real images, 0 for fake ones.

    The equation prints the real image where its score D(p) is meant.
    """
    return (real - 1).square().mean() + fake.square().mean()


def difference(image: Tensor, other: Tensor, structural: bool, window_size: int = 9) -> Tensor:
    """A term of L_cycle and L_identity, eq. 10 and 11: 1 - SSIM in the first epochs, the mean absolute error later.

    Args:
        image: (B, C, H, W), in [-1, 1].
        other: The same.
        structural: Whether it is SSIM, which is taken of the images in [0, 1].
        window_size: Side of the SSIM window in pixels.
    """
    if structural:
        return 1 - ssim_map((image + 1) / 2, (other + 1) / 2, window_size).mean()
    return (image - other).abs().mean()
