"""Network of the one-stage segmenter: encoder, three-stage decoder, dual background suppression.

Paper: A one-stage approach for surface anomaly detection with background suppression strategies, Sensors 2020, 20(7),
1829, https://doi.org/10.3390/s20071829. The encoder is the segmentation network of SegDec-Net (Tabernik et al.,
https://doi.org/10.1007/s10845-019-01476-x), the decoder is section 2.2.1, the suppression sections 2.2.2 and 2.2.3.
"""

from typing import NamedTuple, cast

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative, check_one_of
from anomalib_defect_plugins.layers import NORMS
from anomalib_defect_plugins.models.onestage.suppression import coarse_logits, log_suppress, suppress


class Width(NamedTuple):
    """Channels of the encoder at full, half, quarter and eighth size, and kernel size of its last layer."""

    full: int
    half: int
    quarter: int
    eighth: int
    last_kernel: int


WIDTHS = {"paper": Width(32, 64, 64, 1024, 15), "small": Width(8, 16, 16, 64, 7)}
"""The paper's network, and one for a CPU: at half the image size, its 7x7 kernel covers what 15x15 covers at full."""

STAGES = ("f_1", "f_2", "f_3")
"""The maps of the decoder's stages, deepest first."""


class OneStageOutput(NamedTuple):
    """Inputs of the losses; all maps have the shape (B, 1, H, W)."""

    stages: dict[str, Tensor]
    """Logits f_k that have a loss each; empty without CBS."""
    log_defect: Tensor
    """log F."""
    log_normal: Tensor
    """log(1 - F)."""


def block(in_channels: int, out_channels: int, kernel_size: int, norm: str) -> nn.Sequential:
    """Convolution, norm and ReLU at constant size."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        NORMS[norm](out_channels),
        nn.ReLU(inplace=True),
    )


def blocks(in_channels: int, out_channels: int, count: int, norm: str) -> nn.Sequential:
    """``count`` blocks of 5x5 convolutions."""
    return nn.Sequential(*(block(out_channels if n else in_channels, out_channels, 5, norm) for n in range(count)))


def head(channels: int, prior: float) -> nn.Conv2d:
    """1x1 convolution to the logits f_k, whose sigmoid starts near ``prior``."""
    convolution = nn.Conv2d(channels, 1, 1)
    nn.init.constant_(cast(Tensor, convolution.bias), float(torch.tensor(prior).logit()))
    return convolution


class DecoderStage(nn.Module):
    """Transposed convolution to twice the size, concatenation with encoder features, and two 5x5 convolutions.

    Args:
        in_channels: Channels of the deeper features.
        skip_channels: Channels of the encoder features.
        out_channels: Channels of the output.
        norm: Name of the norm, see ``NORMS``.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.up = nn.Sequential(
            # Kernels of 2x2 at stride 2 do not overlap, which avoids checkerboard artefacts.
            nn.ConvTranspose2d(in_channels, out_channels, 2, 2, bias=False),
            NORMS[norm](out_channels),
            nn.ReLU(inplace=True),
        )
        self.convolutions = blocks(out_channels + skip_channels, out_channels, 2, norm)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) and (B, skip_channels, 2h, 2w) to (B, out_channels, 2h, 2w)."""
        return cast(Tensor, self.convolutions(torch.cat([self.up(deep), skip], 1)))


class OneStageModel(nn.Module):
    """One-stage segmenter.

    Args:
        width: ``paper`` or ``small``, see ``WIDTHS``.
        norm: ``group``, ``instance`` or ``batch``, see ``NORMS``.
        coarse_suppression: Whether the stages' maps are summed and each has a loss (CBS). If not, C is the last stage's
            map alone, as in a U-Net.
        fine_iterations: Number of multiplications with the sigmoid of f_1 (FBS); 0 disables FBS.
        prior: Mean of the sigmoid of each map before training, in (0, 1).

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    def __init__(
        self,
        width: str = "paper",
        norm: str = "group",
        coarse_suppression: bool = True,
        fine_iterations: int = 3,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        check_one_of("width", width, WIDTHS)
        check_one_of("norm", norm, NORMS)
        check_not_negative(fine_iterations=fine_iterations)
        check_fraction("prior", prior)
        full, half, quarter, eighth, last_kernel = WIDTHS[width]
        self.coarse_suppression = coarse_suppression
        self.fine_iterations = fine_iterations
        self.encoder = nn.ModuleList(
            [blocks(1, full, 2, norm), blocks(full, half, 3, norm), blocks(half, quarter, 4, norm)]
        )
        self.last = block(quarter, eighth, last_kernel, norm)
        self.decoder = nn.ModuleList(
            [
                DecoderStage(eighth, quarter, quarter, norm),
                DecoderStage(quarter, half, half, norm),
                DecoderStage(half, full, full, norm),
            ]
        )
        # Unused maps have no weights, because distributed training requires a gradient for every weight.
        used = {"f_1": coarse_suppression or fine_iterations > 0, "f_2": coarse_suppression, "f_3": True}
        channels = dict(zip(STAGES, (quarter, half, full), strict=True))
        self.heads = nn.ModuleDict({name: head(channels[name], prior) for name in STAGES if used[name]})
        self.to(memory_format=torch.channels_last)  # shortens training steps on a CPU by a fifth to a third

    def forward(self, image: Tensor) -> OneStageOutput | InferenceBatch:
        """Segment images by their first channel.

        Args:
            image: Images, shape (B, C, H, W), float in [0, 1]; H and W are multiples of 8 and at least 16.

        Returns:
            Inputs of the losses in training; otherwise the anomaly map F (B, 1, H, W) and its mean (B,), both in
            [0, 1].
        """
        maps = self.maps(image[:, :1] - 0.5)
        coarse = coarse_logits(list(maps.values())) if self.coarse_suppression else maps["f_3"]
        deepest = maps.get("f_1")
        if self.training:
            stages = maps if self.coarse_suppression else {}
            return OneStageOutput(stages, *log_suppress(coarse, deepest, self.fine_iterations))
        anomaly_map = suppress(coarse, deepest, self.fine_iterations)
        return InferenceBatch(pred_score=anomaly_map.mean((1, 2, 3)), anomaly_map=anomaly_map)  # eq. 5, as a mean

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the logits f_k in use, each (B, 1, H, W), from grey images (B, 1, H, W)."""
        skips = []
        for level in self.encoder:
            skips.append(level(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.last(x)
        maps = {}
        for name, stage, factor in zip(STAGES, self.decoder, (4, 2, 1), strict=True):
            x = stage(x, skips.pop())
            if name in self.heads:
                # Half precision is too coarse for sums over many pixels close to 0.
                maps[name] = upsample(self.heads[name](x).float(), factor)
        return maps


def upsample(maps: Tensor, factor: int) -> Tensor:
    """Upsample maps (B, 1, h, w) bilinearly to (B, 1, factor h, factor w).

    The paper upsamples all channels before the 1x1 convolution. The reverse order is equivalent, because both are
    linear and bilinear weights sum to 1, and takes a fraction of the memory.
    """
    return functional.interpolate(maps, scale_factor=factor, mode="bilinear") if factor > 1 else maps
