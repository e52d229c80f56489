"""Feature maps of convolutional timm models."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from timm.models import load_state_dict
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.layers.folded_norms import NormedConvolution, normed_convolutions, norms_by_convolutions

_from_checkpoint: ContextVar[bool] = ContextVar("from_checkpoint", default=False)


class FeatureMap(NamedTuple):
    """A feature map of a timm model."""

    name: str
    channels: int
    stride: int


@contextmanager
def weights_from_checkpoint() -> Iterator[None]:
    """Create encoders without their pretrained weights, because a checkpoint is loaded into them right afterwards."""
    token = _from_checkpoint.set(True)
    try:
        yield
    finally:
        _from_checkpoint.reset(token)


class Encoder(nn.Module):
    """Feature maps of a convolutional timm model, which normalises images itself.

    With pretrained weights, batch norm uses the averages of the pretraining, also in training: batches of a few images
    from one production line would distort them.

    Args:
        backbone: Name of the model.
        pre_trained: Whether to load timm's weights, which are downloaded once; or a file with them, such as
            ``model.safetensors`` or ``mobilenetv2_100.pth``, for machines without a network.
        maps: Indices of the feature maps, fine to coarse; by default all.
        frozen: Whether the weights are excluded from training.

    Attributes:
        maps: The feature maps, fine to coarse.
        frozen: Whether the weights are excluded from training.

    Raises:
        InvalidInputError: If timm has no convolutional model of this name, or the file has the weights of another one.
        MissingDataError: If the weights do not exist or cannot be downloaded.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        backbone: str,
        pre_trained: bool | str | Path = True,
        maps: Sequence[int] | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        available = feature_maps(backbone)
        indices = list(range(len(available))) if maps is None else list(maps)
        self.maps = [available[index] for index in indices]
        self.frozen = frozen
        self.keep_norms = pre_trained is not False
        self.backbone = _create(backbone, pre_trained, indices).requires_grad_(not frozen)
        # Convolutions take the layout of their weights: a fifth less time for a step of CutPaste on a CPU.
        self.backbone.to(memory_format=torch.channels_last)
        mean, std = (torch.tensor(cast(Any, self.backbone).pretrained_cfg[name]) for name in ("mean", "std"))
        self.register_buffer("scale", torch.diag(1 / std)[:, :, None, None])
        self.register_buffer("offset", -mean / std)
        self.train()  # Lightning trains in the mode that a model is created in
        self._normed: list[NormedConvolution] | None = None

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the feature maps.

        Args:
            image: Images, shape (B, 3, H, W) or (B, 1, H, W), float in [0, 1]; grey is repeated.

        Returns:
            Feature maps, shape (B, C, h, w), fine to coarse.

        Raises:
            InvalidInputError: If PyTorch's conversion to synchronised batch norms has removed activations.
        """
        if not torch.compiler.is_compiling():
            self._check_activations()
        # Clamped, because bicubic resizing may leave [0, 1]. Normalised by a convolution, because OpenVINO 2026 cannot
        # compile arithmetic by channel right after the matrix products of the resizing.
        colours = image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image
        normalised = functional.conv2d(colours.clamp(0, 1), self.scale, self.offset)
        with norms_by_convolutions(self._folded(normalised)):
            return cast(list[Tensor], self.backbone(normalised))

    def _folded(self, image: Tensor) -> list[NormedConvolution]:
        """Return the convolutions that compute their norms, in training only: several threads may predict at once."""
        compiled = torch.compiler.is_compiling()  # compilers fold norms themselves
        again = getattr(self.backbone, "grad_checkpointing", False)  # computes features after this call
        if not (self.training and self.keep_norms and torch.is_grad_enabled()) or compiled or again:
            return []
        if self._normed is None:
            self._normed = normed_convolutions(self.backbone, image[:1])
        present = set(self.backbone.modules())  # layers may have been replaced, as for synchronised batch norm
        return [pair for pair in self._normed if present.issuperset(pair)]

    def _check_activations(self) -> None:
        # Batch norms of many timm models apply the activation after them, which the conversion does not know.
        if any(isinstance(module, nn.SyncBatchNorm) and hasattr(module, "act") for module in self.backbone.modules()):
            msg = "trainer.sync_batchnorm is true, which removes the activations after the batch norms of this backbone"
            raise InvalidInputError(msg + "; leave it out, or choose another one, such as resnet18")

    def train(self, mode: bool = True) -> "Encoder":
        """Set training or inference; batch norm with pretrained averages, and a frozen encoder, stay in inference."""
        super().train(mode and not self.frozen)
        if self.keep_norms:
            for module in self.modules():
                if isinstance(module, BatchNorm):
                    module.eval()
        return self


def feature_maps(backbone: str) -> list[FeatureMap]:
    """Return the feature maps of a timm model, fine to coarse.

    Raises:
        InvalidInputError: If timm has no convolutional model of this name.
    """
    try:
        with torch.device("meta"):  # computes nothing and draws no random numbers
            model = timm.create_model(backbone, pretrained=False, features_only=True)
            info: list[dict[str, Any]] = cast(Any, model.feature_info).info
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        msg = f"backbone is {backbone!r}, which has no feature maps ({reason}); choose a convolutional model of timm"
        raise InvalidInputError(msg) from error
    return [FeatureMap(one["module"], one["num_chs"], one["reduction"]) for one in info]


def maps_at(backbone: str, strides: Sequence[int]) -> list[int]:
    """Return the indices of a timm model's feature maps at some strides.

    Raises:
        InvalidInputError: If timm has no convolutional model of this name, or it has no map of one of the strides.
    """
    index = {feature_map.stride: number for number, feature_map in enumerate(feature_maps(backbone))}
    missing = [stride for stride in strides if stride not in index]
    if missing:
        msg = f"backbone is {backbone!r}, which has no feature map of stride {missing[0]}; choose another one, "
        raise InvalidInputError(msg + "such as mobilenetv2_100")
    return [index[stride] for stride in strides]


def _create(backbone: str, pre_trained: bool | str | Path, indices: Sequence[int]) -> nn.Module:
    options: dict[str, Any] = {"pretrained": pre_trained is not False and not _from_checkpoint.get()}
    if options["pretrained"] and not isinstance(pre_trained, bool):
        _check_weights(backbone, Path(pre_trained))
        options["pretrained_cfg_overlay"] = {"file": str(pre_trained)}
    try:
        network = timm.create_model(backbone, features_only=True, out_indices=indices, **options)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = (
            f"the weights of {backbone} cannot be loaded ({reason}); connect to the network once, or set pre_trained "
            "to a file with them, or to false to load a checkpoint or to start from random weights"
        )
        raise MissingDataError(msg) from error
    if isinstance(network, EfficientNetFeatures | MobileNetV3Features):
        _remove_unused_stages(network)
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = False  # in place it copies its input for the gradient
    return network


def _remove_unused_stages(network: EfficientNetFeatures | MobileNetV3Features) -> None:
    """Remove the stages after the last feature map, which timm computes for nothing, also from older checkpoints."""
    count = max(network._stage_out_idx)
    unused = [f"blocks.{index}." for index in range(count, len(network.blocks))]
    network.blocks = network.blocks[:count]
    network.register_load_state_dict_pre_hook(partial(_forget, unused))  # type: ignore[no-untyped-call]


def _forget(unused: Sequence[str], _: nn.Module, state_dict: dict[str, Any], prefix: str, *__: object) -> None:
    beginnings = tuple(prefix + beginning for beginning in unused)
    for name in [name for name in state_dict if name.startswith(beginnings)]:
        del state_dict[name]


def _check_weights(backbone: str, path: Path) -> None:
    """Check that a file has the weights of a model, because timm ignores missing ones."""
    if not path.is_file():
        msg = f"pre_trained is {path}, which does not exist; set it to a file with the weights of {backbone}"
        raise MissingDataError(msg)
    with torch.device("meta"):
        expected = _shapes(timm.create_model(backbone, num_classes=0).state_dict())
    try:
        found = _shapes(load_state_dict(str(path)))
    except Exception as error:  # readers of weights raise errors of many types on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"pre_trained is {path}, which is not a file of weights ({reason}); choose one of {backbone}"
        raise InvalidInputError(msg) from error
    if len(expected & found) < len(expected) / 2:
        msg = f"pre_trained is {path}, which has the weights of another model than {backbone}; choose a file of it"
        raise InvalidInputError(msg)


def _shapes(weights: Mapping[str, Any]) -> set[tuple[str, torch.Size]]:
    return {(name, value.shape) for name, value in weights.items()}
