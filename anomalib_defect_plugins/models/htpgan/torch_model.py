"""Networks of HTP-GAN: a pyramid of texture-perceiving GANs trained on one normal image.

Paper: Texture-perceiving generative adversarial network for one-shot surface inspection, ICASSP 2021,
https://arxiv.org/abs/2106.06792. Scale 0 is the coarsest here (the paper counts from the finest).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.layers import ConvBlock, FixedResize, TexturePerceivingModule, enlarge, top_mean
from anomalib_defect_plugins.models.htpgan.anomaly_map import ScaleAnomalyMap, fuse

MIN_STD = 1.5 / 255
"""Minimum standard deviation of an image in [0, 1] that counts as texture; below it is camera noise."""


def pyramid_sizes(image_size: Size, num_scales: int, min_size: int) -> list[Size]:
    """Compute the image sizes of the pyramid, in equal ratios from the coarsest to the full size.

    Args:
        image_size: Height and width of the finest scale, in pixels.
        num_scales: Number of scales, 2 to 12.
        min_size: Shorter side of the coarsest scale, in pixels, at least 16.

    Returns:
        ``num_scales`` pairs of height and width, coarse to fine.

    Raises:
        InvalidInputError: If the number of scales is out of range, or if the coarsest scale is too small or not
            smaller than the finest.
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
    """Generator of one scale, eq. 1: the coarser image plus a residual computed from it and noise.

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
        """Refine ``coarser``, the upsampled image of the next coarser scale.

        Args:
            noise: Noise map z_n, shape (B, 3, H, W).
            coarser: Image to refine, shape (B, 3, H, W), roughly in [-1, 1]; zeros at the coarsest scale.

        Returns:
            Image of this scale, shape (B, 3, H, W).
        """
        return coarser + cast(Tensor, self.residual(noise + coarser))


class Discriminator(nn.Module):
    """Discriminator of one scale: conv-blocks f_n, the texture-perceiving module, and a head g_n (eq. 2, 3).

    With two blocks and a head of 1x1 kernels, the receptive field is 7x7 pixels: a larger one blurs thin defects.

    Args:
        width: Channels of the hidden layers.
        size: Height and width of the images of this scale.
        texture_module: Whether to use the eight directional branches; without them (the paper's ablation) a plain
            block has the same number of channels.
        branch_width: Channels of each directional branch c_n.
        blocks: Number of conv-blocks f_n, at least 1.
        head_kernel: Side of the two kernels of the head, 1 or 3.
    """

    def __init__(
        self,
        width: int,
        size: Size,
        texture_module: bool = True,
        branch_width: int = 4,
        blocks: int = 2,
        head_kernel: int = 1,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(ConvBlock(3, width), *(ConvBlock(width, width) for _ in range(blocks - 1)))
        self.texture = (
            TexturePerceivingModule(width, branch_width, size)
            if texture_module
            else ConvBlock(width, 8 * branch_width, slope=0.0)
        )
        self.head = nn.Sequential(
            ConvBlock(8 * branch_width, width, kernel_size=head_kernel),
            nn.Conv2d(
                width, 1, head_kernel, padding=head_kernel // 2, padding_mode="reflect" if head_kernel > 1 else "zeros"
            ),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Classify the neighbourhood of each pixel as real or generated.

        Args:
            image: Normalised images, shape (B, 3, H, W), at the size of this scale.

        Returns:
            Logits of the map M_n, shape (B, 1, H, W); their sigmoid is eq. 3. High is normal.
        """
        return cast(Tensor, self.head(self.texture(self.features(image))))


class HtpGanModel(nn.Module):
    """The whole pyramid. Inference fuses the discriminators of all scales (eq. 4, 5).

    Args:
        image_size: Height and width of the input images, in pixels.
        num_scales: Number of scales, 2 to 12, as in the paper.
        min_size: Shorter side of the coarsest scale, in pixels, at least 16.
        width: Channels of the hidden layers.
        texture_module: Whether the discriminators have the texture-perceiving module.
        fusion: Quantity of each scale that is fused; see ``ScaleAnomalyMap``.
        contrast: Standard deviation that each image is scaled to; ``None`` leaves images as they are, in [-1, 1].
        discriminator_blocks: Number of conv-blocks f_n of a discriminator.
        head_kernel: Side of the kernels of a discriminator's head.
        score_share: Share of the highest pixels of an anomaly map whose mean is the score, in (0, 1].

    Attributes:
        noise_amplitudes: Standard deviation of the noise of each scale in eq. 1, shape (num_scales,).

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    noise_amplitudes: Tensor

    def __init__(
        self,
        image_size: Size = (256, 256),
        num_scales: int = 7,
        min_size: int = 32,
        width: int = 8,
        texture_module: bool = True,
        fusion: str = "typicality",
        contrast: float | None = 0.05,
        discriminator_blocks: int = 2,
        head_kernel: int = 1,
        score_share: float = 0.01,
    ) -> None:
        super().__init__()
        self.sizes = pyramid_sizes(image_size, num_scales, min_size)
        self.generators = nn.ModuleList(Generator(width) for _ in self.sizes)
        self.discriminators = nn.ModuleList(
            Discriminator(width, size, texture_module, blocks=discriminator_blocks, head_kernel=head_kernel)
            for size in self.sizes
        )
        self.downsample = nn.ModuleList(FixedResize(image_size, size) for size in self.sizes)
        self.scale_maps = nn.ModuleList(ScaleAnomalyMap(fusion) for _ in self.sizes)
        self.fusion = fusion
        self.contrast = contrast
        self.score_share = score_share
        self.register_buffer("noise_amplitudes", torch.ones(num_scales))
        self.register_load_state_dict_pre_hook(_add_unit_noise)  # type: ignore[no-untyped-call]

    def normalise(self, image: Tensor) -> Tensor:
        """Normalise the channel means and the contrast of each image, so that its exposure has no effect.

        Args:
            image: Images, shape (B, 3, H, W), float in [0, 1].

        Returns:
            Images, shape (B, 3, H, W), with zero mean in each channel and standard deviation ``contrast`` in each
            image; a lower one in an almost flat image, whose noise is not amplified.
        """
        if self.contrast is None:
            return 2 * image - 1
        image = image - image.mean(dim=(-2, -1), keepdim=True)
        std = image.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return image * (self.contrast / std.clamp(min=MIN_STD))

    def at_scale(self, image: Tensor, scale: int) -> Tensor:
        """Return images, shape (B, 3, H, W), float in [0, 1], normalised and resized to ``sizes[scale]``."""
        return cast(Tensor, self.downsample[scale](self.normalise(image)))

    def generate(self, noises: Sequence[Tensor], trained: int = 1) -> Tensor:
        """Generate images of scale ``len(noises) - 1`` from noise at each scale up to it (eq. 1).

        Args:
            noises: Noise maps, shape (B, 3, H_n, W_n), one for each scale, coarse to fine.
            trained: Number of generators that receive gradients, from the last one backwards; the coarser ones are
                already trained.

        Returns:
            Images, shape (B, 3, H, W), at the size of the last noise map.
        """
        image = torch.zeros_like(noises[0])
        for n, (generator, noise) in enumerate(zip(self.generators, noises, strict=False)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and n >= len(noises) - trained):
                image = generator(noise, upsample(image, noise))
        return image

    @torch.no_grad()
    def calibrate(self, scale: int, image: Tensor) -> None:
        """Calibrate a trained scale on its response to normal images.

        Args:
            scale: Index of the scale, 0 being the coarsest.
            image: Normal images, shape (B, 3, H, W), float in [0, 1], at ``image_size``.
        """
        discriminator, scale_map = self.discriminators[scale], cast(ScaleAnomalyMap, self.scale_maps[scale])
        training = discriminator.training
        scale_map.calibrate(discriminator.eval()(self.at_scale(image, scale)))
        discriminator.train(training)

    def forward(self, image: Tensor) -> InferenceBatch:
        """Detect what differs from the normal image.

        Args:
            image: Images, shape (B, 3, H, W), float in [0, 1], at ``image_size``.

        Returns:
            ``anomaly_map``, the fused maps, shape (B, 1, H, W), and ``pred_score``, shape (B,).
        """
        normalised = self.normalise(image)
        pairs = zip(self.discriminators, self.downsample, strict=True)
        logits = [discriminator(resize(normalised)) for discriminator, resize in pairs]
        maps = [scale_map(x) for scale_map, x in zip(self.scale_maps, logits, strict=True)]
        size = maps[-1].shape[-2:]
        maps = [*(enlarge(one, size) for one in maps[:-1]), maps[-1]]
        anomaly_map = fuse(maps, self.fusion)
        return InferenceBatch(pred_score=top_mean(anomaly_map, self.score_share), anomaly_map=anomaly_map)


def upsample(image: Tensor, like: Tensor) -> Tensor:
    """Return an image (B, C, h, w) at the size of another (..., H, W), the up-sampling of eq. 1."""
    return functional.interpolate(image, like.shape[-2:], mode="bicubic", align_corners=False)


def _add_unit_noise(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Complete the weights of checkpoints from before the noise had an amplitude."""
    state_dict.setdefault(f"{prefix}noise_amplitudes", torch.ones_like(cast(Tensor, module.noise_amplitudes)))
