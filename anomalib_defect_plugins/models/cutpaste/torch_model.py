"""Network of CutPaste: a timm backbone, a classification head for training, and densities of its features.

Paper: CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR 2021,
https://arxiv.org/abs/2104.04015.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from anomalib.data import InferenceBatch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.layers import Encoder, feature_maps
from anomalib_defect_plugins.layers.density import GaussianDensity, Moments
from anomalib_defect_plugins.models.components.fitted_density import DensityNetwork
from anomalib_defect_plugins.models.components.renamed_weights import rename_weights
from anomalib_defect_plugins.models.cutpaste.localization import SCORES, DenseLocalizer, WindowLocalizer, pool

LOCALIZATIONS = ("dense", "patch")


class Selection(NamedTuple):
    """Indices of the feature maps of a backbone."""

    positions: list[int]
    """Maps that positions are scored by."""

    image: list[int]
    """Maps that are pooled for the image score; the last is that of the backbone."""


class CutPasteModel(DensityNetwork):
    """Classifier of images in training; in inference returns the distances of their features to those of normal images.

    Args:
        backbone: Name of a convolutional timm model.
        pre_trained: Whether to load timm's weights into the backbone, or a file with them.
        head_layers: Hidden layers of the head, each as wide as the pooled features, before one of width 128.
        layers: Names of timm's feature maps that ``dense`` scores positions by; ``None`` selects those at strides 8
            and 16.
        image_layers: Names of the maps that ``dense`` pools for the image score besides the last one; ``None`` selects
            those of ``layers``.
        score: Image score of ``dense``: ``features``, ``positions`` or ``both``, see ``DenseLocalizer``.
        classes: Number of classes.
        fine_tuned: Whether training changes the last stage of the backbone only, or nothing of it; ``layers`` must then
            come before it.
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
        image_layers: Sequence[str] | None = (),
        score: str = "features",
        classes: int = 3,
        fine_tuned: bool = False,
    ) -> None:
        super().__init__()
        _check(localization, image_size, window, stride)
        check_one_of("score", score, SCORES)
        dense = localization == "dense"
        maps = select_maps(backbone, layers, image_layers, fine_tuned)
        indices = sorted({*maps.positions, *maps.image}) if dense else maps.image[-1:]
        self.encoder = Encoder(backbone, pre_trained, indices)
        channels = [feature_map.channels for feature_map in self.encoder.maps]
        positions, pooled = ([indices.index(index) for index in one if index in indices] for one in maps)
        self.head = make_head(channels[-1], head_layers, classes)
        self.localizer = (
            DenseLocalizer(channels, positions, pooled, sigma or 4.0, score)
            if dense
            else WindowLocalizer(channels, image_size, window, stride, sigma or window / 8)
        )
        self.register_load_state_dict_pre_hook(_complete)  # type: ignore[no-untyped-call]
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
            Logits (B, classes) in training; otherwise ``pred_score`` (B,) and ``anomaly_map`` (B, 1, H, W), both 0 or
            greater.
        """
        if self.training:
            return cast(Tensor, self.head(pool(self.extract(image)[-1])))
        descriptions = self.localizer.describe(self.extract, image)
        return cast(InferenceBatch, self.localizer(self.distances(descriptions), image.shape[-2:]))

    def distances(self, descriptions: Sequence[Tensor]) -> list[Tensor]:
        """Compute the distances (...) of features (..., C), one for each density."""
        return [density(features) for density, features in zip(self.densities(), descriptions, strict=True)]

    def densities(self) -> list[GaussianDensity]:
        """Return the densities that are fitted to normal images."""
        return [cast(GaussianDensity, density) for density in self.localizer.densities]

    def normal_features(self, image: Tensor) -> list[Tensor]:
        """Compute the features (..., C) that each density is fitted to, of images (B, 3, H, W), float in [0, 1]."""
        return self.localizer.describe(self.extract, image, fitting=True)

    def score_both(self, image: Tensor, moments: Sequence[Moments]) -> Tensor:
        """Compute both scores of normal images, shape (2, B), and add their features to ``moments``; for ``dense``."""
        descriptions = self.normal_features(image)
        for sums, features in zip(moments, descriptions, strict=True):
            sums.update(features)
        return cast(DenseLocalizer, self.localizer).scores(self.distances(descriptions), image.shape[-2:])[0]


def make_head(features: int, hidden: int, classes: int = 3) -> nn.Sequential:
    """Build the classification head: hidden layers as wide as the features, one of width 128, a linear layer.

    Args:
        features: Input channels C.
        hidden: Number of hidden layers before the one of width 128.
        classes: Number of classes.

    Returns:
        Head, (B, C) to (B, classes).
    """
    blocks: list[nn.Module] = []
    for width in [features] * hidden + [128]:
        blocks += [nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks, nn.Linear(128, classes))


def select_maps(
    backbone: str,
    layers: Sequence[str] | None = None,
    image_layers: Sequence[str] | None = (),
    fine_tuned: bool = False,
) -> Selection:
    """Select feature maps of a timm model.

    Args:
        backbone: Name of the model.
        layers: Names of the maps that positions are scored by; ``None`` selects those at strides 8 and 16.
        image_layers: Names of the maps that are pooled besides the last one; ``None`` selects those of ``layers``.
        fine_tuned: Whether positions are scored by maps before the last only, which fine-tuning does not change.

    Raises:
        InvalidInputError: If timm has no convolutional model of this name, or if a map does not exist or is not before
            the last stage.
    """
    maps = feature_maps(backbone)
    names = [feature_map.name for feature_map in maps]
    known = names[:-1] if fine_tuned else names
    if layers is None:
        default = [one.name for one in maps if one.stride in {8, 16} and one.name in known]
        layers = default or known[-1:]
    pooled = layers if image_layers is None else image_layers
    for argument, chosen in (("layers", layers), ("image_layers", pooled)):
        if not set(chosen) <= set(names) or not layers:
            msg = f"{argument} is {list(chosen)}; {backbone} has {', '.join(names)}"
            raise InvalidInputError(msg)
    if not set(layers) <= set(known):
        msg = f"layers is {list(layers)}, but fine-tuning changes {names[-1]}: choose from {', '.join(known)}, "
        raise InvalidInputError(msg + "or set freeze to null")
    positions, image = ({names.index(name) for name in chosen} for chosen in (layers, pooled))
    return Selection(sorted(positions), sorted({*image, len(maps) - 1}))


def _complete(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Complete the weights of earlier checkpoints, which normalised with ImageNet's mean and deviation."""
    mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
    state_dict.setdefault(f"{prefix}encoder.scale", torch.diag(1 / std)[:, :, None, None])
    state_dict.setdefault(f"{prefix}encoder.offset", -mean / std)
    if isinstance(cast(CutPasteModel, module).localizer, DenseLocalizer):
        state_dict.setdefault(f"{prefix}localizer.deviations", torch.ones(2))


def _check(localization: str, image_size: Size, window: int, stride: int) -> None:
    check_one_of("localization", localization, LOCALIZATIONS)
    if localization == "patch" and not MIN_SIDE <= window <= min(image_size):
        msg = f"window is {window}; it must be {MIN_SIDE} or more and fit into images of {tuple(image_size)}"
        raise InvalidInputError(msg)
    if stride < 1:
        msg = f"stride is {stride}; it must be 1 or more"
        raise InvalidInputError(msg)
    if localization == "patch" and stride > window:
        msg = f"stride is {stride}; it must be the window, {window}, or less"
        raise InvalidInputError(msg)
