"""Network of the one-stage segmenter: encoder, three-stage decoder, dual background suppression.

Paper: A one-stage approach for surface anomaly detection with background suppression strategies, Sensors 2020, 20(7),
1829, https://doi.org/10.3390/s20071829. The encoder is the segmentation network of SegDec-Net (Tabernik et al.,
https://doi.org/10.1007/s10845-019-01476-x), the decoder is section 2.2.1, the suppression sections 2.2.2 and 2.2.3.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative, check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers import NORMS, enlarge, spread, top_mean
from anomalib_defect_plugins.layers.density import GaussianDensity, TextureDensity
from anomalib_defect_plugins.layers.nearest_center import NearestCenter
from anomalib_defect_plugins.models.components.fitted_density import DensityNetwork
from anomalib_defect_plugins.models.components.renamed_weights import rename_weights
from anomalib_defect_plugins.models.onestage.encoder import WIDTHS, SegDecEncoder, TimmEncoder, blocks
from anomalib_defect_plugins.models.onestage.suppression import coarse_logits, log_suppress, suppress

STAGES = ("f_1", "f_2", "f_3")
"""The maps of the stages, deepest first."""

DECODER_WIDTHS = (32, 32, 64)
"""Channels of the decoder behind a timm model, fine to coarse."""

TOP_SHARE = 0.01
"""Share of the pixels that the image score ``top`` averages."""

LIMIT = 20.0
"""Limit of the log-odds that a density is added to: beyond it, they are certain in any case."""

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda anomaly_map: anomaly_map.mean((1, 2, 3)),  # eq. 5, as a mean
    "top": partial(top_mean, share=TOP_SHARE),
    "max": lambda anomaly_map: anomaly_map.amax((1, 2, 3)),
}
"""Image scores (B,) of maps (B, 1, H, W)."""


class OneStageOutput(NamedTuple):
    """Inputs of the losses; all maps have the shape (B, 1, H, W)."""

    stages: dict[str, Tensor]
    """Logits f_k that have a loss each; empty without CBS."""
    log_defect: Tensor
    """log F."""
    log_normal: Tensor
    """log(1 - F)."""


def head(channels: int, prior: float) -> nn.Conv2d:
    """1x1 convolution to the logits f_k, whose sigmoid starts near ``prior``."""
    convolution = nn.Conv2d(channels, 1, 1)
    nn.init.constant_(cast(Tensor, convolution.bias), float(torch.tensor(prior).logit()))
    return convolution


class DecoderStage(nn.Module):
    """Transposed convolution to twice the size, concatenation with encoder features, and two convolutions.

    Args:
        in_channels: Channels of the deeper features.
        skip_channels: Channels of the encoder features.
        out_channels: Channels of the output.
        norm: Name of the norm, see ``NORMS``.
        kernel_size: Kernel size of the two convolutions.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, norm: str, kernel_size: int = 5
    ) -> None:
        super().__init__()
        self.up = nn.Sequential(
            # Kernels of 2x2 at stride 2 do not overlap, which avoids checkerboard artefacts.
            nn.ConvTranspose2d(in_channels, out_channels, 2, 2, bias=False),
            NORMS[norm](out_channels),
            nn.ReLU(inplace=True),
        )
        self.convolutions = blocks(out_channels + skip_channels, out_channels, 2, norm, kernel_size)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) and (B, skip_channels, 2h, 2w) to (B, out_channels, 2h, 2w)."""
        return cast(Tensor, self.convolutions(torch.cat([self.up(deep), skip], 1)))


class OneStageModel(DensityNetwork):
    """One-stage segmenter.

    Args:
        width: ``paper`` or ``small``, see ``WIDTHS``; a backbone has its own.
        norm: ``group``, ``instance`` or ``batch``, see ``NORMS``.
        coarse_suppression: Whether the stages' maps are summed and each has a loss (CBS). If not, C is the last stage's
            map alone, as in a U-Net.
        fine_iterations: Number of multiplications with the sigmoid of f_1 (FBS); 0 disables FBS.
        prior: Mean of the sigmoid of each map before training, in (0, 1).
        backbone: Name of a timm model as encoder; ``None`` selects that of the paper.
        pre_trained: Whether to load timm's weights into the backbone, or a file with them.
        stages: Strides of the features that f_1, f_2 and f_3 are computed from, coarse to fine; ``None`` selects the
            three outputs of the decoder.
        density_weight: Weight of the distance of the backbone's features to those of normal images, which is added to
            the log-odds of F; 0 for the paper's map.
        score: Image score: ``mean`` of F as in the paper, ``top``, the mean of its highest ``TOP_SHARE``, or ``max``.
        spread_weight: Weight of the spread of these distances, see :func:`spread`, which is added to the score.

    Raises:
        InvalidInputError: If an argument is invalid.
        MissingDataError: If the weights of the backbone do not exist or cannot be downloaded.
    """

    def __init__(
        self,
        width: str = "paper",
        norm: str = "group",
        coarse_suppression: bool = True,
        fine_iterations: int = 3,
        prior: float = 0.01,
        backbone: str | None = None,
        pre_trained: bool | str | Path = True,
        stages: Sequence[int] | None = None,
        score: str = "mean",
        density_weight: float = 0.0,
        spread_weight: float = 0.0,
    ) -> None:
        super().__init__()
        check_one_of("width", width, WIDTHS)
        check_one_of("norm", norm, NORMS)
        check_one_of("score", score, SCORES)
        check_not_negative(fine_iterations=fine_iterations)
        check_fraction("prior", prior)
        self.coarse_suppression = coarse_suppression
        self.fine_iterations = fine_iterations
        self.score = score
        self.encoder = SegDecEncoder(width, norm) if backbone is None else TimmEncoder(backbone, pre_trained)
        self.density = TextureDensity(self.encoder.channels[1:]) if density_weight else None
        self.density_weight = density_weight
        self.spread_weight = spread_weight
        self.strides = _stage_strides(stages, self.encoder.strides)
        *skips, deepest = self.encoder.channels
        widths = skips if backbone is None else DECODER_WIDTHS
        channels = {self.encoder.strides[-1]: deepest}
        self.decoder = nn.ModuleList()
        for stride, skip, out in reversed(list(zip(self.encoder.strides, skips, widths, strict=False))):
            if stride >= min(self.strides):
                self.decoder.append(DecoderStage(deepest, skip, out, norm, 5 if backbone is None else 3))
                channels[stride] = deepest = out
        # Unused maps have no weights, because distributed training requires a gradient for every weight.
        used = {"f_1": coarse_suppression or fine_iterations > 0, "f_2": coarse_suppression, "f_3": True}
        self.heads = nn.ModuleDict(
            {
                name: head(channels[stride], prior)
                for name, stride in zip(STAGES, self.strides, strict=True)
                if used[name]
            }
        )
        self.to(memory_format=torch.channels_last)  # shortens training steps on a CPU by a fifth to a third
        rename_weights(self, "last.", "encoder.3.")

    def forward(self, image: Tensor) -> OneStageOutput | InferenceBatch:
        """Segment images.

        Args:
            image: Images, shape (B, C, H, W), float in [0, 1]; H and W are multiples of the largest stride of the
                encoder, and at least 16. The paper's encoder reads the first channel.

        Returns:
            Inputs of the losses in training; otherwise the anomaly map (B, 1, H, W) and its score (B,). The map is F,
            in [0, 1], or with a density a log-odds.
        """
        encoded = self.encoder(image)
        maps = self.maps(encoded)
        coarse = coarse_logits(list(maps.values())) if self.coarse_suppression else maps["f_3"]
        deepest = maps.get("f_1")
        if self.training:
            stages = maps if self.coarse_suppression else {}
            return OneStageOutput(stages, *log_suppress(coarse, deepest, self.fine_iterations))
        if self.density is None:
            anomaly_map = suppress(coarse, deepest, self.fine_iterations)
            return InferenceBatch(pred_score=SCORES[self.score](anomaly_map), anomaly_map=anomaly_map)
        log_defect, log_normal = log_suppress(coarse, deepest, self.fine_iterations)
        odds = (log_defect - log_normal).clamp(-LIMIT, LIMIT)
        distance = self.density(encoded[1:], image.shape[-2:])
        anomaly_map = odds + self.density_weight * distance
        score = SCORES[self.score](anomaly_map) + self.spread_weight * spread(distance)
        return InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

    def densities(self) -> list[GaussianDensity | NearestCenter]:
        """Return the density of normal features, if there is one."""
        return [] if self.density is None else [self.density.density]

    def normal_features(self, image: Tensor) -> list[Tensor]:
        """Compute the features (B, H/8, W/8, C) that the density is fitted to."""
        return [] if self.density is None else [self.density.describe(self.encoder(image)[1:])]

    def maps(self, encoded: Sequence[Tensor]) -> dict[str, Tensor]:
        """Compute the logits f_k in use, each (B, 1, H, W), of the encoder's maps, fine to coarse."""
        *skips, x = encoded
        features = {self.encoder.strides[-1]: x}
        for stage, skip, stride in zip(self.decoder, reversed(skips), self.encoder.strides[-2::-1], strict=False):
            x = features[stride] = stage(x, skip)
        # Half precision is too coarse for sums over many pixels close to 0.
        return {
            name: upsample(self.heads[name](features[stride]).float(), stride)
            for name, stride in zip(STAGES, self.strides, strict=True)
            if name in self.heads
        }


def _stage_strides(stages: Sequence[int] | None, strides: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of f_1, f_2 and f_3, coarse to fine."""
    if stages is None:
        return tuple(strides[-2::-1])
    if len(stages) != len(STAGES) or not set(stages) <= set(strides) or sorted(set(stages))[::-1] != list(stages):
        msg = f"stages is {list(stages)}; it must be three of {list(strides)[::-1]}, in this order"
        raise InvalidInputError(msg)
    return tuple(stages)


def upsample(maps: Tensor, factor: int) -> Tensor:
    """Upsample maps (B, 1, h, w) bilinearly to (B, 1, factor h, factor w).

    The paper upsamples all channels before the 1x1 convolution. The reverse order is equivalent, because both are
    linear and bilinear weights sum to 1, and takes a fraction of the memory.
    """
    return enlarge(maps, [factor * side for side in maps.shape[-2:]]) if factor > 1 else maps
