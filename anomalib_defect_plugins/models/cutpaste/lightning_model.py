"""CutPaste: trained to tell pasted patches from normal texture, then a density is fitted to its features.

Paper: CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR 2021,
https://arxiv.org/abs/2104.04015.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import Batch
from anomalib.data.utils import LabelName
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD

from anomalib_defect_plugins.core.checks import check_not_negative, check_number, check_positive
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data.training_set import new_rng
from anomalib_defect_plugins.generators import CutPasteDefects, CutPasteScarDefects
from anomalib_defect_plugins.models.components.callbacks import StopAfter
from anomalib_defect_plugins.models.components.checks import check_finite
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.fitted_density import FittedDensity
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.cutpaste.augmentation import classes, vary
from anomalib_defect_plugins.models.cutpaste.torch_model import CutPasteModel


class CutPaste(FittedDensity, DefectModel, IterativeTraining, AnomalibModule):
    """Self-supervised three-way classification (normal, CutPaste, CutPaste-Scar), then a Gaussian density.

    Args:
        image_size: Height and width that images are resized to, in pixels. ``None`` selects those of the training
            images for ``dense``, scaled down to 256 x 256 pixels if they have more, and the paper's (256, 256) for
            ``patch``. A custom ``pre_processor`` overrides it, and must leave pixel values in [0, 1].
        backbone: Name of a convolutional timm model; ``resnet18`` in the paper.
        pre_trained: Whether to load timm's weights into the backbone, which are downloaded once; or a file with them.
            Its batch norm then keeps the averages of the pretraining. The paper trains from random weights, with a
            learning rate of 0.03.
        head_layers: Hidden layers of the classification head, each as wide as the pooled features.
        localization: ``dense`` scores the positions of feature maps, and the image by its pooled features. ``patch``
            trains on windows, scores each window of an image in a separate pass, which takes a hundred times as long,
            and the image by its highest window score.
        layers: Names of timm's feature maps that ``dense`` scores positions by; ``None`` selects those at strides 8
            and 16.
        window: Side of the windows of ``patch``, in pixels.
        stride: Pixels from one of these windows to the next.
        sigma: Standard deviation of the smoothing of the anomaly map, in pixels; ``None`` selects 4 for ``dense`` and
            an eighth of the window for ``patch``.
        iterations: Training steps; the paper has 65,536. 0 selects the null model: the density of an untrained
            backbone's features.
        learning_rate: Initial learning rate of SGD; it falls to 0 along a cosine.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        translation: Maximum random shift of training images, as a fraction of their size, in [0, 0.5].
        jitter: Strength of their random colour jitter, as in torchvision's ``ColorJitter``, in [0, 0.5].
        pre_processor: As in anomalib.
        post_processor: As in anomalib.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    supervision = Supervision.NORMAL
    paper = "https://arxiv.org/abs/2104.04015"
    max_pixels = 256 * 256

    model: CutPasteModel

    def __init__(
        self,
        image_size: tuple[int, int] | None = None,
        backbone: str = "mobilenetv2_100",
        pre_trained: bool | str | Path = True,
        head_layers: int = 1,
        localization: str = "dense",
        layers: Sequence[str] | None = None,
        window: int = 64,
        stride: int = 4,
        sigma: float | None = None,
        iterations: int = 300,
        learning_rate: float = 0.003,
        momentum: float = 0.9,
        weight_decay: float = 3e-5,
        translation: float = 0.05,
        jitter: float = 0.1,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        check_positive(learning_rate=learning_rate, sigma=1.0 if sigma is None else sigma)
        check_number("translation", translation, 0, 0.5)
        check_number("jitter", jitter, 0, 0.5)
        check_not_negative(iterations=iterations, head_layers=head_layers)
        super().__init__(image_size, pre_processor, post_processor, evaluator, visualizer)
        if localization == "patch":
            self.fix_image_size()
        _check_size(self.image_size)
        self.model = CutPasteModel(
            backbone, pre_trained, head_layers, layers, localization, self.image_size, window, stride, sigma
        )
        self.generators = (CutPasteDefects(), CutPasteScarDefects())
        self.crop = window if localization == "patch" else None
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.translation = translation
        self.jitter = jitter

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity check. The null model reads one batch, which Lightning requires, and learns nothing from it."""
        null = {} if self.iterations else {"max_epochs": 1, "limit_train_batches": 1}
        return super().trainer_arguments | null

    @property
    def trainer_defaults(self) -> dict[str, Any]:
        """Train for ``iterations`` steps, however many epochs that takes, and validate after the last."""
        return super().trainer_defaults if self.iterations else {}

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return the callbacks; the null model has no step limit, which would stop it before its one step."""
        callbacks = super().configure_callbacks()
        return callbacks if self.iterations else [item for item in callbacks if not isinstance(item, StopAfter)]

    def configure_optimizers(self) -> OptimizerLRScheduler | None:
        """Create SGD with a learning rate that falls along a cosine, step by step; ``None`` for the null model."""
        if self.iterations == 0:
            return None
        optimizer = SGD(
            self.model.parameters(), lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        return self.cosine_schedule(optimizer)

    def training_step(self, batch: Batch[Any], batch_idx: int) -> Tensor | None:
        """Paste patches into the normal images of a batch, and return the loss of their classification.

        Batches without a normal image are skipped.
        """
        if self.iterations == 0:
            return torch.zeros((), requires_grad=True, device=self.device)
        normal = cast(Tensor, batch.image)[batch.gt_label == LabelName.NORMAL].as_subclass(Tensor)
        if not len(normal):
            return None
        loss, accuracy = self._classify(_in_range(normal))
        check_finite({"loss": loss}, f"step {self.global_step + 1}, batch {batch_idx + 1} of its epoch")
        self.log_dict({"loss": loss, "accuracy": accuracy}, prog_bar=True, batch_size=len(normal))
        return loss

    def _classify(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        rng = new_rng(self.global_rank)
        images, labels = classes(vary(normal, self.crop, self.translation, self.jitter, rng), self.generators, rng)
        logits = self.model(images)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return functional.cross_entropy(logits, labels), accuracy

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save as anomalib does, with ``pre_trained`` off: loading the checkpoint needs no download."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["hyper_parameters"]["pre_trained"] = False


def _in_range(images: Tensor) -> Tensor:
    """Clamp overshoot of the bicubic resizing to [0, 1]; reject normalised images, because pasting needs colours."""
    low, high = images.min().item(), images.max().item()
    if low < -0.5 or high > 1.5:
        msg = f"CutPaste trains on images in [0, 1], not {low:.2g} to {high:.2g}: leave Normalize out of pre_processor"
        raise InvalidInputError(msg)
    return images.clamp(0, 1)


def _check_size(image_size: tuple[int, ...]) -> None:
    if min(image_size) < MIN_SIDE:
        msg = f"image_size is {image_size}; the sides must be {MIN_SIDE} or more"
        raise InvalidInputError(msg)
