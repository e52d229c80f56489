"""Image features of a timm model."""

from typing import cast

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from anomalib_defect_plugins.core.errors import InvalidInputError


class TimmFeatures(nn.Module):
    """A timm model without its classifier, with the normalisation it was trained with.

    Args:
        name: Name of the model, such as ``resnet34``.
        pre_trained: Whether to load timm's pretrained weights.

    Attributes:
        num_features: Number of features per image.
        image_size: Height and width of the images that the model was trained with.

    Raises:
        InvalidInputError: If timm does not have the model, or its weights cannot be loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, pre_trained: bool = True) -> None:
        super().__init__()
        try:
            self.backbone = timm.create_model(name, pretrained=pre_trained, num_classes=0)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            msg = f"timm cannot load model {name!r} with {'its' if pre_trained else 'random'} weights ({reason}); "
            msg += "choose another, such as resnet34, or put its weights into the Hugging Face cache (HF_HOME)"
            raise InvalidInputError(msg) from error
        config = resolve_model_data_config(self.backbone)  # type: ignore[no-untyped-call]
        self.num_features = cast(int, self.backbone.num_features)
        self.image_size: tuple[int, int] = tuple(config["input_size"][1:])
        for buffer in ("mean", "std"):
            self.register_buffer(buffer, torch.tensor(config[buffer])[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W), float in [0, 1], to features (B, num_features)."""
        features: Tensor = self.backbone((image - self.mean) / self.std)
        return features
