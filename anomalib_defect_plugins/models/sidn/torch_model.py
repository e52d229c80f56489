"""Semantic information decomposition network (SIDN).

Paper: A semantic information decomposition network for accurate segmentation of texture defects, IEEE Transactions on
Industrial Informatics 2023, https://doi.org/10.1109/TII.2022.3217751. FEM, FSEM, GSRM and SM are its sections III-B to
III-D; each block documents the details that the paper leaves open.
"""

from typing import NamedTuple

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.layers import NORMS, MedianFilter, top_mean


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


def make_sm(channels: int, norm: str) -> nn.Sequential:
    """Build the segmentation module of one branch: Z' (B, 16C, H/16, W/16) to logits (B, 1, H, W)."""
    blocks: list[nn.Module] = []
    for factor in (16, 8, 4, 2):
        half = factor * channels // 2
        blocks += [nn.ConvTranspose2d(2 * half, half, 4, 2, 1, bias=False), NORMS[norm](half), nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks, nn.ConvTranspose2d(channels, 1, 3, 1, 1))


class GlobalSemanticRelation(nn.Module):
    """Global semantic relation module: attention over the K cluster centres instead of all N positions (eq. 23, 24).

    Args:
        dimension: Feature dimension d.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(dimension, dimension, 1)
        self.value = nn.Conv2d(dimension, dimension, 1)

    def forward(self, features: Tensor, centers: Tensor) -> Tensor:
        """Compute Z', same shape as ``features``.

        Args:
            features: Features, shape (B, d, h, w).
            centers: Cluster centres, shape (K, d).
        """
        key = self.key(features).flatten(2).transpose(1, 2)  # K', (B, N, d)
        attention = (key @ centers.T).softmax(-1)  # eq. 23, (B, N, K)
        context = (attention @ centers).transpose(1, 2)
        relation: Tensor = self.value(features) + context.unflatten(2, features.shape[-2:])  # eq. 24
        return relation


class Branch(nn.Module):
    """Texture or defect branch: FSEM, GSRM and SM.

    Args:
        channels: Channels C of the first layer.
        clusters: Number of cluster centres K.
        gsrm: Whether to use the global semantic relation module.
        norm: Name of the norm, see ``NORMS``.
    """

    def __init__(self, channels: int, clusters: int, gsrm: bool, norm: str) -> None:
        super().__init__()
        self.fsem = make_fsem(channels, norm)
        self.centers = nn.Parameter(functional.normalize(torch.randn(clusters, 16 * channels), dim=1))
        self.gsrm = GlobalSemanticRelation(16 * channels) if gsrm else None
        self.sm = make_sm(channels, norm)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits (B, 1, H, W) and features (B, N, d) of unit length, N = H/16 * W/16."""
        # Unit length, so that the features cannot lower L_z (eq. 8) by shrinking, and because Student's t (eq. 11) is
        # flat far from all centres.
        features = functional.normalize(self.fsem(z), dim=1)
        # Convolutions expect values of about unit variance.
        scaled = features * features.shape[1] ** 0.5
        related = scaled if self.gsrm is None else self.gsrm(scaled, self.centers)
        return self.sm(related), features.flatten(2).transpose(1, 2)


class SidnModel(nn.Module):
    """Semantic information decomposition network: a shared feature extractor, a texture branch and a defect branch.

    Args:
        channels: Channels C of the first layer.
        clusters: Cluster centres K of each branch.
        gsrm: Whether to use the global semantic relation module.
        fusion_weight: Weight of the defect branch in the fusion, lambda_f of eq. 26, in [0, 1].
        median_size: Side of the median filter in pixels, odd; 1 disables it.
        score_share: Share of the highest pixels whose mean is the image score, in (0, 1].
        norm: Name of the norm, see ``NORMS``; the paper does not specify it.
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
    ) -> None:
        super().__init__()
        self.fem = make_fem(channels, norm)
        self.texture = Branch(channels, clusters, gsrm, norm)
        self.defect = Branch(channels, clusters, gsrm, norm)
        self.fusion_weight = fusion_weight
        self.median = MedianFilter(median_size)
        self.score_share = score_share

    def forward(self, image: Tensor) -> SidnOutput | InferenceBatch:
        """Segment images by their first channel.

        Args:
            image: Images, shape (B, C, H, W), float in [0, 1]; H and W are multiples of 16.

        Returns:
            Inputs of the losses in training; otherwise the anomaly map (B, 1, H, W) and the score (B,), both in
            [0, 1].
        """
        z = self.fem(image[:, :1] - 0.5)
        texture_logits, texture_features = self.texture(z)
        defect_logits, defect_features = self.defect(z)
        if self.training:
            return SidnOutput(texture_logits, defect_logits, texture_features, defect_features)
        fused = fuse(texture_logits.sigmoid(), defect_logits.sigmoid(), self.fusion_weight)
        anomaly_map = self.median(fused)
        return InferenceBatch(pred_score=top_mean(anomaly_map, self.score_share), anomaly_map=anomaly_map)


def fuse(texture: Tensor, defect: Tensor, weight: float) -> Tensor:
    """Weighted mean of 1 - I_s^t and I_s^d, eq. 26.

    Args:
        texture: I_s^t, in [0, 1].
        defect: I_s^d, in [0, 1], same shape as ``texture``.
        weight: lambda_f, weight of the defect branch, in [0, 1].
    """
    return (1 - weight) * (1 - texture) + weight * defect
