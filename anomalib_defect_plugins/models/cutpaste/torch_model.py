"""The network of CutPaste: a timm backbone, a classification head for training, and densities of its features.

Paper: CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR 2021,
https://arxiv.org/abs/2104.04015.
"""

from collections.abc import Callable, Sequence

import timm
import torch
from anomalib.data import InferenceBatch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.models.cutpaste.density import Moments
from anomalib_defect_plugins.models.cutpaste.localization import DenseLocalizer, WindowLocalizer, pool

LOCALIZATIONS = ("dense", "patch")

CLASSES = 3
"""Normal, CutPaste and CutPaste-Scar."""


class CutPasteModel(nn.Module):
    """Classifies images in training; in inference gives the distances of their features to those of normal images.

    Args:
        backbone: Name of a convolutional timm model.
        pre_trained: Whether the backbone starts from timm's weights, or at random.
        head_layers: Hidden layers of the head, each as wide as the pooled features, before one of 128.
        layers: Feature maps that positions are judged by if localisation is ``dense``, by timm's names; ``None`` takes
            those at strides 8 and 16.
        localization: ``dense`` or ``patch``.
        image_size: Height and width of the images, in pixels; only windows depend on it.
        window: Side of the windows of ``patch``, in pixels.
        stride: Pixels between those windows.
        sigma: Smoothing of the anomaly map, in pixels; ``None`` is 4 for ``dense``, and an eighth of the window.

    Raises:
        InvalidInputError: An argument cannot be.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        pre_trained: bool = False,
        head_layers: int = 1,
        layers: Sequence[str] | None = None,
        localization: str = "dense",
        image_size: tuple[int, int] = (256, 256),
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
        channels = self.backbone.feature_info.channels()
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
        """Give the feature maps (B, C, h, w), fine to coarse, of images (B, 3, H, W), float in [0, 1]."""
        # Normalised here and not before, because the pasting works on colours. Bicubic resizing may leave [0, 1].
        # As a convolution, because OpenVINO 2026 cannot compile arithmetic by channel right after the resizing's
        # matrix products.
        return self.backbone(functional.conv2d(image.clamp(0, 1), self.normalisation, self.offset))

    def forward(self, image: Tensor) -> Tensor | InferenceBatch:
        """Classify, or judge, images (B, 3, H, W), float in [0, 1].

        Returns:
            In training the logits (B, 3); else ``pred_score`` (B,) and ``anomaly_map`` (B, 1, H, W), both of them
            distances, 0 or more.
        """
        if self.training:
            return self.head(pool(self.extract(image)[-1]))
        descriptions = self.localizer.describe(self.extract, image)
        pairs = zip(self.localizer.densities, descriptions, strict=True)
        return self.localizer([density(description) for density, description in pairs], image.shape[-2:])

    def new_moments(self) -> list[Moments]:
        """Give empty sums for each density, on the device of the model if it knows double precision."""
        device = self.offset.device
        device = torch.device("cpu") if device.type == "mps" else device
        return [Moments(len(density.mean), device) for density in self.localizer.densities]

    @torch.no_grad()
    def observe(self, image: Tensor, moments: Sequence[Moments]) -> None:
        """Add the features of normal images (B, 3, H, W), float in [0, 1], to ``moments``. For the eval mode."""
        for part, features in zip(moments, self.localizer.describe(self.extract, image, fitting=True), strict=True):
            part.update(features)

    def fit(self, moments: Sequence[Moments], total: Callable[[Tensor], Tensor] = lambda value: value) -> None:
        """Fit the densities to what was observed.

        Args:
            moments: One for each density.
            total: Adds up a tensor over the processes of a distributed training.

        Raises:
            InvalidInputError: There were fewer than two normal images, or the features are not finite.
        """
        for density, part in zip(self.localizer.densities, moments, strict=True):
            part.reduce(total)
            density.fit(part)


def make_head(features: int, hidden: int) -> nn.Sequential:
    """Classification head: hidden layers as wide as the features, one of 128, and a linear layer, (B, C) to (B, 3)."""
    blocks: list[nn.Module] = []
    for width in [features] * hidden + [128]:
        blocks += [nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks, nn.Linear(128, CLASSES))


def feature_maps(backbone: str, layers: Sequence[str] | None = None) -> tuple[list[int], int]:
    """Look feature maps of a timm model up.

    Args:
        backbone: Its name.
        layers: Names of the maps; ``None`` takes those at strides 8 and 16.

    Returns:
        The indices of these maps, and that of the last map.

    Raises:
        InvalidInputError: timm has no such model, or it has no such maps.
    """
    try:
        with torch.device("meta"):  # nothing is computed, and no random number drawn
            info = timm.create_model(backbone, pretrained=False, features_only=True).feature_info.info
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        msg = f"backbone is {backbone!r}, which gives no feature maps ({reason}); choose a convolutional model of timm"
        raise InvalidInputError(msg) from error
    names = [part["module"] for part in info]
    if layers is None:
        chosen = [index for index, part in enumerate(info) if part["reduction"] in {8, 16}]
        return chosen or [len(info) - 1], len(info) - 1
    if not layers or not set(layers) <= set(names):
        msg = f"layers is {list(layers)}; {backbone} has {', '.join(names)}"
        raise InvalidInputError(msg)
    return sorted(names.index(layer) for layer in set(layers)), len(info) - 1


def _check(localization: str, image_size: tuple[int, int], window: int, stride: int) -> None:
    check_one_of("localization", localization, LOCALIZATIONS)
    if not MIN_SIDE <= window <= min(image_size):
        msg = f"window is {window}; it must be {MIN_SIDE} at least and fit into images of {tuple(image_size)}"
        if localization == "patch":
            raise InvalidInputError(msg)
    if stride < 1:
        msg = f"stride is {stride}; it must be 1 or more"
        raise InvalidInputError(msg)
