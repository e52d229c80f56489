"""The networks of ISU-GAN: the generators, the discriminators, and inspection by the repairing generator.

Paper: Using ISU-GAN for unsupervised small sample defect detection, Scientific Reports 2022,
https://doi.org/10.1038/s41598-022-15855-7. Fig. 2 shows the generator; what it leaves open is said at each block.
"""

from itertools import pairwise

import torch
from anomalib.data import InferenceBatch
from timm.layers import SqueezeExcite
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.layers import Involution, top_mean
from anomalib_defect_plugins.models.isugan.similarity import anomaly_map_of

SE_REDUCTION = 16
"""alpha of Fig. 3, which the paper leaves open: that of the SE block's own paper."""


def initialised(conv: nn.Module) -> nn.Module:
    """Draw a convolution's weights as CycleGAN does: normal, 0.02 wide."""
    nn.init.normal_(conv.weight, 0, 0.02)
    return conv


def conv_block(conv: nn.Module, slope: float = 0.0) -> nn.Sequential:
    """A convolution without bias, instance norm, and ReLU, or LeakyReLU where a slope is given."""
    return nn.Sequential(initialised(conv), nn.InstanceNorm2d(conv.out_channels), nn.LeakyReLU(slope, inplace=True))


def down(in_channels: int, out_channels: int) -> nn.Sequential:
    """Halve the size by a 3x3 convolution.

    Beyond the border there is zero: by nothing else can a network with instance norms see how bright an image is.
    """
    return conv_block(nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False))


def up(in_channels: int, out_channels: int) -> nn.Sequential:
    """Double the size by a 4x4 transposed convolution; its map reaches a pixel beyond the border, mirrored.

    Without, pixels of the border are made of half as many as others, and come out too dark or too bright.
    """
    return nn.Sequential(
        nn.ReflectionPad2d(1), *conv_block(nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 3, bias=False))
    )


def squeeze_excite(channels: int, used: bool) -> nn.Module:
    """SE block, eq. 1 and 2, or nothing."""
    return SqueezeExcite(channels, rd_channels=max(1, channels // SE_REDUCTION)) if used else nn.Identity()


class ResidualBlock(nn.Module):
    """CycleGAN's: two 3x3 convolutions with reflected borders, and a shortcut.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False) for _ in range(2)]
        self.body = nn.Sequential(conv_block(convs[0]), initialised(convs[1]), nn.InstanceNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x + self.body(x)


class Skip(nn.Module):
    """Skip connection: the shallow map, rescaled by SE, joins the deep one; a 3x3 convolution restores the width.

    Args:
        channels: Channels of each of the two maps.
        squeeze_excitation: Whether the shallow map is rescaled.
    """

    def __init__(self, channels: int, squeeze_excitation: bool) -> None:
        super().__init__()
        self.scale = squeeze_excite(channels, squeeze_excitation)
        self.merge = conv_block(nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False, padding_mode="reflect"))

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """Merge (B, C, H, W) and a map that may lack a few rows or columns, where sides were odd."""
        bottom, right = (deep.shape[axis] - shallow.shape[axis] for axis in (-2, -1))
        shallow = self.scale(shallow)
        if bottom or right:
            shallow = functional.pad(shallow, (0, right, 0, bottom), mode="reflect")
        return self.merge(torch.cat([deep, shallow], 1))


class Generator(nn.Module):
    """Generator of Fig. 2; without skips, involution and SE it is the plain one of Table 3.

    Every convolution but the last (the paper's star) has a norm and ReLU; the last gives the image through tanh.
    Sides that are no multiple of 8 grow on the way up; shallow maps are padded to fit, and the image is cropped.

    Args:
        channels: Channels of the images.
        width: Channels after the first convolution; then twice and four times as many. A multiple of 4.
        residual_blocks: Residual blocks in the middle.
        skip: Whether the maps of ``width`` and ``2 * width`` channels have skip connections.
        involution: Whether there is an involution before and after the residual blocks.
        squeeze_excitation: Whether there are SE blocks: two in the middle, and one in each skip connection.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 64,
        residual_blocks: int = 9,
        skip: bool = True,
        involution: bool = True,
        squeeze_excitation: bool = True,
    ) -> None:
        super().__init__()
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
        self.last = nn.Sequential(nn.ReflectionPad2d(1), initialised(nn.ConvTranspose2d(width, channels, 4, 2, 3)))

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [-1, 1] to images of the same shape and range; sides of 16 or more."""
        first = self.down[0](image)
        second = self.down[1](first)
        x = self.middle(self.down[2](second))
        for number, shallow in enumerate((second, first)):
            x = self.up[number](x)
            x = self.skips[number](x, shallow) if len(self.skips) else x
        return self.last(x)[..., : image.shape[-2], : image.shape[-1]].tanh()


def make_discriminator(channels: int = 1, width: int = 64) -> nn.Sequential:
    """PatchGAN: (B, C, H, W) in [-1, 1] to scores (B, 1, H/8 - 1, W/8 - 1), 1 for real and 0 for fake.

    512 channels are reached in three steps that double, so they start at twice the generator's width. The last
    convolution has no norm: it would take the mean score, which the losses compare with 0 and 1, off every image.

    Args:
        channels: Channels of the images.
        width: Width of the generator.
    """
    widths = (channels, 2 * width, 4 * width, 8 * width)
    blocks = [conv_block(nn.Conv2d(one, two, 4, 2, 1, bias=False), slope=0.2) for one, two in pairwise(widths)]
    return nn.Sequential(*blocks, initialised(nn.Conv2d(widths[-1], 1, 4, 1, 1)))


class IsuGanModel(nn.Module):
    """Inspection: repair an image by G_n2p, and see by SSIM what was changed.

    Args:
        grey: Whether the network sees the first channel of the images only, or all three.
        width: As in :class:`Generator`.
        residual_blocks: As in :class:`Generator`.
        skip: As in :class:`Generator`.
        involution: As in :class:`Generator`.
        squeeze_excitation: As in :class:`Generator`.
        window_size: Side of the SSIM window in pixels, odd.
        score_share: Share of the pixels, the highest ones, whose mean is the image's score; in (0, 1].
    """

    def __init__(
        self,
        grey: bool = True,
        width: int = 64,
        residual_blocks: int = 9,
        skip: bool = True,
        involution: bool = True,
        squeeze_excitation: bool = True,
        window_size: int = 9,
        score_share: float = 0.001,
    ) -> None:
        super().__init__()
        self.channels = 1 if grey else 3
        self.generator = Generator(self.channels, width, residual_blocks, skip, involution, squeeze_excitation)
        self.window_size = window_size
        self.score_share = score_share

    def repair(self, image: Tensor) -> Tensor:
        """Give the repaired images G_n2p(x), (B, 1 or 3, H, W), of images (B, 3, H, W), both in [0, 1]."""
        repaired = self.generator(2 * image[:, : self.channels] - 1)
        return ((repaired + 1) / 2).to(image.dtype)  # of mixed precision, what numpy knows

    def inspect(self, image: Tensor) -> tuple[Tensor, InferenceBatch]:
        """Give the repaired images beside what :meth:`forward` gives."""
        repaired = self.repair(image)
        anomaly_map = anomaly_map_of(image[:, : self.channels], repaired, self.window_size)
        score = top_mean(anomaly_map, self.score_share)
        return repaired, InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

    def forward(self, image: Tensor) -> InferenceBatch:
        """Inspect images (B, 3, H, W) in [0, 1]: anomaly maps (B, 1, H, W) and scores (B,), both in [0, 1]."""
        return self.inspect(image)[1]
