"""The network of the one-stage segmenter: encoder, three-stage decoder, dual background suppression.

Paper: A one-stage approach for surface anomaly detection with background suppression strategies, Sensors 2020, 20(7),
1829, https://doi.org/10.3390/s20071829. The encoder is the segmentation network of SegDec-Net (Tabernik et al.,
https://doi.org/10.1007/s10845-019-01476-x), the decoder is section 2.2.1, the maps are sections 2.2.2 and 2.2.3.
"""

from typing import NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_not_negative, check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers import NORMS
from anomalib_defect_plugins.models.onestage.suppression import coarse_logits, log_suppress, suppress


class Width(NamedTuple):
    """Channels of the encoder at full, half, quarter and eighth size, and the kernel of its last layer."""

    full: int
    half: int
    quarter: int
    eighth: int
    last_kernel: int


WIDTHS = {"paper": Width(32, 64, 64, 1024, 15), "small": Width(8, 16, 16, 64, 7)}
"""The paper's network, and one for a CPU: at half the image size, its last 7 pixels see what 15 do at the whole."""

STAGES = ("f_1", "f_2", "f_3")
"""The maps of the decoder's stages, deepest first."""


class OneStageOutput(NamedTuple):
    """What the losses need of a forward pass; all maps are (B, 1, H, W)."""

    stages: dict[str, Tensor]
    """The maps f_k that are compared with the mask on their own; none without CBS."""
    log_defect: Tensor
    """log F."""
    log_normal: Tensor
    """log(1 - F)."""


def block(in_channels: int, out_channels: int, kernel_size: int, norm: str) -> nn.Sequential:
    """Convolution, norm, ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        NORMS[norm](out_channels),
        nn.ReLU(inplace=True),
    )


def blocks(in_channels: int, out_channels: int, count: int, norm: str) -> nn.Sequential:
    """So many 5x5 blocks, one after the other."""
    return nn.Sequential(*(block(out_channels if n else in_channels, out_channels, 5, norm) for n in range(count)))


def head(channels: int, prior: float) -> nn.Conv2d:
    """1x1 convolution to f_k, whose sigmoid starts near ``prior``."""
    convolution = nn.Conv2d(channels, 1, 1)
    nn.init.constant_(convolution.bias, float(torch.tensor(prior).logit()))
    return convolution


class DecoderStage(nn.Module):
    """A transposed convolution to twice the size, the encoder's features beside it, and two 5x5 convolutions.

    Args:
        in_channels: Channels of the features below.
        skip_channels: Channels of the encoder's features.
        out_channels: Channels out.
        norm: Name of the norm.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.up = nn.Sequential(
            # 2x2 at stride 2: no two kernels overlap, so it draws no checkerboard.
            nn.ConvTranspose2d(in_channels, out_channels, 2, 2, bias=False),
            NORMS[norm](out_channels),
            nn.ReLU(inplace=True),
        )
        self.convolutions = blocks(out_channels + skip_channels, out_channels, 2, norm)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) and (B, skip_channels, 2h, 2w) to (B, out_channels, 2h, 2w)."""
        return self.convolutions(torch.cat([self.up(below), skip], 1))


class OneStageModel(nn.Module):
    """One-stage segmenter.

    Args:
        width: ``paper`` or ``small``, see ``WIDTHS``.
        norm: ``group``, ``instance`` or ``batch``, see ``NORMS``.
        coarse_suppression: Whether the stages' maps are added up and each has a loss of its own (CBS). Without, the
            last stage's map alone gives C, as in a U-Net.
        fine_iterations: Multiplications with the sigmoid of f_1 (FBS); 0 is without.
        prior: Share of the pixels that each map takes for defects before training, in (0, 1).

    Raises:
        InvalidInputError: An argument that cannot be.
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
        _check_arguments(width, norm, fine_iterations, prior)
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
        # Maps that nothing uses have no weights: distributed training wants a gradient for every weight.
        used = {"f_1": coarse_suppression or fine_iterations > 0, "f_2": coarse_suppression, "f_3": True}
        channels = dict(zip(STAGES, (quarter, half, full), strict=True))
        self.heads = nn.ModuleDict({name: head(channels[name], prior) for name in STAGES if used[name]})
        self.to(memory_format=torch.channels_last)  # takes a fifth to a third off a training step on a CPU

    def forward(self, image: Tensor) -> OneStageOutput | InferenceBatch:
        """Segment images (B, C, H, W) in [0, 1], H and W multiples of 8, at least 16; only the first channel is seen.

        Returns:
            In training what the losses need; else the anomaly map F (B, 1, H, W) and its mean (B,), both in [0, 1].
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
        """Give the maps f_k that are used, each (B, 1, H, W), of grey images (B, 1, H, W)."""
        skips = []
        for part in self.encoder:
            skips.append(part(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.last(x)
        found = {}
        for name, stage, factor in zip(STAGES, self.decoder, (4, 2, 1), strict=True):
            x = stage(x, skips.pop())
            if name in self.heads:
                # In half precision, sums of many pixels that are nearly 0 would be off.
                found[name] = enlarge(self.heads[name](x).float(), factor)
        return found


def enlarge(maps: Tensor, factor: int) -> Tensor:
    """Enlarge maps (B, 1, h, w) bilinearly to (B, 1, factor h, factor w).

    The paper enlarges all channels first. A 1x1 convolution before gives the same, at a fraction of the memory: both
    are linear, and bilinear weights sum to 1.
    """
    return functional.interpolate(maps, scale_factor=factor, mode="bilinear") if factor > 1 else maps


def _check_arguments(width: str, norm: str, fine_iterations: int, prior: float) -> None:
    check_one_of("width", width, WIDTHS)
    check_one_of("norm", norm, NORMS)
    check_not_negative(fine_iterations=fine_iterations)
    if not 0 < prior < 1:
        msg = f"prior is {prior}; it must be more than 0 and less than 1"
        raise InvalidInputError(msg)
