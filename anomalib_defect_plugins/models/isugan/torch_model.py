"""The networks of ISU-GAN: generators, discriminators, and inspection by the repairing generator.

Paper: Using ISU-GAN for unsupervised small sample defect detection, Scientific Reports 2022,
https://doi.org/10.1038/s41598-022-15855-7. The generator is Fig. 2; each block documents the details that the paper
leaves open.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar, cast

import torch
from anomalib.data import InferenceBatch
from timm.layers.squeeze_excite import SqueezeExcite
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.layers import Encoder, Involution, NarrowTransposed, maps_at, top_mean
from anomalib_defect_plugins.layers.density import GaussianDensity, TextureDensity, TwoScaleDensity
from anomalib_defect_plugins.layers.nearest_center import NearestCenter
from anomalib_defect_plugins.models.components.fitted_density import DensityNetwork
from anomalib_defect_plugins.models.isugan.similarity import anomaly_map_of

SE_REDUCTION = 16
"""alpha of Fig. 3, which the paper leaves open; the value of the SE paper."""

MAP_BIAS = -3.0
"""Logit of the map of layers at the start of training: 5 % of each pixel is painted."""

STRIDES = (4, 8, 16, 32)
"""Strides of the encoder's maps: repairs are compared at the first three, and densities fitted to the last three."""

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


class IsuGanModel(DensityNetwork):
    """Inspection: repair an image with G_n2p and compare it with the repaired one.

    Without a backbone they are compared by SSIM, as in the paper. With one, the map is the sum of two distances to the
    normal training images: of the changes that repairs make to the backbone's features, and of the features themselves,
    which needs no repair.

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
        backbone: Name of a convolutional timm model, which stays frozen; ``None`` selects SSIM.
        pre_trained: Whether to load timm's weights into the backbone, or a file with them.
        repair_weight: Weight of the Mahalanobis distance of the difference that a repair makes.
        density_weight: Weight of the distances of the image's features to normal ones.

    Raises:
        InvalidInputError: If timm has no such model, or it has no feature map at one of the strides.
        MissingDataError: If the weights do not exist or cannot be downloaded.
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
        backbone: str | None = None,
        pre_trained: bool | str | Path = True,
        repair_weight: float = 0.0,
        density_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.channels = 1 if grey else 3
        self.generator = Generator(self.channels, width, residual_blocks, skip, involution, squeeze_excitation, layers)
        self.window_size = window_size
        self.score_share = score_share
        self.encoder = None if backbone is None else Encoder(backbone, pre_trained, maps_at(backbone, STRIDES), True)
        widths = [] if self.encoder is None else [feature_map.channels for feature_map in self.encoder.maps]
        self.repair_density = TextureDensity(widths[:3], at=0) if widths and repair_weight else None
        self.density = TwoScaleDensity(widths[1:]) if widths and density_weight else None
        self.repair_weight = repair_weight
        self.density_weight = density_weight

    def repair(self, image: Tensor) -> Tensor:
        """Repair images (B, 3, H, W) to G_n2p(x), (B, 1 or 3, H, W), both in [0, 1]."""
        repaired: Tensor = self.generator(2 * image[:, : self.channels] - 1)
        return ((repaired + 1) / 2).to(image.dtype)  # mixed precision may yield bfloat16, which numpy lacks

    def inspect(self, image: Tensor) -> tuple[Tensor, InferenceBatch]:
        """Return the repaired images and the output of :meth:`forward`."""
        repaired = self.repair(image)
        if self.encoder is None:
            anomaly_map = anomaly_map_of(image[:, : self.channels], repaired, self.window_size)
        else:
            anomaly_map = torch.stack(list(self.distances(image, repaired).values())).sum(0)
        score = top_mean(anomaly_map, self.score_share)
        return repaired, InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

    def distances(self, image: Tensor, repaired: Tensor) -> dict[str, Tensor]:
        """Compute the weighted parts of the anomaly map with a backbone, shape (B, 1, H, W) each.

        Args:
            image: Images, shape (B, 3, H, W), float in [0, 1].
            repaired: Repaired images, as in :meth:`repair`.
        """
        maps, size = self._maps(image[:, : self.channels]), image.shape[-2:]
        parts = {}
        if self.repair_density is not None:
            parts["repair"] = self.repair_weight * self.repair_density(self._changes(maps, repaired), size)
        if self.density is not None:
            parts["density"] = self.density_weight * self.density(maps[1:], size)
        return parts

    def forward(self, image: Tensor) -> InferenceBatch:
        """Inspect images (B, 3, H, W) in [0, 1]: anomaly maps (B, 1, H, W) and scores (B,); in [0, 1] with SSIM."""
        return self.inspect(image)[1]

    def densities(self) -> list[GaussianDensity | NearestCenter]:
        """Return the density of the differences that repairs make, and those of the features of images."""
        repairs = [] if self.repair_density is None else [self.repair_density.density]
        return repairs if self.density is None else [*repairs, *self.density.densities()]

    def normal_features(self, image: Tensor) -> list[Tensor]:
        """Compute the features (B, h, w, C) that the densities are fitted to."""
        if self.encoder is None:
            return []
        maps = self._maps(image[:, : self.channels])
        features: list[Tensor] = []
        if self.repair_density is not None:
            features.append(self.repair_density.describe(self._changes(maps, self.repair(image))))
        return features if self.density is None else [*features, *self.density.describe(maps[1:])]

    def _maps(self, image: Tensor) -> list[Tensor]:
        return cast(list[Tensor], cast(Encoder, self.encoder)(image))

    def _changes(self, maps: Sequence[Tensor], repaired: Tensor) -> list[Tensor]:
        """Return by how much the maps of images differ from those of the repaired ones, at the first three strides."""
        return [one - other for one, other in zip(maps[:3], self._maps(repaired)[:3], strict=True)]
