"""CutPaste in Lightning: learns to tell pasted patches from normal texture, then fits a density to its features.

Paper: CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR 2021,
https://arxiv.org/abs/2104.04015.
"""

from collections.abc import Sequence
from typing import Any

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

from anomalib_defect_plugins.core.checks import check_not_negative, check_positive
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data.training_set import new_rng
from anomalib_defect_plugins.generators import CutPasteDefects, CutPasteScarDefects
from anomalib_defect_plugins.models.components.callbacks import StopAfter
from anomalib_defect_plugins.models.components.checks import check_finite
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.cutpaste.augmentation import classes, vary
from anomalib_defect_plugins.models.cutpaste.reference_images import normal_images
from anomalib_defect_plugins.models.cutpaste.torch_model import CutPasteModel


class CutPaste(DefectModel, IterativeTraining, AnomalibModule):
    """Self-supervised three-way classification (normal, CutPaste, CutPaste-Scar), then a Gaussian density.

    Args:
        image_size: Height and width that images are resized to, in pixels; a ``pre_processor`` of your own decides it
            instead, and must leave pixel values in [0, 1].
        backbone: Name of a convolutional timm model.
        pre_trained: Whether the backbone starts from timm's weights, which are downloaded, or at random.
        head_layers: Hidden layers of the classification head, each as wide as the pooled features.
        localization: ``dense`` judges the positions of feature maps, and the image by its pooled features; ``patch``
            trains on windows and judges each window of an image by a pass of its own, which takes a hundred times as
            long, and the image by the worst of them.
        layers: Feature maps that ``dense`` judges positions by, by timm's names; ``None`` takes those at strides 8 and
            16.
        window: Side of the windows of ``patch``, in pixels.
        stride: Pixels between those windows.
        sigma: Smoothing of the anomaly map, in pixels; ``None`` is 4 for ``dense`` and an eighth of the window.
        iterations: Training steps; the paper has 65,536. 0 is the null model: the density of an untrained backbone's
            features.
        learning_rate: Learning rate of SGD at the start; it falls as a cosine, to 0 at the end.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        translation: Greatest random shift of training images, as a share of their size; 0 to 0.5.
        jitter: Random change of their colours, as in torchvision's ``ColorJitter``; 0 to 0.5.
        pre_processor: As in anomalib.
        post_processor: As in anomalib.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Raises:
        InvalidInputError: An argument that cannot be.
    """

    supervision = Supervision.NORMAL
    paper = "https://arxiv.org/abs/2104.04015"

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        backbone: str = "resnet18",
        pre_trained: bool = False,
        head_layers: int = 1,
        localization: str = "dense",
        layers: Sequence[str] | None = None,
        window: int = 64,
        stride: int = 4,
        sigma: float | None = None,
        iterations: int = 1000,
        learning_rate: float = 0.03,
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
        _check_shares(translation=translation, jitter=jitter)
        check_not_negative(iterations=iterations, head_layers=head_layers)
        super().__init__(
            image_size,
            pre_processor,
            post_processor,
            evaluator,
            visualizer,
        )
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
        # The step after which the density was fitted; -1 is never.
        self.register_buffer("density_step", torch.tensor(-1))

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """As many steps as asked for, however many epochs these are, and validation after the last.

        The null model reads one batch, which Lightning wants, and learns nothing from it.
        """
        if self.iterations == 0:
            return {"max_epochs": 1, "limit_train_batches": 1, "num_sanity_val_steps": 0}
        return super().trainer_arguments

    def configure_callbacks(self) -> Sequence[Callback]:
        """Leave the null model's one step, which is to come before the end of its training."""
        callbacks = super().configure_callbacks()
        return callbacks if self.iterations else [each for each in callbacks if not isinstance(each, StopAfter)]

    def configure_optimizers(self) -> OptimizerLRScheduler | None:
        """SGD with a learning rate that falls as a cosine from step to step; nothing for the null model."""
        if self.iterations == 0:
            return None
        optimizer = SGD(
            self.model.parameters(), lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        return self.cosine_schedule(optimizer)

    def setup(self, stage: str) -> None:
        """Look at the data before training.

        Raises:
            ConfigurationError: There is no data module to take the normal images of the density from.
        """
        if stage == "fit" and self.trainer.datamodule is None:
            msg = "CutPaste fits a density to images of a data module: pass datamodule= (--data on the command line)"
            raise ConfigurationError(msg)
        super().setup(stage)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Paste patches into the normal images of a batch, and learn to tell what was done to which.

        Batches without a normal image are passed over.
        """
        if self.iterations == 0:
            return torch.zeros((), requires_grad=True, device=self.device)
        normal = batch.image[batch.gt_label == LabelName.NORMAL].as_subclass(Tensor)
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

    def on_train_batch_end(self, *_: object) -> None:
        """Fit the density after the last step: the checkpoints and the validation that follow need it."""
        trainer = self.trainer
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.should_stop or trainer.global_step == trainer.max_steps or (trainer.is_last_batch and last_epoch):
            self.fit_density()

    def on_validation_start(self) -> None:
        """Fit the density anew where someone wants to validate in between."""
        if self.trainer.state.fn == "fit" and self.density_step != self.global_step:
            self.fit_density()

    @torch.no_grad()
    def fit_density(self) -> None:
        """Fit the density to the normal training images, without their augmentations. Takes one pass over them.

        In distributed training each process sees its share of them, and all end with the same density.

        Raises:
            InvalidInputError: There are fewer than two of them, or their features are not finite.
        """
        training = self.model.training
        self.model.eval()
        self._share_buffers()
        moments = self.model.new_moments()
        for batch in normal_images(self.trainer):
            image = batch.image.as_subclass(Tensor).to(self.device)
            transform = getattr(self.pre_processor, "transform", None)
            self.model.observe(transform(image) if transform else image, moments)
        self.model.fit(moments, lambda value: self.trainer.strategy.reduce(value, reduce_op="sum"))
        self.density_step.fill_(self.global_step)
        self.model.train(training)

    def _share_buffers(self) -> None:
        """Give all processes the batch statistics of the first, which are what its checkpoint holds."""
        buffers = list(self.model.backbone.buffers())
        for own, first in zip(buffers, self.trainer.strategy.broadcast([part.cpu() for part in buffers]), strict=True):
            own.copy_(first)

    def on_test_start(self) -> None:
        """Stop where there is no density yet."""
        self._check_fitted()

    def on_predict_start(self) -> None:
        """Stop where there is no density yet."""
        self._check_fitted()

    def _check_fitted(self) -> None:
        if self.density_step < 0:
            msg = "CutPaste has no density of normal images yet: train it first, or pass --ckpt_path of a trained one"
            raise ConfigurationError(msg)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save as anomalib does; whoever loads the checkpoint has its weights and need not download others."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["hyper_parameters"]["pre_trained"] = False


def _in_range(images: Tensor) -> Tensor:
    """Clamp what bicubic resizing left outside [0, 1]; refuse what was normalised, on which no patch can be pasted."""
    low, high = images.min().item(), images.max().item()
    if low < -0.5 or high > 1.5:
        msg = f"CutPaste trains on images in [0, 1], not {low:.2g} to {high:.2g}: leave Normalize out of pre_processor"
        raise InvalidInputError(msg)
    return images.clamp(0, 1)


def _check_shares(**arguments: float) -> None:
    for name, value in arguments.items():
        if not 0 <= value <= 0.5:
            msg = f"{name} is {value}; it must be within 0 and 0.5"
            raise InvalidInputError(msg)


def _check_size(image_size: tuple[int, ...]) -> None:
    if min(image_size) < MIN_SIDE:
        msg = f"image_size is {image_size}; the sides must be {MIN_SIDE} at least"
        raise InvalidInputError(msg)
