"""Features of whole images from a timm model."""

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from anomalib_defect_plugins.core.errors import InvalidInputError


class TimmFeatures(nn.Module):
    """A timm model without its classifier, and with the normalisation that it was trained with.

    Args:
        name: Name of the model, such as ``resnet34``.
        pre_trained: Whether it has timm's weights, or random ones.

    Attributes:
        num_features: Features of an image.
        image_size: Height and width of the images that it was trained with.

    Raises:
        InvalidInputError: timm has no such model, or its weights cannot be had.
    """

    def __init__(self, name: str, pre_trained: bool = True) -> None:
        super().__init__()
        try:
            self.backbone = timm.create_model(name, pretrained=pre_trained, num_classes=0)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            msg = f"timm gives no model {name!r} with {'its' if pre_trained else 'random'} weights ({reason}); "
            msg += "choose another, such as resnet34, or put its weights into the Hugging Face cache (HF_HOME)"
            raise InvalidInputError(msg) from error
        config = resolve_model_data_config(self.backbone)
        self.num_features: int = self.backbone.num_features
        self.image_size: tuple[int, int] = tuple(config["input_size"][1:])
        for what in ("mean", "std"):
            self.register_buffer(what, torch.tensor(config[what])[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Describe (B, 3, H, W), float in [0, 1]: (B, num_features)."""
        return self.backbone((image - self.mean) / self.std)
