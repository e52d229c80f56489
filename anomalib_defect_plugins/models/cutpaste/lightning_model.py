"""CutPaste: trained to tell pasted patches from normal texture, then a density is fitted to its features.

Paper: CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR 2021,
https://arxiv.org/abs/2104.04015.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataModule, Batch
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
from torch.optim.lr_scheduler import LambdaLR

from anomalib_defect_plugins.core.checks import check_not_negative, check_number, check_one_of, check_positive
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data.training_set import new_rng
from anomalib_defect_plugins.layers.density import Moments
from anomalib_defect_plugins.models.components.callbacks import StopAfter
from anomalib_defect_plugins.models.components.checks import check_finite, datamodule_of
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.encoder_rate import rates
from anomalib_defect_plugins.models.components.fitted_density import FittedDensity
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.cutpaste.augmentation import TASKS, classes, vary
from anomalib_defect_plugins.models.cutpaste.fine_tuning import freeze_before_last_stage, late_cosine
from anomalib_defect_plugins.models.cutpaste.localization import DenseLocalizer
from anomalib_defect_plugins.models.cutpaste.torch_model import CutPasteModel

MIN_IMAGES = 4
"""Normal images of which each half has a density; the scores of ``both`` have the same weight if there are fewer."""


class CutPaste(FittedDensity, DefectModel, IterativeTraining, AnomalibModule):
    """Self-supervised classification of normal, CutPaste and CutPaste-Scar images, then Gaussian densities.

    Args:
        image_size: Height and width that images are resized to, in pixels. ``None`` selects those of the training
            images for ``dense``, scaled down to 256 x 256 pixels if they have more, and the paper's (256, 256) for
            ``patch``. A custom ``pre_processor`` overrides it, and must leave pixel values in [0, 1].
        backbone: Name of a convolutional timm model; ``resnet18`` in the paper.
        pre_trained: Whether to load timm's weights into the backbone, which are downloaded once; or a file with them.
            Its batch norm then keeps the averages of the pretraining. The paper trains from random weights, with a
            learning rate of 0.03.
        task: Classes of the training images: ``two_way``, normal and CutPaste; ``scar``, normal and CutPaste-Scar;
            ``three_way``, all of them.
        head_layers: Hidden layers of the classification head, each as wide as the pooled features.
        localization: ``dense`` scores the positions of feature maps, and the image by its pooled features. ``patch``
            trains on windows, scores each window of an image in a separate pass, which takes a hundred times as long,
            and the image by its highest window score.
        layers: Names of timm's feature maps that ``dense`` scores positions by; ``None`` selects those at strides 8
            and 16. With ``freeze`` they must come before the last stage, so that training cannot change them.
        image_layers: Names of the feature maps that ``dense`` pools for the image score besides the last one; ``None``
            selects those of ``layers``, an empty list none, as in the paper.
        score: Image score of ``dense``: ``features``, the distance of the pooled features, as in the paper;
            ``positions``, the mean of the highest 1 % of the anomaly map; ``both``, the mean of the two, each divided
            by its standard deviation on normal images.
        window: Side of the windows of ``patch``, in pixels.
        stride: Pixels from one of these windows to the next.
        sigma: Standard deviation of the smoothing of the anomaly map, in pixels; ``None`` selects 4 for ``dense`` and
            an eighth of the window for ``patch``.
        iterations: Training steps; the paper has 65,536. 0 selects the null model: the density of an untrained
            backbone's features.
        freeze: Share of the steps in which only the head is trained, in [0, 1]; then the last stage of the backbone is
            trained too. The stages before it stay frozen. ``None`` trains all weights from the first step, as does a
            backbone without pretrained weights.
        learning_rate: Initial learning rate of SGD; it falls to 0 along a cosine.
        encoder_rate: Learning rate of the last stage of the backbone, as a multiple of that of the head, with
            ``freeze``; 0 freezes it.
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
    former_arguments = MappingProxyType(
        {"task": "three_way", "image_layers": (), "score": "features", "freeze": None, "encoder_rate": 1.0}
    )

    model: CutPasteModel

    def __init__(
        self,
        image_size: tuple[int, int] | None = None,
        backbone: str = "mobilenetv2_100",
        pre_trained: bool | str | Path = True,
        task: str = "three_way",
        head_layers: int = 1,
        localization: str = "dense",
        layers: Sequence[str] | None = None,
        image_layers: Sequence[str] | None = None,
        score: str = "both",
        window: int = 64,
        stride: int = 4,
        sigma: float | None = None,
        iterations: int = 300,
        freeze: float | None = 0.5,
        learning_rate: float = 0.03,
        encoder_rate: float = 0.1,
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
        check_not_negative(iterations=iterations, head_layers=head_layers, encoder_rate=encoder_rate)
        check_number("freeze", 0 if freeze is None else freeze, 0, 1)
        check_one_of("task", task, TASKS)
        super().__init__(image_size, pre_processor, post_processor, evaluator, visualizer)
        if localization == "patch":
            self.fix_image_size()
        _check_size(self.image_size)
        self.generators = tuple(generator() for generator in TASKS[task])
        self.model = CutPasteModel(
            backbone,
            pre_trained,
            head_layers,
            layers,
            localization,
            self.image_size,
            window,
            stride,
            sigma,
            image_layers,
            score,
            classes=1 + len(self.generators),
            fine_tuned=freeze is not None,
        )
        self.head_share = None if pre_trained is False else freeze
        if self.head_share is not None:
            freeze_before_last_stage(self.model.encoder, backbone, trained=encoder_rate > 0)
        self.crop = window if localization == "patch" else None
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.encoder_rate = encoder_rate
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
        """Create SGD with learning rates that fall along a cosine, step by step; ``None`` for the null model.

        With ``freeze`` the last stage of the backbone has a learning rate of its own, which is 0 in the first steps. It
        has gradients in these steps too, as distributed training requires.
        """
        if self.iterations == 0:
            return None
        groups: list[dict[str, Any]] = [{"params": list(self.model.parameters())}]
        if self.head_share is not None:
            groups = rates(self.model, self.learning_rate, self.encoder_rate)
        optimizer = SGD(groups, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)
        starts = (0, round((self.head_share or 0) * self.iterations))
        factors = [late_cosine(self.iterations, start) for start in starts[: len(groups)]]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factors), "interval": "step"}}

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

    def fit_to_normal(self) -> None:
        """Fit the densities to the normal training images, and the deviations of their scores.

        The deviations are those of the second half of the images by the densities of the first, since the images that a
        density is fitted to are closer to it than others.
        """
        localizer, count = self.model.localizer, self._count_normal()
        if not isinstance(localizer, DenseLocalizer) or count < MIN_IMAGES:
            super().fit_to_normal()
            return
        moments = self.model.new_moments()
        scores = Moments(2, moments[0].sum.device)
        for image in self.normal_batches(slice(count // 2)):
            self.model.observe(image, moments)
        self.model.fit(deepcopy(moments), self.gather)
        for image in self.normal_batches(slice(count // 2, None)):
            scores.update(self.model.score_both(image, moments).T)
        self.model.fit(moments, self.gather)
        scores.reduce(self.gather)
        localizer.fit(scores)

    def _count_normal(self) -> int:
        samples = cast(AnomalibDataModule, datamodule_of(self.trainer)).train_data.samples
        return int((samples.label_index == LabelName.NORMAL).sum())


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
