"""Network of CutPaste: a timm backbone, a classification head for training, and densities of its features.

Paper: CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR 2021,
https://arxiv.org/abs/2104.04015.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import timm
import torch
from anomalib.data import InferenceBatch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.models.cutpaste.density import GaussianDensity, Moments
from anomalib_defect_plugins.models.cutpaste.localization import DenseLocalizer, WindowLocalizer, pool

LOCALIZATIONS = ("dense", "patch")

CLASSES = 3
"""Normal, CutPaste and CutPaste-Scar."""


class CutPasteModel(nn.Module):
    """Classifier of images in training; in inference returns the distances of their features to those of normal images.

    Args:
        backbone: Name of a convolutional timm model.
        pre_trained: Whether to load timm's weights into the backbone.
        head_layers: Hidden layers of the head, each as wide as the pooled features, before one of width 128.
        layers: Names of timm's feature maps that ``dense`` scores positions by; ``None`` selects those at strides 8
            and 16.
        localization: ``dense`` or ``patch``.
        image_size: Height and width of the images, in pixels; only windows depend on it.
        window: Side of the windows of ``patch``, in pixels.
        stride: Pixels from one of these windows to the next.
        sigma: Standard deviation of the smoothing of the anomaly map, in pixels; ``None`` selects 4 for ``dense`` and
            an eighth of the window for ``patch``.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    normalisation: Tensor
    offset: Tensor

    def __init__(
        self,
        backbone: str = "resnet18",
        pre_trained: bool = False,
        head_layers: int = 1,
        layers: Sequence[str] | None = None,
        localization: str = "dense",
        image_size: Size = (256, 256),
        window: int = 64,
        stride: int = 4,
        sigma: float | None = None,
    ) -> None:
        super().__init__()
        _check(localization, image_size, window, stride)
        dense = localization == "dense"
        maps, last = feature_maps(backbone, layers)
        indices = sorted({*maps, last}) if dense else [last]
        self.backbone = timm.create_model(backbone, pretrained=pre_trained, features_only=True, out_indices=indices)
        channels: list[int] = cast(Any, self.backbone.feature_info).channels()
        self.head = make_head(channels[-1], head_layers)
        self.localizer = (
            DenseLocalizer(channels, [indices.index(index) for index in maps], sigma or 4.0)
            if dense
            else WindowLocalizer(channels, image_size, window, stride, sigma or window / 8)
        )
        mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
        # Not persistent, as they are the same for every model.
        self.register_buffer("normalisation", torch.diag(1 / std)[:, :, None, None], persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)

    def extract(self, image: Tensor) -> list[Tensor]:
        """Compute the feature maps (B, C, h, w), fine to coarse, of images (B, 3, H, W), float in [0, 1]."""
        # Normalised here and not before, because pasting works on colours. Clamped, because bicubic resizing may leave
        # [0, 1]. Normalised by a convolution, because OpenVINO 2026 cannot compile arithmetic by channel right after
        # the matrix products of the resizing.
        normalised = functional.conv2d(image.clamp(0, 1), self.normalisation, self.offset)
        return cast(list[Tensor], self.backbone(normalised))

    def forward(self, image: Tensor) -> Tensor | InferenceBatch:
        """Classify images in training, otherwise score and localise their anomalies.

        Args:
            image: Images, shape (B, 3, H, W), float in [0, 1].

        Returns:
            Logits (B, 3) in training; otherwise ``pred_score`` (B,) and ``anomaly_map`` (B, 1, H, W), both distances,
            0 or greater.
        """
        if self.training:
            return cast(Tensor, self.head(pool(self.extract(image)[-1])))
        descriptions = self.localizer.describe(self.extract, image)
        pairs = zip(self.localizer.densities, descriptions, strict=True)
        distances = [density(description) for density, description in pairs]
        return cast(InferenceBatch, self.localizer(distances, image.shape[-2:]))

    def densities(self) -> list[GaussianDensity]:
        """Return the densities that are fitted to normal images."""
        return [cast(GaussianDensity, density) for density in self.localizer.densities]

    def new_moments(self) -> list[Moments]:
        """Create empty sums for each density, on the device of the model if it supports double precision."""
        device = self.offset.device
        device = torch.device("cpu") if device.type == "mps" else device
        return [Moments(len(density.mean), device) for density in self.densities()]

    @torch.no_grad()
    def observe(self, image: Tensor, moments: Sequence[Moments]) -> None:
        """Add the features of normal images to ``moments``; the model must be in evaluation mode.

        Args:
            image: Images, shape (B, 3, H, W), float in [0, 1].
            moments: Sums, one for each density.
        """
        descriptions = self.localizer.describe(self.extract, image, fitting=True)
        for sums, features in zip(moments, descriptions, strict=True):
            sums.update(features)

    def fit(self, moments: Sequence[Moments], total: Callable[[Tensor], Tensor] = lambda value: value) -> None:
        """Fit the densities to the observed features.

        Args:
            moments: Sums, one for each density.
            total: Function that adds a tensor up over the processes of a distributed training run.

        Raises:
            InvalidInputError: If there were fewer than two normal images, or if the features are not finite.
        """
        for density, sums in zip(self.densities(), moments, strict=True):
            sums.reduce(total)
            density.fit(sums)


def make_head(features: int, hidden: int) -> nn.Sequential:
    """Build the classification head: hidden layers as wide as the features, one of width 128, a linear layer.

    Args:
        features: Input channels C.
        hidden: Number of hidden layers before the one of width 128.

    Returns:
        Head, (B, C) to (B, 3).
    """
    blocks: list[nn.Module] = []
    for width in [features] * hidden + [128]:
        blocks += [nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks, nn.Linear(128, CLASSES))


def feature_maps(backbone: str, layers: Sequence[str] | None = None) -> tuple[list[int], int]:
    """Look up feature maps of a timm model.

    Args:
        backbone: Name of the model.
        layers: Names of the maps; ``None`` selects those at strides 8 and 16.

    Returns:
        Indices of these maps, and index of the last map.

    Raises:
        InvalidInputError: If timm has no convolutional model of this name, or if a map does not exist.
    """
    try:
        with torch.device("meta"):  # computes nothing and draws no random numbers
            model = timm.create_model(backbone, pretrained=False, features_only=True)
            info: list[dict[str, Any]] = cast(Any, model.feature_info).info
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        msg = f"backbone is {backbone!r}, which gives no feature maps ({reason}); choose a convolutional model of timm"
        raise InvalidInputError(msg) from error
    names = [feature_map["module"] for feature_map in info]
    if layers is None:
        indices = [index for index, feature_map in enumerate(info) if feature_map["reduction"] in {8, 16}]
        return indices or [len(info) - 1], len(info) - 1
    if not layers or not set(layers) <= set(names):
        msg = f"layers is {list(layers)}; {backbone} has {', '.join(names)}"
        raise InvalidInputError(msg)
    return sorted(names.index(layer) for layer in set(layers)), len(info) - 1


def _check(localization: str, image_size: Size, window: int, stride: int) -> None:
    check_one_of("localization", localization, LOCALIZATIONS)
    if localization == "patch" and not MIN_SIDE <= window <= min(image_size):
        msg = f"window is {window}; it must be {MIN_SIDE} or more and fit into images of {tuple(image_size)}"
        raise InvalidInputError(msg)
    if stride < 1:
        msg = f"stride is {stride}; it must be 1 or more"
        raise InvalidInputError(msg)
