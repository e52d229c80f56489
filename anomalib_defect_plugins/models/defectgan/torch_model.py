"""The networks of Defect-GAN: one generator for both directions, the discriminator, and inspection by restoration.

Paper: Defect-GAN: high-fidelity defect synthesis for automated defect inspection, WACV 2021,
https://arxiv.org/abs/2103.15158. It "mainly follows" StarGAN (https://arxiv.org/abs/1711.09020, appendix), which fills
in the details that the paper leaves open: with all four of the paper's components off, these are StarGAN's networks.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from anomalib_defect_plugins.layers import Moments, NoiseInjection, Spade, at_size, blend, moments_of, top_mean

MAX_LAYERS = 6
"""Number of layers of StarGAN's discriminator, for images of 128x128 pixels."""

PaddingMode = Literal["zeros", "reflect"]


class Synthesized(NamedTuple):
    """Output of the generator."""

    images: Tensor
    """Images, shape (B, 3, H, W), in the range of the input images."""
    maps: Tensor
    """Spatial distribution maps m of eq. 2 and 4, shape (B, 1, H, W), in [0, 1]: opacity of the foreground."""


class Block(nn.Module):
    """Convolutional block: convolution, norm, ReLU, noise.

    Args:
        conv: Convolution.
        channels: Output channels of the convolution.
        control_channels: Channels of the control map of SPADE; 0 selects a plain instance norm.
        hidden: Hidden channels of SPADE.
        noise: Whether to add noise.
        relu: Whether to apply a ReLU.
    """

    def __init__(
        self, conv: nn.Module, channels: int, control_channels: int, hidden: int, noise: bool, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm = (
            Spade(channels, control_channels, hidden) if control_channels else nn.InstanceNorm2d(channels, affine=True)
        )
        self.activation = nn.ReLU(inplace=True) if relu else nn.Identity()
        self.noise = NoiseInjection() if noise else None

    def forward(self, x: Tensor, control: Tensor, rng: torch.Generator | None) -> Tensor:
        """Apply the block to features (B, C, H, W); the convolution determines the output shape."""
        return self.finish(self.conv(x), control, rng)

    def finish(self, x: Tensor, control: Tensor, rng: torch.Generator | None, moments: Moments | None = None) -> Tensor:
        """Apply everything after the convolution; SPADE normalises by ``moments`` instead of its own if given."""
        x = self.norm(x, control, moments) if isinstance(self.norm, Spade) else self.norm(x)
        x = self.activation(x)
        return x if self.noise is None else cast(Tensor, self.noise(x, rng))


class ResidualBlock(nn.Module):
    """Residual block of StarGAN: two 3x3 blocks, the second without ReLU, and a shortcut.

    Args:
        channels: Channels in and out.
        noise: Whether to add noise after each convolutional block.
        padding_mode: Padding of the convolutions.
    """

    def __init__(self, channels: int, noise: bool, padding_mode: PaddingMode) -> None:
        super().__init__()
        convs = (nn.Conv2d(channels, channels, 3, 1, 1, bias=False, padding_mode=padding_mode) for _ in range(2))
        self.blocks = nn.ModuleList(
            [Block(conv, channels, 0, 0, noise, relu) for conv, relu in zip(convs, (True, False), strict=True)]
        )

    def forward(self, x: Tensor, control: Tensor, rng: torch.Generator | None) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        first, second = self.blocks
        residual: Tensor = second(first(x, control, rng), control, rng)
        return x + residual


class Generator(nn.Module):
    """Generator G, eq. 1 to 4: encoder of stride 4, residual blocks, decoder with the control map in each block.

    Borders are reflected, because zero padding reveals the position in the image, and the network then places defects
    by it. The decoder upsamples by nearest neighbour before it convolves, as SPADE's does, because transposed
    convolutions leave a grid in the maps. Without SPADE, both are as in StarGAN.

    Args:
        categories: Channels K of the control map.
        channels: Channels after the first convolution; the next two have twice and four times as many.
        residual_blocks: Number of residual blocks; they do not see the control map.
        spatial_control: Whether the control map modulates the decoder by SPADE; if not, it is concatenated with the
            image, as in StarGAN.
        noise_injection: Whether to add adaptive noise after each convolutional block.
        layer_composition: Whether a foreground is composed with the image; if not, the network outputs the whole image.
        grey: Whether the network paints in grey (three equal channels).
        map_bias: Constant added to the map's channel before the sigmoid: with 0, the map is one half wherever the
            features are 0; with -3, it is 0.05.
    """

    def __init__(
        self,
        categories: int,
        channels: int = 64,
        residual_blocks: int = 6,
        spatial_control: bool = True,
        noise_injection: bool = True,
        layer_composition: bool = True,
        grey: bool = False,
        map_bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.spatial_control = spatial_control
        self.map_bias = map_bias
        self.categories = categories
        self.layer_composition = layer_composition
        inputs, control = (3, categories) if spatial_control else (3 + categories, 0)
        # With reflected borders, an instance norm cancels a constant label map; with zeros, some of it remains.
        mode: PaddingMode = "reflect" if spatial_control else "zeros"

        def block(conv: nn.Module, width: int, control: int = 0) -> Block:
            return Block(conv, width, control, 2 * channels, noise_injection)

        def conv(inside: int, outside: int, size: int, stride: int) -> nn.Conv2d:
            return nn.Conv2d(inside, outside, size, stride, (size - stride + 1) // 2, bias=False, padding_mode=mode)

        def up(inside: int, outside: int) -> nn.Module:
            if spatial_control:
                return nn.Sequential(nn.Upsample(scale_factor=2), conv(inside, outside, 3, 1))
            return nn.ConvTranspose2d(inside, outside, 4, 2, 1, bias=False)

        widths = (channels, 2 * channels, 4 * channels)
        self.encoder = nn.ModuleList(
            [
                block(conv(inputs, channels, 7, 1), channels),
                *(block(conv(inside, outside, 4, 2), outside) for inside, outside in pairwise(widths)),
                *(ResidualBlock(widths[-1], noise_injection, mode) for _ in range(residual_blocks)),
            ]
        )
        self.decoder = nn.ModuleList(
            [block(up(inside, outside), outside, control) for inside, outside in pairwise(widths[::-1])]
        )
        self.head = conv(channels, (1 if grey else 3) + layer_composition, 7, 1)

    def forward(self, image: Tensor, control: Tensor, rng: torch.Generator | None = None) -> Synthesized:
        """Add defects to images or remove them.

        Args:
            image: Images, shape (B, 3, H, W), float in [-1, 1]; H and W are multiples of 4.
            control: Control map A, shape (B, K, h, w) of any size, float in [0, 1], or (B, K, 1, 1) for the same value
                everywhere. All 0 is normal.
            rng: Generator for the noise, on the device of the images; ``None`` disables the noise.

        Returns:
            Images in [-1, 1] and maps. Without layer composition, the map is half of the mean absolute change over the
            channels.
        """
        x = image
        if not self.spatial_control:
            x = torch.cat([image, at_size(control, _size(image)) + torch.zeros_like(image[:, :1])], 1)
        for block in self.encoder:
            x = block(x, control, rng)
        layers = self.head(self._decode(x, control, rng))
        if not self.layer_composition:
            output = layers.tanh().expand_as(image)
            return Synthesized(output, (output - image).abs().mean(1, keepdim=True) / 2)
        return compose(image, layers[:, :-1].tanh(), (layers[:, -1:] + self.map_bias).sigmoid())  # eq. 1, 3

    def _decode(self, x: Tensor, control: Tensor, rng: torch.Generator | None) -> Tensor:
        """Map encoder features (B, 4 C, H / 4, W / 4) to features of the head (B, C, H, W)."""
        if self.spatial_control and control.shape[-2:] != (1, 1):
            return self._decode_local(x, control, rng)
        for block in self.decoder:
            x = block(x, control, rng)
        return x

    def _decode_local(self, x: Tensor, control: Tensor, rng: torch.Generator | None) -> Tensor:
        """Decode with a control map that varies over the image, which never occurs in training.

        Each location is normalised by the moments of an image whose control map is constant: those of an image that is
        all defect, of one without defects, or an interpolation of both where the map is soft. The moments of a mixed
        image would be new to the network, and would let the defects of one half change the other half.
        """
        present = control.amax((2, 3), keepdim=True)
        region = (control / present.clamp(min=1e-6)).amax(1, keepdim=True)
        absent = torch.zeros_like(present)
        mixed = full = empty = x
        for block in cast(Iterable[Block], self.decoder):
            mixed, full, empty = (block.conv(features) for features in (mixed, full, empty))
            moments = blend(moments_of(empty), moments_of(full), at_size(region, _size(mixed)))
            mixed = block.finish(mixed, control, rng, moments)
            full, empty = block.finish(full, present, rng), block.finish(empty, absent, rng)
        return mixed


def compose(image: Tensor, foreground: Tensor, maps: Tensor) -> Synthesized:
    """Compose a foreground with an image, eq. 2 and 4.

    Args:
        image: Images, shape (B, C, H, W).
        foreground: Foreground, shape (B, C, H, W), or (B, 1, H, W) for all channels.
        maps: Opacity of the foreground, shape (B, 1, H, W), in [0, 1].
    """
    return Synthesized(image * (1 - maps) + foreground * maps, maps)


def everywhere(labels: Tensor) -> Tensor:
    """Return the constant control map (B, K, 1, 1) of label vectors (B, K)."""
    return labels[:, :, None, None]


class Discriminator(nn.Module):
    """Discriminator D of StarGAN: a source score for each patch and the classes of the image.

    Args:
        image_size: Height and width of the images.
        classes: Outputs of the class head.
        channels: Channels of the first layer; each further layer doubles them.
        layers: Number of 4x4 convolutions of stride 2; :func:`default_layers` by default.
        score_per_class: Whether there is a source score for each class instead of the class head, as in StarGAN v2
            (https://arxiv.org/abs/1912.01865): is this a real image of the class?
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        classes: int,
        channels: int = 64,
        layers: int | None = None,
        score_per_class: bool = False,
    ) -> None:
        super().__init__()
        layers = layers or default_layers(image_size)
        widths = [3, *(channels * 2**number for number in range(layers))]
        blocks: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            blocks += [nn.Conv2d(inside, outside, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.body = nn.Sequential(*blocks)
        height, width = (side // 2**layers for side in image_size)
        self.source = nn.Conv2d(widths[-1], classes if score_per_class else 1, 3, 1, 1, bias=False)
        self.classes = None if score_per_class else nn.Conv2d(widths[-1], classes, (height, width), bias=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Score images (B, 3, H, W) in [-1, 1].

        Returns:
            Scores of D_src, high for real images, shape (B, 1, h, w), and logits of D_cls (B, classes); or scores for
            each class (B, classes, h, w), and ``None``.
        """
        features = self.body(image)
        return self.source(features), None if self.classes is None else self.classes(features).flatten(1)


def default_layers(image_size: tuple[int, int]) -> int:
    """Number of layers that reduce the shorter side to 2 pixels, at most StarGAN's six (for 128 pixels)."""
    return min(MAX_LAYERS, min(image_size).bit_length() - 2)


class DefectGanModel(nn.Module):
    """Inspection: restore an image and use the spatial distribution map of the restoration as the anomaly map.

    Args:
        generator: Generator.
        categories: Channels of its control map.
        score_share: Fraction of highest pixels whose mean is the image score, in (0, 1].
    """

    def __init__(self, generator: Generator, categories: int, score_share: float = 0.01) -> None:
        super().__init__()
        self.generator = generator
        self.categories = categories
        self.score_share = score_share

    def synthesize(self, image: Tensor, control: Tensor, rng: torch.Generator | None = None) -> Synthesized:
        """Apply the generator to images in [0, 1] instead of [-1, 1]; see :meth:`Generator.forward`."""
        images, maps = self.generator(2 * image - 1, control, rng)
        return Synthesized(((images + 1) / 2).clamp(0, 1), maps)

    def restore(self, image: Tensor) -> Synthesized:
        """Remove the defects of images (B, 3, H, W) in [0, 1] by an empty control map without noise; eq. 3 and 4."""
        # One constant map for all images, so that the exported graph can fold the modulation of SPADE to constants.
        return self.synthesize(image, image.new_zeros(1, self.categories, 1, 1))

    def forward(self, image: Tensor) -> InferenceBatch:
        """Inspect images (B, 3, H, W) in [0, 1]: anomaly maps (B, 1, H, W) and scores (B,), both in [0, 1]."""
        anomaly_map = self.restore(image).maps.to(image.dtype)
        return InferenceBatch(pred_score=top_mean(anomaly_map, self.score_share), anomaly_map=anomaly_map)


def _size(x: Tensor) -> tuple[int, int]:
    height, width = x.shape[-2:]
    return height, width
