"""Pretrained networks that describe images, for distances between sets of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers.timm_features import TimmFeatures

INCEPTION = "inception"
"""Name of the extractor whose Fréchet distance is FID."""

BATCH = 32
"""Images that are described at once."""


@dataclass(frozen=True)
class Extractor:
    """A network that describes images.

    Args:
        name: Its name for the user.
        network: Maps (B, 3, H, W), float in [0, 1], to features (B, D).
    """

    name: str
    network: nn.Module

    @property
    def measure(self) -> str:
        """What the Fréchet distance of its features is called: FID for those of Inception alone."""
        return "FID" if self.name == INCEPTION else f"squared Fréchet distance on features of {self.name}"

    @torch.inference_mode()
    def __call__(self, images: Iterable[Tensor]) -> np.ndarray:
        """Describe images (3, H, W), float in [0, 1], one at least: (N, D)."""
        device = next(self.network.parameters(), torch.zeros(())).device
        batches = (torch.stack(batch).to(device) for batch in _batched(images))
        return np.concatenate([self.network(batch).float().cpu().numpy() for batch in batches])


def make_extractor(name: str, device: str | None = None) -> Extractor:
    """Make a pretrained extractor.

    Args:
        name: ``inception`` for the network of FID, which needs torch-fidelity; or a timm model.
        device: Where it works; by default on a GPU if there is one.

    Raises:
        InvalidInputError: It cannot be had.
    """
    network = Inception() if name == INCEPTION else ResizedFeatures(name)
    return Extractor(name, network.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu")))


class ResizedFeatures(nn.Module):
    """A timm model that sees images at the size that it was trained with.

    Args:
        name: Name of the model.
        pre_trained: Whether it has timm's weights, or random ones.

    Raises:
        InvalidInputError: timm has no such model, or its weights cannot be had.
    """

    def __init__(self, name: str, pre_trained: bool = True) -> None:
        super().__init__()
        self.features = TimmFeatures(name, pre_trained)

    def forward(self, image: Tensor) -> Tensor:
        """Describe (B, 3, H, W), float in [0, 1]: (B, D)."""
        size = list(self.features.image_size)
        features: Tensor = self.features(resize(image, size, InterpolationMode.BICUBIC, antialias=True).clamp(0, 1))
        return features


class Inception(nn.Module):
    """The network that FID is defined by, which resizes for itself.

    Raises:
        InvalidInputError: torch-fidelity is not installed, or its weights cannot be had.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        try:
            self.network = NoTrainInceptionV3("inception-v3-compat", ["2048"])
        except (ModuleNotFoundError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            msg = f"the Inception network of FID cannot be had ({reason}); install torch-fidelity and let it fetch its "
            raise InvalidInputError(msg + "weights, or name a timm model, such as resnet18, instead") from error

    def forward(self, image: Tensor) -> Tensor:
        """Describe (B, 3, H, W), float in [0, 1]: (B, 2048)."""
        features: Tensor = self.network((image * 255).round().byte())
        return features.flatten(1)


def _batched(images: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    for image in images:
        batch.append(image)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
