"""The networks of ISU-GAN: generators, discriminators, and inspection by the repairing generator.

Paper: Using ISU-GAN for unsupervised small sample defect detection, Scientific Reports 2022,
https://doi.org/10.1038/s41598-022-15855-7. The generator is Fig. 2; each block documents the details that the paper
leaves open.
"""

from itertools import pairwise
from typing import TypeVar, cast

import torch
from anomalib.data import InferenceBatch
from timm.layers.squeeze_excite import SqueezeExcite
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.layers import Involution, NarrowTransposed, top_mean
from anomalib_defect_plugins.models.isugan.similarity import anomaly_map_of

SE_REDUCTION = 16
"""alpha of Fig. 3, which the paper leaves open; the value of the SE paper."""

MAP_BIAS = -3.0
"""Logit of the map of layers at the start of training: 5 % of each pixel is painted."""

Conv = TypeVar("Conv", bound=nn.Conv2d | nn.ConvTranspose2d)


def initialised(conv: Conv) -> Conv:
    """Initialise a convolution as CycleGAN does: weights from N(0, 0.02)."""
    nn.init.normal_(conv.weight, 0, 0.02)
    return conv


def conv_block(conv: nn.Conv2d | nn.ConvTranspose2d, slope: float = 0.0) -> nn.Sequential:
    """Append instance norm and LeakyReLU (ReLU with ``slope`` 0) to a convolution without bias."""
    return nn.Sequential(initialised(conv), nn.InstanceNorm2d(conv.out_channels), nn.LeakyReLU(slope, inplace=True))


def down(in_channels: int, out_channels: int) -> nn.Sequential:
    """Halve the size by a 3x3 convolution with zero padding.

    The zeros are the only reference by which a network with instance norms can tell the brightness of an image.
    """
    return conv_block(nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False))


def up(in_channels: int, out_channels: int) -> nn.Sequential:
    """Double the size by a 4x4 transposed convolution with a reflected border of one pixel.

    Without it, border pixels are computed from half as many inputs as the others, and become too dark or too bright.
    """
    return nn.Sequential(
        nn.ReflectionPad2d(1), *conv_block(nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 3, bias=False))
    )


def squeeze_excite(channels: int, used: bool) -> nn.Module:
    """SE block, eq. 1 and 2, or the identity."""
    return SqueezeExcite(channels, rd_channels=max(1, channels // SE_REDUCTION)) if used else nn.Identity()


class ResidualBlock(nn.Module):
    """Residual block of CycleGAN: two 3x3 convolutions with reflected borders and a shortcut.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False) for _ in range(2)]
        self.body = nn.Sequential(conv_block(convs[0]), initialised(convs[1]), nn.InstanceNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        residual: Tensor = self.body(x)
        return x + residual


class Skip(nn.Module):
    """Skip connection: concatenation of the deep map and the SE-scaled shallow one, reduced by a 3x3 convolution.

    Args:
        channels: Channels of each of the two maps.
        squeeze_excitation: Whether the shallow map passes through an SE block.
    """

    def __init__(self, channels: int, squeeze_excitation: bool) -> None:
        super().__init__()
        self.scale = squeeze_excite(channels, squeeze_excitation)
        self.merge = conv_block(nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False, padding_mode="reflect"))

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """Merge two maps (B, C, H, W); the shallow one may lack rows or columns where sides were odd."""
        bottom, right = (deep.shape[axis] - shallow.shape[axis] for axis in (-2, -1))
        shallow = self.scale(shallow)
        if bottom or right:
            shallow = functional.pad(shallow, (0, right, 0, bottom), mode="reflect")
        return cast(Tensor, self.merge(torch.cat([deep, shallow], 1)))


class Generator(nn.Module):
    """Generator of Fig. 2; without skips, involution and SE the plain generator of Table 3.

    Every convolution but the last (starred in the paper) is followed by a norm and ReLU, the last one by tanh. Sides
    that are not multiples of 8 grow on the way up; shallow maps are padded to fit, and the output is cropped.

    Args:
        channels: Channels of the images.
        width: Channels after the first convolution, a multiple of 4; the next two have twice and four times as many.
        residual_blocks: Residual blocks in the middle.
        skip: Whether the maps of ``width`` and ``2 * width`` channels have skip connections.
        involution: Whether there is an involution before and after the residual blocks.
        squeeze_excitation: Whether there are SE blocks: two in the middle, and one in each skip connection.
        layers: Whether the output is composed of the image and a foreground f by a map m in [0, 1], x (1 - m) + f m, as
            in Fixed-Point GAN (https://arxiv.org/abs/1908.06965), instead of painted as a whole.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 64,
        residual_blocks: int = 9,
        skip: bool = True,
        involution: bool = True,
        squeeze_excitation: bool = True,
        layers: bool = False,
    ) -> None:
        super().__init__()
        self.layers = layers
        deep = 4 * width
        self.down = nn.ModuleList([down(channels, width), down(width, 2 * width), down(2 * width, deep)])
        self.middle = nn.Sequential(
            squeeze_excite(deep, squeeze_excitation),
            Involution(deep) if involution else nn.Identity(),
            *(ResidualBlock(deep) for _ in range(residual_blocks)),
            Involution(deep) if involution else nn.Identity(),
            squeeze_excite(deep, squeeze_excitation),
        )
        self.up = nn.ModuleList([up(deep, 2 * width), up(2 * width, width)])
        self.skips = nn.ModuleList([Skip(part, squeeze_excitation) for part in (2 * width, width) if skip])
        last = initialised(NarrowTransposed(width, channels + layers, 4, 2, 3))
        if layers:
            nn.init.constant_(cast(Tensor, last.bias)[-1:], MAP_BIAS)
        self.last = nn.Sequential(nn.ReflectionPad2d(1), last)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [-1, 1], sides of 16 or more, to images of the same shape and range."""
        first = self.down[0](image)
        second = self.down[1](first)
        x = self.middle(self.down[2](second))
        for number, shallow in enumerate((second, first)):
            x = self.up[number](x)
            x = self.skips[number](x, shallow) if len(self.skips) else x
        output: Tensor = self.last(x)[..., : image.shape[-2], : image.shape[-1]]
        if not self.layers:
            return output.tanh()
        opacity = output[:, -1:].sigmoid()
        return image * (1 - opacity) + output[:, :-1].tanh() * opacity


def make_discriminator(channels: int = 1, width: int = 64) -> nn.Sequential:
    """PatchGAN that maps (B, C, H, W) in [-1, 1] to scores (B, 1, H/8 - 1, W/8 - 1), 1 for real and 0 for fake.

    The paper's 512 channels are reached by doubling twice, so the first layer has twice the generator's width. The last
    convolution has no norm, which would remove each image's mean score, and the losses compare scores with 0 and 1.

    Args:
        channels: Channels of the images.
        width: Width of the generator.
    """
    widths = (channels, 2 * width, 4 * width, 8 * width)
    blocks = [conv_block(nn.Conv2d(one, two, 4, 2, 1, bias=False), slope=0.2) for one, two in pairwise(widths)]
    return nn.Sequential(*blocks, initialised(nn.Conv2d(widths[-1], 1, 4, 1, 1)))


class IsuGanModel(nn.Module):
    """Inspection: repair an image with G_n2p and compare it with the repaired one by SSIM.

    Args:
        grey: Whether the network uses only the first channel of the images, or all three.
        width: As in :class:`Generator`.
        residual_blocks: As in :class:`Generator`.
        skip: As in :class:`Generator`.
        involution: As in :class:`Generator`.
        squeeze_excitation: As in :class:`Generator`.
        layers: As in :class:`Generator`.
        window_size: Side of the SSIM window in pixels, odd.
        score_share: Fraction of highest pixels whose mean is the image score, in (0, 1].
    """

    def __init__(
        self,
        grey: bool = True,
        width: int = 64,
        residual_blocks: int = 9,
        skip: bool = True,
        involution: bool = True,
        squeeze_excitation: bool = True,
        layers: bool = False,
        window_size: int = 9,
        score_share: float = 0.001,
    ) -> None:
        super().__init__()
        self.channels = 1 if grey else 3
        self.generator = Generator(self.channels, width, residual_blocks, skip, involution, squeeze_excitation, layers)
        self.window_size = window_size
        self.score_share = score_share

    def repair(self, image: Tensor) -> Tensor:
        """Repair images (B, 3, H, W) to G_n2p(x), (B, 1 or 3, H, W), both in [0, 1]."""
        repaired: Tensor = self.generator(2 * image[:, : self.channels] - 1)
        return ((repaired + 1) / 2).to(image.dtype)  # mixed precision may yield bfloat16, which numpy lacks

    def inspect(self, image: Tensor) -> tuple[Tensor, InferenceBatch]:
        """Return the repaired images and the output of :meth:`forward`."""
        repaired = self.repair(image)
        anomaly_map = anomaly_map_of(image[:, : self.channels], repaired, self.window_size)
        score = top_mean(anomaly_map, self.score_share)
        return repaired, InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

    def forward(self, image: Tensor) -> InferenceBatch:
        """Inspect images (B, 3, H, W) in [0, 1]: anomaly maps (B, 1, H, W) and scores (B,), both in [0, 1]."""
        return self.inspect(image)[1]
