"""Semantic information decomposition network (SIDN).

Paper: A semantic information decomposition network for accurate segmentation of texture defects, IEEE Transactions on
Industrial Informatics 2023, https://doi.org/10.1109/TII.2022.3217751. FEM, FSEM, GSRM and SM are its sections III-B to
III-D; each block documents the details that the paper leaves open.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.layers import NORMS, Encoder, MedianFilter, NarrowTransposed, maps_at, spread, top_mean
from anomalib_defect_plugins.layers.density import GaussianDensity, TwoScaleDensity
from anomalib_defect_plugins.layers.feature_noise import add_feature_noise
from anomalib_defect_plugins.layers.nearest_center import NearestCenter
from anomalib_defect_plugins.models.components.fitted_density import DensityNetwork
from anomalib_defect_plugins.models.components.renamed_weights import rename_weights

STRIDES = (4, 8, 16, 32)
"""Strides of the encoder's maps: the first three are added to the features after each halving of the FSEM."""

PRIOR = 3.0
"""Logit of texture at the start of training, a probability of 0.95, as in focal loss (https://arxiv.org/abs/1708.02002)."""

SCORES = ("distances", "product")
"""Image scores: the spread of the densities' distances, or its product with the spread of the branches' log-odds."""


class SidnOutput(NamedTuple):
    """Inputs of the losses. An image has N = H/16 * W/16 features of dimension d = 16 * channels."""

    texture_logits: Tensor
    """Logits of I_s^t, shape (B, 1, H, W), high on texture."""
    defect_logits: Tensor
    """Logits of I_s^d, shape (B, 1, H, W), high on defects."""
    texture_features: Tensor
    """Z_t, shape (B, N, d), of unit length."""
    defect_features: Tensor
    """Z_d, shape (B, N, d), of unit length."""


class ResidualBlock(nn.Module):
    """Fig. 2: two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        norm: Name of the norm, see ``NORMS``.
        stride: Stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            NORMS[norm](out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            NORMS[norm](out_channels),
        )
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H/stride, W/stride)."""
        return functional.relu(self.body(x) + self.shortcut(x))


def make_fem(channels: int, norm: str) -> nn.Sequential:
    """Build the feature extraction module: images (B, 1, H, W) to Z (B, 2C, H/2, W/2)."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, 1, 1, bias=False),
        NORMS[norm](channels),
        nn.ReLU(inplace=True),
        ResidualBlock(channels, channels, norm),
        ResidualBlock(channels, 2 * channels, norm, stride=2),
        ResidualBlock(2 * channels, 2 * channels, norm),
    )


def make_fsem(channels: int, norm: str) -> nn.Sequential:
    """Build one branch of the feature separation extraction module: Z to (B, 16C, H/16, W/16).

    The paper only states the shapes; here a residual block halves the size each time.
    """
    widths = [factor * channels for factor in (2, 4, 8)]
    return nn.Sequential(*(ResidualBlock(width, 2 * width, norm, stride=2) for width in widths))


def make_sm(channels: int, norm: str, prior: float = 0.0) -> nn.Sequential:
    """Build the segmentation module of a branch: Z' (B, 16C, H/16, W/16) to logits (B, 1, H, W) with the mean prior."""
    blocks: list[nn.Module] = []
    for factor in (16, 8, 4, 2):
        half = factor * channels // 2
        blocks += [nn.ConvTranspose2d(2 * half, half, 4, 2, 1, bias=False), NORMS[norm](half), nn.ReLU(inplace=True)]
    last = NarrowTransposed(channels, 1, 3, 1, 1)
    nn.init.constant_(cast(Tensor, last.bias), prior)
    return nn.Sequential(*blocks, last)


class GlobalSemanticRelation(nn.Module):
    """Global semantic relation module: attention over the K cluster centres instead of all N positions (eq. 23, 24).

    Args:
        dimension: Feature dimension d.
        center_length: Length that the centres are brought to, and by which the attention's logits are divided; 1
            leaves both as they are.
    """

    def __init__(self, dimension: int, center_length: float = 1.0) -> None:
        super().__init__()
        self.key = nn.Conv2d(dimension, dimension, 1)
        self.value = nn.Conv2d(dimension, dimension, 1)
        self.center_length = center_length

    def context(self, features: Tensor, centers: Tensor) -> Tensor:
        """Compute M C of eq. 24, shape (B, d, h, w), of features of this shape and centres (K, d)."""
        key = self.key(features).flatten(2).transpose(1, 2)  # K', (B, N, d)
        if self.center_length != 1:
            centers = self.center_length * functional.normalize(centers, dim=1)
        attention = (key @ centers.T / self.center_length).softmax(-1)  # eq. 23, (B, N, K)
        context: Tensor = (attention @ centers).transpose(1, 2).unflatten(2, features.shape[-2:])
        return context

    def forward(self, features: Tensor, centers: Tensor) -> Tensor:
        """Compute Z', same shape as ``features``.

        Args:
            features: Features, shape (B, d, h, w).
            centers: Cluster centres, shape (K, d).
        """
        relation: Tensor = self.value(features) + self.context(features, centers)  # eq. 24
        return relation


class Branch(nn.Module):
    """Texture or defect branch: FSEM, GSRM and SM.

    Args:
        channels: Channels C of the first layer.
        clusters: Number of cluster centres K.
        gsrm: Whether to use the global semantic relation module.
        norm: Name of the norm, see ``NORMS``.
        encoder_channels: Channels of the encoder's maps at strides 4, 8 and 16; none without an encoder.
        skips: Whether the features at strides 8 and 4 are added to those of the SM.
        standardize: Whether features are standardised, and the centres have their length in the GSRM.
        prior: Mean of the logits at the start of training.
    """

    def __init__(
        self,
        channels: int,
        clusters: int,
        gsrm: bool,
        norm: str,
        encoder_channels: Sequence[int] = (),
        skips: bool = False,
        standardize: bool = True,
        prior: float = 0.0,
    ) -> None:
        super().__init__()
        dimension = 16 * channels
        self.fsem = make_fsem(channels, norm)
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, factor * channels, 1, bias=False), NORMS[norm](factor * channels))
            for inputs, factor in zip(encoder_channels, (4, 8, 16), strict=False)
        )
        self.centers = nn.Parameter(functional.normalize(torch.randn(clusters, dimension), dim=1))
        self.gsrm = GlobalSemanticRelation(dimension, dimension**0.5 if standardize else 1.0) if gsrm else None
        self.sm = make_sm(channels, norm, prior)
        self.skips = skips
        self.standardize = standardize

    def extract(self, z: Tensor, maps: Sequence[Tensor] = ()) -> list[Tensor]:
        """Compute the features after each halving, at strides 4, 8 and 16, the last ones of unit length.

        Args:
            z: Z, shape (B, 2C, H/2, W/2).
            maps: Maps of the encoder at strides 4, 8 and 16; further ones have no effect.
        """
        levels = []
        for index, block in enumerate(self.fsem):
            z = block(z)
            if self.projections:
                z = functional.relu(z + self.projections[index](maps[index]))
            levels.append(z)
        if self.standardize:
            # What all positions of an image share would dominate the features, and all centres end in that direction.
            levels[-1] = functional.relu(functional.layer_norm(levels[-1], levels[-1].shape[-2:]))
        # Unit length, so that the features cannot lower L_z (eq. 8) by shrinking, and because Student's t (eq. 11) is
        # flat far from all centres.
        levels[-1] = functional.normalize(levels[-1], dim=1)
        return levels

    def scaled(self, features: Tensor) -> Tensor:
        """Scale features (B, d, h, w) of unit length to about unit variance, which convolutions expect."""
        return features * float(features.shape[1] ** 0.5)

    def forward(self, z: Tensor, maps: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """Compute logits (B, 1, H, W) and features (B, N, d) of unit length, N = H/16 * W/16, as in ``extract``."""
        quarter, eighth, features = self.extract(z, maps)
        scaled = self.scaled(features)
        x = scaled if self.gsrm is None else self.gsrm(scaled, self.centers)
        skipped = iter((eighth, quarter))
        for layer in self.sm:
            x = layer(x)
            if self.skips and isinstance(layer, nn.ReLU) and (skip := next(skipped, None)) is not None:
                x = x + skip
        return x, features.flatten(2).transpose(1, 2)


class SidnModel(DensityNetwork):
    """Semantic information decomposition network: a shared feature extractor, a texture branch and a defect branch.

    Args:
        channels: Channels C of the first layer.
        clusters: Cluster centres K of each branch.
        gsrm: Whether to use the global semantic relation module.
        fusion_weight: Weight of the defect branch in the fusion, lambda_f of eq. 26, in [0, 1].
        median_size: Side of the median filter in pixels, odd; 1 disables it.
        score_share: Share of the highest pixels whose mean is the image score, in (0, 1], without densities.
        norm: Name of the norm, see ``NORMS``; the paper does not specify it.
        backbone: Name of a convolutional timm model whose maps are added to the features; ``None`` for the paper's.
        pre_trained: Whether to load timm's weights, or a file with them.
        skips: Whether the features at strides 8 and 4 are added to those of the SM.
        density_weight: Weight of the distances to normal features in the texture branch; 0 for the paper's. The map is
            otherwise a log-odds, and not limited to [0, 1].
        standardize: Whether features are standardised, and the centres have their length in the GSRM.
        score: Image score with densities, one of ``SCORES``, from the :func:`spread` of maps.
        position_means: Whether the densities are of the features less the mean normal one at each position.
        feature_noise: Scale of the noise in the encoder's maps, see :func:`add_feature_noise`.

    Raises:
        InvalidInputError: If ``score`` is unknown, if timm has no such model, or if it has no feature map at one of the
            strides.
        MissingDataError: If the weights do not exist or cannot be downloaded.
    """

    def __init__(
        self,
        channels: int = 16,
        clusters: int = 12,
        gsrm: bool = True,
        fusion_weight: float = 0.5,
        median_size: int = 3,
        score_share: float = 0.05,
        norm: str = "group",
        backbone: str | None = None,
        pre_trained: bool | str | Path = True,
        skips: bool = False,
        density_weight: float = 0.0,
        standardize: bool = True,
        score: str = "distances",
        position_means: bool = False,
        feature_noise: float = 0.0,
    ) -> None:
        super().__init__()
        check_one_of("score", score, SCORES)
        self.fem = make_fem(channels, norm)
        indices = [] if backbone is None else maps_at(backbone, STRIDES)
        self.encoder = None if backbone is None else Encoder(backbone, pre_trained, indices, frozen=True)
        widths = [] if self.encoder is None else [one.channels for one in self.encoder.maps]
        self.texture = Branch(channels, clusters, gsrm, norm, widths[:3], skips, standardize, PRIOR)
        self.defect = Branch(channels, clusters, gsrm, norm, widths[:3], skips, standardize, -PRIOR)
        self.density = TwoScaleDensity(widths[1:], position_means) if density_weight else None
        self.density_weight = density_weight
        self.fusion_weight = fusion_weight
        self.median = MedianFilter(median_size)
        self.score_share = score_share
        self.score = score
        self.feature_noise = feature_noise
        rename_weights(self, "fine_density.", "density.fine.")
        rename_weights(self, "coarse_density.", "density.coarse.")

    def extract(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute Z (B, 2C, H/2, W/2) and the encoder's maps, if there is one, of images (B, C, H, W), in [0, 1]."""
        return self.fem(image[:, :1] - 0.5), [] if self.encoder is None else self.encoder(image)

    def forward(
        self, image: Tensor, noise: Tensor | None = None, normal: Tensor | None = None
    ) -> SidnOutput | InferenceBatch:
        """Segment images, the paper's network by their first channel.

        Args:
            image: Images, shape (B, C, H, W), float in [0, 1]; H and W are multiples of 16.
            noise: Where noise is added to the encoder's maps, shape (B, 1, H, W), bool.
            normal: Images without a drawn defect, shape (B,), bool, which set the scale of the noise.

        Returns:
            Inputs of the losses in training; otherwise the anomaly map (B, 1, H, W), in [0, 1] without a density, and
            the score (B,).
        """
        z, maps = self.extract(image)
        if noise is not None and normal is not None:
            maps = [add_feature_noise(one, noise, normal, self.feature_noise) for one in maps]
        texture_logits, texture_features = self.texture(z, maps)
        defect_logits, defect_features = self.defect(z, maps)
        if self.training:
            return SidnOutput(texture_logits, defect_logits, texture_features, defect_features)
        if self.density is None:
            anomaly_map = self.median(fuse(texture_logits.sigmoid(), defect_logits.sigmoid(), self.fusion_weight))
            return InferenceBatch(pred_score=top_mean(anomaly_map, self.score_share), anomaly_map=anomaly_map)
        odds = (1 - self.fusion_weight) * -texture_logits + self.fusion_weight * defect_logits
        distance = self.density(maps[1:], image.shape[-2:])
        anomaly_map = self.median(odds + self.density_weight * distance)
        # Images differ in their mean distance, defective or not, and less in how much it varies within an image.
        score = spread(distance)
        if self.score == "product":
            score = score * spread(odds)
        return InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

    def densities(self) -> list[GaussianDensity | NearestCenter]:
        """Return the two densities of the texture branch, if it has them."""
        return [] if self.density is None else self.density.densities()

    def normal_features(self, image: Tensor) -> list[Tensor]:
        """Compute the features, (B, H/8, W/8, C) and (B, H/16, W/16, C), that the densities are fitted to."""
        return [] if self.density is None or self.encoder is None else self.density.describe(self.encoder(image)[1:])


def fuse(texture: Tensor, defect: Tensor, weight: float) -> Tensor:
    """Weighted mean of 1 - I_s^t and I_s^d, eq. 26.

    Args:
        texture: I_s^t, in [0, 1].
        defect: I_s^d, in [0, 1], same shape as ``texture``.
        weight: lambda_f, weight of the defect branch, in [0, 1].
    """
    return (1 - weight) * (1 - texture) + weight * defect
