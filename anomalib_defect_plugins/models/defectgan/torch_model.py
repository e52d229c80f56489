"""The networks of Defect-GAN: the generator for both directions, the discriminator, and inspection by restoration.

Paper: Defect-GAN: high-fidelity defect synthesis for automated defect inspection, WACV 2021,
https://arxiv.org/abs/2103.15158. "Mainly follows" StarGAN (https://arxiv.org/abs/1711.09020, appendix), so what it
leaves open is StarGAN's: with all four of the paper's components off, these are StarGAN's networks.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from anomalib_defect_plugins.layers import Moments, NoiseInjection, Spade, at_size, blend, moments_of, top_mean

MAX_LAYERS = 6
"""Layers of StarGAN's discriminator, at 128 pixels a side."""


class Synthesized(NamedTuple):
    """Images that the generator made."""

    images: Tensor
    """(B, 3, H, W), in the range of the images that it was given."""
    maps: Tensor
    """(B, 1, H, W), in [0, 1]: m of eq. 2 and 4, the share of the new layer in each pixel."""


class Block(nn.Module):
    """A convolutional block: convolution, norm, ReLU, noise.

    Args:
        conv: The convolution.
        channels: Channels that it gives.
        control_channels: Channels of the control map of the norm; with 0 it is a plain instance norm.
        hidden: Channels inside of SPADE.
        noise: Whether there is noise.
        relu: Whether there is a ReLU.
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
        """Map (B, C, H, W) to what the convolution makes of this shape."""
        return self.finish(self.conv(x), control, rng)

    def finish(self, x: Tensor, control: Tensor, rng: torch.Generator | None, moments: Moments | None = None) -> Tensor:
        """Do what comes after the convolution; SPADE normalises by the moments, if any are given."""
        x = self.norm(x, control, moments) if isinstance(self.norm, Spade) else self.norm(x)
        x = self.activation(x)
        return x if self.noise is None else self.noise(x, rng)


class ResidualBlock(nn.Module):
    """StarGAN's: two 3x3 blocks, the second without ReLU, and a shortcut.

    Args:
        channels: Channels in and out.
        noise: Whether there is noise after each convolutional block.
        padding_mode: What is beyond the borders.
    """

    def __init__(self, channels: int, noise: bool, padding_mode: str) -> None:
        super().__init__()
        convs = (nn.Conv2d(channels, channels, 3, 1, 1, bias=False, padding_mode=padding_mode) for _ in range(2))
        self.blocks = nn.ModuleList(
            [Block(conv, channels, 0, 0, noise, relu) for conv, relu in zip(convs, (True, False), strict=True)]
        )

    def forward(self, x: Tensor, control: Tensor, rng: torch.Generator | None) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        first, second = self.blocks
        return x + second(first(x, control, rng), control, rng)


class Generator(nn.Module):
    """Generator G, eq. 1 to 4: encoder of stride 4, residual blocks, decoder with the control map in each block.

    Borders are reflected, and the decoder doubles pixels before it convolves, as SPADE's does: zeros beyond the borders
    tell the network where it is, and it puts defects there; transposed convolutions leave a grid in the maps. Without
    SPADE both are as in StarGAN.

    Args:
        categories: Channels K of the control map.
        channels: Channels after the first convolution; then twice and four times as many.
        residual_blocks: Residual blocks, which the control map does not reach.
        spatial_control: Whether the map goes to SPADE in the decoder; if not, it joins the image, as in StarGAN.
        noise_injection: Whether there is adaptive noise after each convolutional block.
        layer_composition: Whether the result is a foreground laid on the image; if not, the network gives all of it.
        grey: Whether what the network paints is grey: its three channels are equal.
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
    ) -> None:
        super().__init__()
        self.spatial_control = spatial_control
        self.layer_composition = layer_composition
        inputs, control = (3, categories) if spatial_control else (3 + categories, 0)
        # A norm takes a constant label off again where borders are reflected; zeros beyond them would let it through.
        mode = "reflect" if spatial_control else "zeros"

        def block(conv: nn.Module, width: int, control: int = 0) -> Block:
            return Block(conv, width, control, 2 * channels, noise_injection)

        def conv(one: int, two: int, size: int, stride: int) -> nn.Conv2d:
            return nn.Conv2d(one, two, size, stride, (size - stride + 1) // 2, bias=False, padding_mode=mode)

        def up(one: int, two: int) -> nn.Module:
            if spatial_control:
                return nn.Sequential(nn.Upsample(scale_factor=2), conv(one, two, 3, 1))
            return nn.ConvTranspose2d(one, two, 4, 2, 1, bias=False)

        widths = (channels, 2 * channels, 4 * channels)
        self.encoder = nn.ModuleList(
            [
                block(conv(inputs, channels, 7, 1), channels),
                *(block(conv(one, two, 4, 2), two) for one, two in pairwise(widths)),
                *(ResidualBlock(widths[-1], noise_injection, mode) for _ in range(residual_blocks)),
            ]
        )
        self.decoder = nn.ModuleList([block(up(one, two), two, control) for one, two in pairwise(widths[::-1])])
        self.head = conv(channels, (1 if grey else 3) + layer_composition, 7, 1)

    def forward(self, image: Tensor, control: Tensor, rng: torch.Generator | None = None) -> Synthesized:
        """Put defects on images or take them away.

        Args:
            image: (B, 3, H, W) in [-1, 1], H and W multiples of 4.
            control: Control map A, (B, K, h, w) in [0, 1] of any size; (B, K, 1, 1) holds everywhere. All 0 is normal.
            rng: Source of the noise on the device of the images; without one there is none.

        Returns:
            Images in [-1, 1], and maps; without composition, half of the mean absolute change over the channels.
        """
        x = image
        if not self.spatial_control:
            size = image.shape[-2:]
            x = torch.cat([image, at_size(control, size) + torch.zeros_like(image[:, :1])], 1)
        for block in self.encoder:
            x = block(x, control, rng)
        layers = self.head(self._decode(x, control, rng))
        if not self.layer_composition:
            made = layers.tanh().expand_as(image)
            return Synthesized(made, (made - image).abs().mean(1, keepdim=True) / 2)
        return compose(image, layers[:, :-1].tanh(), layers[:, -1:].sigmoid())  # eq. 1, 3

    def _decode(self, x: Tensor, control: Tensor, rng: torch.Generator | None) -> Tensor:
        """Go from the features of the encoder, (B, 4 C, H / 4, W / 4), to those of the head, (B, C, H, W)."""
        if self.spatial_control and control.shape[-2:] != (1, 1):
            return self._decode_by_place(x, control, rng)
        for block in self.decoder:
            x = block(x, control, rng)
        return x

    def _decode_by_place(self, x: Tensor, control: Tensor, rng: torch.Generator | None) -> Tensor:
        """Decode with a map that is not the same everywhere, which training never has.

        Each place is normalised as in an image that has everywhere what the map has there: by the moments of one that
        is all defect, or of one without, or by a blend where the map is soft. The moments of a mixed image would be new
        to the network, and would let the defects of one half change the other.
        """
        present = control.amax((2, 3), keepdim=True)
        region = (control / present.clamp(min=1e-6)).amax(1, keepdim=True)
        controls = (control, present, torch.zeros_like(present))
        mixed = full = empty = x
        for block in self.decoder:
            mixed, full, empty = (block.conv(features) for features in (mixed, full, empty))
            moments = blend(moments_of(empty), moments_of(full), at_size(region, mixed.shape[-2:]))
            mixed = block.finish(mixed, controls[0], rng, moments)
            full, empty = (block.finish(one, it, rng) for one, it in zip((full, empty), controls[1:], strict=True))
        return mixed


def compose(image: Tensor, foreground: Tensor, maps: Tensor) -> Synthesized:
    """Lay a foreground on an image, eq. 2 and 4.

    Args:
        image: (B, C, H, W).
        foreground: The same, or (B, 1, H, W), which goes on every channel.
        maps: Share of the foreground, (B, 1, H, W), in [0, 1].
    """
    return Synthesized(image * (1 - maps) + foreground * maps, maps)


def everywhere(labels: Tensor) -> Tensor:
    """Give the control map (B, K, 1, 1) of labels (B, K) that hold at each place."""
    return labels[:, :, None, None]


class Discriminator(nn.Module):
    """Discriminator D of StarGAN: how real patches look, and which defects an image shows.

    Args:
        image_size: Height and width of the images.
        classes: Numbers of the class head.
        channels: Channels of the first layer; each further one has twice as many.
        layers: 4x4 convolutions of stride 2; by default :func:`default_layers`.
    """

    def __init__(
        self, image_size: tuple[int, int], classes: int, channels: int = 64, layers: int | None = None
    ) -> None:
        super().__init__()
        layers = layers or default_layers(image_size)
        widths = [3, *(channels * 2**number for number in range(layers))]
        blocks: list[nn.Module] = []
        for one, two in pairwise(widths):
            blocks += [nn.Conv2d(one, two, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.body = nn.Sequential(*blocks)
        left = tuple(side // 2**layers for side in image_size)
        self.source = nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False)
        self.classes = nn.Conv2d(widths[-1], classes, left, bias=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Judge images (B, 3, H, W) in [-1, 1].

        Returns:
            Scores D_src (B, 1, h, w), high for real images, and the logits of D_cls (B, classes).
        """
        features = self.body(image)
        return self.source(features), self.classes(features).flatten(1)


def default_layers(image_size: tuple[int, int]) -> int:
    """As many layers as leave 2 pixels of the shorter side, six at most: StarGAN's at 128 pixels."""
    return min(MAX_LAYERS, min(image_size).bit_length() - 2)


class DefectGanModel(nn.Module):
    """Inspection: restore an image, and take the map of what was painted over for the anomaly map.

    Args:
        generator: The generator.
        categories: Channels of its control map.
        score_share: Share of the pixels, the highest ones, whose mean is the image's score; in (0, 1].
    """

    def __init__(self, generator: Generator, categories: int, score_share: float = 0.01) -> None:
        super().__init__()
        self.generator = generator
        self.categories = categories
        self.score_share = score_share

    def synthesize(self, image: Tensor, control: Tensor, rng: torch.Generator | None = None) -> Synthesized:
        """As :meth:`Generator.forward`, of and with images in [0, 1]."""
        made, maps = self.generator(2 * image - 1, control, rng)
        return Synthesized(((made + 1) / 2).clamp(0, 1), maps)

    def restore(self, image: Tensor) -> Synthesized:
        """Take the defects off images (B, 3, H, W) in [0, 1]: an empty control map, and no noise; eq. 3 and 4."""
        # One empty map for all images: a constant, so what SPADE makes of it is one too in the exported graph.
        return self.synthesize(image, image.new_zeros(1, self.categories, 1, 1))

    def forward(self, image: Tensor) -> InferenceBatch:
        """Inspect images (B, 3, H, W) in [0, 1]: anomaly maps (B, 1, H, W) and scores (B,), both in [0, 1]."""
        anomaly_map = self.restore(image).maps.to(image.dtype)
        return InferenceBatch(pred_score=top_mean(anomaly_map, self.score_share), anomaly_map=anomaly_map)
