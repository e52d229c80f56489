"""Network of CutPaste: a timm backbone, a classification head for training, and densities of its features.

Paper: CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR 2021,
https://arxiv.org/abs/2104.04015.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import InferenceBatch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.layers import Encoder, feature_maps
from anomalib_defect_plugins.layers.density import GaussianDensity
from anomalib_defect_plugins.models.components.fitted_density import DensityNetwork
from anomalib_defect_plugins.models.components.renamed_weights import rename_weights
from anomalib_defect_plugins.models.cutpaste.localization import DenseLocalizer, WindowLocalizer, pool

LOCALIZATIONS = ("dense", "patch")

CLASSES = 3
"""Normal, CutPaste and CutPaste-Scar."""


class CutPasteModel(DensityNetwork):
    """Classifier of images in training; in inference returns the distances of their features to those of normal images.

    Args:
        backbone: Name of a convolutional timm model.
        pre_trained: Whether to load timm's weights into the backbone, or a file with them.
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

    def __init__(
        self,
        backbone: str = "resnet18",
        pre_trained: bool | str | Path = False,
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
        maps, last = select_maps(backbone, layers)
        indices = sorted({*maps, last}) if dense else [last]
        self.encoder = Encoder(backbone, pre_trained, indices)
        channels = [feature_map.channels for feature_map in self.encoder.maps]
        self.head = make_head(channels[-1], head_layers)
        self.localizer = (
            DenseLocalizer(channels, [indices.index(index) for index in maps], sigma or 4.0)
            if dense
            else WindowLocalizer(channels, image_size, window, stride, sigma or window / 8)
        )
        self.register_load_state_dict_pre_hook(_normalise_as_before)  # type: ignore[no-untyped-call]
        rename_weights(self, "backbone.", "encoder.backbone.")

    def extract(self, image: Tensor) -> list[Tensor]:
        """Compute the feature maps (B, C, h, w), fine to coarse, of images (B, 3, H, W), float in [0, 1]."""
        # The encoder normalises them; the pre-processor cannot, because pasting works on colours.
        return cast(list[Tensor], self.encoder(image))

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

    def normal_features(self, image: Tensor) -> list[Tensor]:
        """Compute the features (..., C) that each density is fitted to, of images (B, 3, H, W), float in [0, 1]."""
        return self.localizer.describe(self.extract, image, fitting=True)


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


def select_maps(backbone: str, layers: Sequence[str] | None = None) -> tuple[list[int], int]:
    """Look up feature maps of a timm model.

    Args:
        backbone: Name of the model.
        layers: Names of the maps; ``None`` selects those at strides 8 and 16.

    Returns:
        Indices of these maps, and index of the last map.

    Raises:
        InvalidInputError: If timm has no convolutional model of this name, or if a map does not exist.
    """
    maps = feature_maps(backbone)
    last = len(maps) - 1
    if layers is None:
        return [index for index, feature_map in enumerate(maps) if feature_map.stride in {8, 16}] or [last], last
    names = [feature_map.name for feature_map in maps]
    if not layers or not set(layers) <= set(names):
        msg = f"layers is {list(layers)}; {backbone} has {', '.join(names)}"
        raise InvalidInputError(msg)
    return sorted(names.index(layer) for layer in set(layers)), last


def _normalise_as_before(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Normalise with ImageNet's mean and deviation where checkpoints of 0.1 did so for any backbone."""
    del module
    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    state_dict.setdefault(f"{prefix}encoder.scale", torch.diag(1 / std)[:, :, None, None])
    state_dict.setdefault(f"{prefix}encoder.offset", -mean / std)


def _check(localization: str, image_size: Size, window: int, stride: int) -> None:
    check_one_of("localization", localization, LOCALIZATIONS)
    if localization == "patch" and not MIN_SIDE <= window <= min(image_size):
        msg = f"window is {window}; it must be {MIN_SIDE} or more and fit into images of {tuple(image_size)}"
        raise InvalidInputError(msg)
    if stride < 1:
        msg = f"stride is {stride}; it must be 1 or more"
        raise InvalidInputError(msg)
