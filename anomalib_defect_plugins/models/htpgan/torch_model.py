"""HTP-GAN's networks: a pyramid of texture-perceiving GANs learned from one normal image.

Paper: Texture-perceiving generative adversarial network for one-shot surface inspection, ICASSP 2021,
https://arxiv.org/abs/2106.06792. Scale 0 is the coarsest here (the paper counts from the finest).
"""

from collections.abc import Sequence

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers import ConvBlock, FixedResize, TexturePerceivingModule
from anomalib_defect_plugins.models.htpgan.anomaly_map import ScaleAnomalyMap, fuse, image_score

MIN_STD = 1.5 / 255
"""Least standard deviation of an image in [0, 1] that counts as texture and not as noise of the camera."""


def pyramid_sizes(image_size: tuple[int, int], num_scales: int, min_size: int) -> list[tuple[int, int]]:
    """Give the image sizes of the pyramid, in equal ratios from the coarsest to the full size.

    Raises:
        InvalidInputError: Fewer than 2 scales or more than 12, or a coarsest scale that is too small or not smaller.

    Args:
        image_size: Height and width of the finest scale, in pixels.
        num_scales: Number of scales.
        min_size: Shorter side of the coarsest scale, in pixels.

    Returns:
        ``num_scales`` pairs of height and width, coarse to fine.
    """
    shorter = min(image_size)
    if not 2 <= num_scales <= 12:
        msg = f"num_scales is {num_scales}; HTP-GAN's pyramid has 2 to 12 scales"
        raise InvalidInputError(msg)
    if shorter <= 16:
        msg = f"image_size is {image_size}; a pyramid needs more than 16 pixels a side"
        raise InvalidInputError(msg)
    if not 16 <= min_size < shorter:
        msg = f"min_size is {min_size}; at an image size of {image_size} it must be 16 to {shorter - 1}"
        raise InvalidInputError(msg)
    ratios = [(min_size / shorter) ** (1 - n / (num_scales - 1)) for n in range(num_scales)]
    return [(round(image_size[0] * ratio), round(image_size[1] * ratio)) for ratio in ratios]


class Generator(nn.Module):
    """One scale's generator, eq. 1: the coarser image plus a residual made from it and noise.

    Args:
        width: Channels of the hidden layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(  # psi_n, section 2.1
            ConvBlock(3, width),
            *(ConvBlock(width, width) for _ in range(3)),
            nn.Conv2d(width, 3, 3, padding=1, padding_mode="reflect"),
            nn.Tanh(),
        )

    def forward(self, noise: Tensor, coarser: Tensor) -> Tensor:
        """Refine ``coarser``, the up-sampled image of the scale below.

        Args:
            noise: Noise map z_n, ``(B, 3, H, W)``.
            coarser: Image to refine, ``(B, 3, H, W)``, about [-1, 1]; zeros at the coarsest scale.

        Returns:
            The image of this scale, ``(B, 3, H, W)``.
        """
        return coarser + self.residual(noise + coarser)


class Discriminator(nn.Module):
    """One scale's discriminator: two conv-blocks f_n, the texture-perceiving module, and a head g_n (eq. 2, 3).

    The head has 1x1 kernels, so that a pixel is judged by the 7x7 around it: a wider view smears thin defects.

    Args:
        width: Channels of the hidden layers.
        size: Height and width of the images of this scale.
        texture_module: Whether the eight directional branches are there; without them (the paper's ablation)
            an ordinary block of as many channels takes their place.
        branch_width: Channels of each directional branch c_n.
    """

    def __init__(self, width: int, size: tuple[int, int], texture_module: bool = True, branch_width: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(ConvBlock(3, width), ConvBlock(width, width))
        self.texture = (
            TexturePerceivingModule(width, branch_width, size)
            if texture_module
            else ConvBlock(width, 8 * branch_width, slope=0.0)
        )
        self.head = nn.Sequential(ConvBlock(8 * branch_width, width, kernel_size=1), nn.Conv2d(width, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Judge each pixel's neighbourhood.

        Args:
            image: ``(B, 3, H, W)`` at this scale's size.

        Returns:
            Logits of the map M_n, ``(B, 1, H, W)``; its sigmoid is eq. 3. High is normal.
        """
        return self.head(self.texture(self.features(image)))


class HtpGanModel(nn.Module):
    """The whole pyramid. In inference the discriminators of all scales judge an image (eq. 4, 5).

    Args:
        image_size: Height and width of the images given to the model, in pixels.
        num_scales: Number of scales, 2 to 12 in the paper.
        min_size: Shorter side of the coarsest scale, in pixels.
        width: Channels of the hidden layers.
        texture_module: Whether the discriminators have the texture-perceiving module.
        fusion: What of each scale is fused; see ``ScaleAnomalyMap``.
        contrast: Standard deviation that each image is scaled to; the noise of eq. 1 has 1.

    Raises:
        InvalidInputError: A pyramid that cannot be.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        num_scales: int = 7,
        min_size: int = 32,
        width: int = 8,
        texture_module: bool = True,
        fusion: str = "typicality",
        contrast: float = 0.05,
    ) -> None:
        super().__init__()
        self.sizes = pyramid_sizes(image_size, num_scales, min_size)
        self.generators = nn.ModuleList(Generator(width) for _ in self.sizes)
        self.discriminators = nn.ModuleList(Discriminator(width, size, texture_module) for size in self.sizes)
        self.downsample = nn.ModuleList(FixedResize(image_size, size) for size in self.sizes)
        self.scale_maps = nn.ModuleList(ScaleAnomalyMap(fusion) for _ in self.sizes)
        self.fusion = fusion
        self.contrast = contrast

    def normalise(self, image: Tensor) -> Tensor:
        """Take away an image's own channel means and contrast, so that its exposure does not count.

        Args:
            image: ``(B, 3, H, W)``, float in [0, 1].

        Returns:
            ``(B, 3, H, W)``, zero mean in each channel and standard deviation ``contrast`` in each image; less in an
            image that is all but flat, whose noise is not blown up.
        """
        image = image - image.mean(dim=(-2, -1), keepdim=True)
        std = image.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return image * (self.contrast / std.clamp(min=MIN_STD))

    def at_scale(self, image: Tensor, scale: int) -> Tensor:
        """Give the normalised image at one scale, ``(B, 3, *sizes[scale])``, from one in [0, 1] at ``image_size``."""
        return self.downsample[scale](self.normalise(image))

    def generate(self, noises: Sequence[Tensor]) -> Tensor:
        """Make an image of scale ``len(noises) - 1`` from noise at each scale up to it (eq. 1).

        Only the last generator gets gradients: the coarser ones are trained already.

        Args:
            noises: One noise map ``(B, 3, H_n, W_n)`` a scale, coarse to fine.

        Returns:
            ``(B, 3, H, W)`` at the last noise map's size.
        """
        image = torch.zeros_like(noises[0])
        for n, (generator, noise) in enumerate(zip(self.generators, noises, strict=False)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and n == len(noises) - 1):
                image = functional.interpolate(image, noise.shape[-2:], mode="bicubic", align_corners=False)
                image = generator(noise, image)
        return image

    @torch.no_grad()
    def calibrate(self, scale: int, image: Tensor) -> None:
        """Take a trained scale's response to the normal image as what is typical.

        Args:
            scale: Which scale.
            image: The normal image ``(1, 3, H, W)``, float in [0, 1], at ``image_size``.
        """
        discriminator = self.discriminators[scale]
        training = discriminator.training
        self.scale_maps[scale].calibrate(discriminator.eval()(self.at_scale(image, scale)))
        discriminator.train(training)

    def forward(self, image: Tensor) -> InferenceBatch:
        """Find what is unlike the normal image.

        Args:
            image: ``(B, 3, H, W)``, float in [0, 1], at ``image_size``.

        Returns:
            ``anomaly_map`` ``(B, 1, H, W)``, the fused entropy maps, and ``pred_score`` ``(B,)``.
        """
        normalised = self.normalise(image)
        logits = [judge(resize(normalised)) for judge, resize in zip(self.discriminators, self.downsample, strict=True)]
        maps = [
            functional.interpolate(scale_map(x), image.shape[-2:], mode="bilinear", align_corners=False)
            for scale_map, x in zip(self.scale_maps, logits, strict=True)
        ]
        anomaly_map = fuse(maps, self.fusion)
        return InferenceBatch(pred_score=image_score(anomaly_map), anomaly_map=anomaly_map)
