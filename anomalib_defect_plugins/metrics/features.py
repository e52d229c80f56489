"""Pretrained feature extractors, for distances between sets of images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers.timm_features import TimmFeatures

INCEPTION = "inception"
"""Name of the extractor whose Fréchet distance is the FID."""

BATCH_SIZE = 32


@dataclass(frozen=True)
class Extractor:
    """Feature extractor.

    Args:
        name: Name that users see.
        network: Maps images (B, 3, H, W), float in [0, 1], to features (B, D).
    """

    name: str
    network: nn.Module

    @property
    def measure(self) -> str:
        """Name of the Fréchet distance of its features; only that of Inception is called FID."""
        return "FID" if self.name == INCEPTION else f"squared Fréchet distance on features of {self.name}"

    @torch.inference_mode()
    def __call__(self, images: Iterable[Tensor]) -> npt.NDArray[np.float32]:
        """Map one or more images (3, H, W), float in [0, 1], to features (N, D)."""
        device = next(self.network.parameters(), torch.zeros(())).device
        batches = (torch.stack(batch).to(device) for batch in _batched(images))
        return np.concatenate([self.network(batch).float().cpu().numpy() for batch in batches])


def make_extractor(name: str, device: str | None = None) -> Extractor:
    """Load a pretrained extractor.

    Args:
        name: ``inception`` for the network of FID, which needs torch-fidelity, or a timm model.
        device: Device of the network; defaults to a GPU if one is available.

    Raises:
        InvalidInputError: If the network cannot be loaded.
    """
    network = InceptionFeatures() if name == INCEPTION else ResizedFeatures(name)
    return Extractor(name, network.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu")))


class ResizedFeatures(nn.Module):
    """A timm model that resizes images to the size it was trained with.

    Args:
        name: Name of the model.
        pre_trained: Whether to load timm's pretrained weights.

    Raises:
        InvalidInputError: If timm does not have the model, or its weights cannot be loaded.
    """

    def __init__(self, name: str, pre_trained: bool = True) -> None:
        super().__init__()
        self.features = TimmFeatures(name, pre_trained)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W), float in [0, 1], to features (B, D)."""
        size = list(self.features.image_size)
        features: Tensor = self.features(resize(image, size, InterpolationMode.BICUBIC, antialias=True).clamp(0, 1))
        return features


class InceptionFeatures(nn.Module):
    """The network that FID is defined by, which resizes images itself.

    Raises:
        InvalidInputError: If torch-fidelity is not installed, or its weights cannot be loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        try:
            self.network = NoTrainInceptionV3("inception-v3-compat", ["2048"])
        except (ModuleNotFoundError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            msg = f"the Inception network of FID cannot be loaded ({reason}); install torch-fidelity and let it "
            msg += "download its weights, or name a timm model, such as resnet18, instead"
            raise InvalidInputError(msg) from error

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W), float in [0, 1], to features (B, 2048)."""
        features: Tensor = self.network((image * 255).round().byte())
        return features.flatten(1)


def _batched(images: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    for image in images:
        batch.append(image)
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch
