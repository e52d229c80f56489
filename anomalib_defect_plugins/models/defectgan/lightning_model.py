"""Lightning module of Defect-GAN, whose generator adds defects to normal images and removes them from defective ones.

Paper: Defect-GAN: high-fidelity defect synthesis for automated defect inspection, WACV 2021,
https://arxiv.org/abs/2103.15158.
"""

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative, check_number, check_positive
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.rng import device_rng
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data.dataclasses import SEPARATOR
from anomalib_defect_plugins.generators.mixed import build_generator, generator_names
from anomalib_defect_plugins.layers.diff_augment import DiffAugment
from anomalib_defect_plugins.models.components.augmentation import Augmentation
from anomalib_defect_plugins.models.components.callbacks import StopAfter
from anomalib_defect_plugins.models.components.checks import check_finite, datamodule_of
from anomalib_defect_plugins.models.components.custom_train_loader import CustomTrainLoader
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.components.unpaired_loader import flip, paired_loader
from anomalib_defect_plugins.models.defectgan.categories import UNNAMED, batch_labels, check_known, training_types
from anomalib_defect_plugins.models.defectgan.loss import (
    LossWeights,
    Task,
    discriminator_losses,
    generator_losses,
    paired_losses,
)
from anomalib_defect_plugins.models.defectgan.synthesis import load_trained
from anomalib_defect_plugins.models.defectgan.synthesis_mixin import SynthesisMixin
from anomalib_defect_plugins.models.defectgan.torch_model import (
    DefectGanModel,
    Discriminator,
    Generator,
    default_layers,
)
from anomalib_defect_plugins.models.defectgan.validation import (
    check_categories,
    check_origin,
    check_same,
    check_sizes,
)
from anomalib_defect_plugins.post_processing import UnitPostProcessor

LABEL_SETS = "defectgan_label_sets"
"""Key of the training set's sets of types in a checkpoint."""


class DefectGan(SynthesisMixin, CustomTrainLoader, DefectModel, IterativeTraining, AnomalibModule):
    """Defect-GAN: learns to add defects of chosen types at chosen locations, and to remove defects.

    Training requires normal and defective images, unpaired and without masks; the batches provide the defect types. The
    model builds its own batches from the training images of the data module: ``batch_size`` normal images and the same
    number of defective ones, real or synthetic. The batch size of the data module is ignored.

    Args:
        image_size: Height and width that images are resized to, in pixels, multiples of 4 and at least 32; (128, 128)
            in the paper.
        categories: Defect types in the order of the control map's channels; by default those of the training images,
            sorted, or ``defect`` if the data module has no types.
        multi_label: Whether an image may have several types; by default, whether any training image has.
        channels: Channels of the generator's first convolution; 64 in the paper.
        residual_blocks: Number of residual blocks of the generator.
        discriminator_channels: Channels of the discriminator's first layer; ``channels`` by default.
        discriminator_layers: Number of layers of the discriminator; by default 6, or as many as reduce the shorter side
            to 2 pixels.
        spatial_control: Whether the control map modulates the decoder by SPADE (SCC of Table 2); if not, the label is
            concatenated with the image, as in StarGAN.
        noise_injection: Whether to add adaptive noise (ANI).
        layer_composition: Whether defects are composed with the image as a layer (LWC); if not, G outputs the image.
        spatial_constraint: Whether to use L_sd-cyc and L_sd-con (SC), which require ``layer_composition`` and are
            omitted without it.
        grey: Whether defects are grey, so that a network for grey images does not have to learn it.
        map_bias: Constant added to the map before its sigmoid; 0 in the paper, where a small map is hard to reach,
            because it is one half wherever the features are 0. -3 starts at 0.05.
        score_per_class: Whether the discriminator has a score for each class, as in StarGAN v2, instead of one score
            and the class losses, with which the generator exaggerates the features of a class.
        augment: Whether to rotate, scale and light training images at random; they are always mirrored. Slows down
            overfitting of the discriminator to few images, but also its learning of the types.
        diff_augment: Augmentations of the discriminator's input, of real and generated images alike: some of ``color``,
            ``translation`` and ``cutout``; see :class:`~anomalib_defect_plugins.layers.diff_augment.DiffAugment`.
        paired_steps: Number of first steps in which the generator also learns to restore synthetic defects, whose clean
            images and places are known; 0 in the paper.
        paired_content: Generator of these defects: a registered name, an instance, a mapping with ``class_path`` and
            ``init_args``, or several of them.
        iterations: Number of training steps; 500,000 in the paper. Each updates the discriminator, and every
            ``critic_updates``-th step also the generator.
        batch_size: Number of normal images per step, and of defective ones; 4 in the paper.
        learning_rate: Learning rate of Adam in the first step; 2e-4 in the paper.
        final_learning_rate: Learning rate in the last step; it falls linearly.
        critic_updates: Updates of the discriminator for each update of the generator.
        identity_share: Fraction of images whose target is their own label, in [0, 1), so that the network learns not to
            change them; 0 in the paper. Without it, maps need not be low where the control map is 0.
        ema_decay: Decay of the moving average of the generator's weights, in [0, 1). The average is used for testing,
            synthesis and export. Long trainings need a higher one, such as 0.999 for 500,000 steps.
        real_class_weight: Weight of L_cls^r.
        fake_class_weight: Weight of L_cls^f.
        reconstruction_weight: Weight of L_rec.
        map_cycle_weight: Weight of L_sd-cyc.
        map_size_weight: Weight of L_sd-con.
        map_size_warmup: Number of steps in which the weight of L_sd-con is limited to the paper's 1. A higher weight
            makes maps smaller, but they vanish before the discriminator has learned the types.
        penalty_weight: Weight of the gradient penalty.
        score_share: Fraction of highest pixels of an anomaly map whose mean is the score, in (0, 1].
        pre_processor: As in anomalib.
        post_processor: As in anomalib.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Attributes:
        categories: As the argument; known from the start of training.
        image_size: As the argument.
        label_sets: Number of defective training images with each set of types, by the types joined by ``+``.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    supervision = Supervision.IMAGE_LABELS
    paper = "https://arxiv.org/abs/2103.15158"
    default_image_size = (64, 64)
    former_arguments = MappingProxyType(
        {"map_bias": 0.0, "score_per_class": False, "diff_augment": (), "paired_steps": 0, "paired_content": "perturb"}
    )
    kept_when_resuming = ("critic_updates",)  # the number of training steps follows from it

    generator: Generator
    discriminator: Discriminator
    model: DefectGanModel

    def __init__(
        self,
        image_size: tuple[int, int] = (64, 64),
        categories: Sequence[str] | None = None,
        multi_label: bool | None = None,
        channels: int = 16,
        residual_blocks: int = 4,
        discriminator_channels: int | None = None,
        discriminator_layers: int | None = None,
        spatial_control: bool = True,
        noise_injection: bool = True,
        layer_composition: bool = True,
        spatial_constraint: bool = True,
        grey: bool = False,
        map_bias: float = 0.0,
        score_per_class: bool = False,
        augment: bool = False,
        diff_augment: Sequence[str] = (),
        paired_steps: int = 0,
        paired_content: DefectGenerator | str | Sequence[DefectGenerator | str] = "perturb",
        iterations: int = 10000,
        batch_size: int = 2,
        learning_rate: float = 5e-4,
        final_learning_rate: float = 1e-6,
        critic_updates: int = 5,
        identity_share: float = 0.25,
        ema_decay: float = 0.99,
        real_class_weight: float = 2.0,
        fake_class_weight: float = 5.0,
        reconstruction_weight: float = 5.0,
        map_cycle_weight: float = 5.0,
        map_size_weight: float = 1.0,
        map_size_warmup: int = 0,
        penalty_weight: float = 10.0,
        score_share: float = 0.01,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        check_positive(
            channels=channels,
            iterations=iterations,
            batch_size=batch_size,
            learning_rate=learning_rate,
            final_learning_rate=final_learning_rate,
            critic_updates=critic_updates,
        )
        check_not_negative(map_size_warmup=map_size_warmup, residual_blocks=residual_blocks, paired_steps=paired_steps)
        check_number("map_bias", map_bias, -10, 10)
        check_fraction("identity_share", identity_share, zero=True)
        check_fraction("ema_decay", ema_decay, zero=True)
        check_fraction("score_share", score_share, one=True)
        super().__init__(
            image_size,
            pre_processor,
            UnitPostProcessor() if post_processor is True else post_processor,
            evaluator,
            visualizer,
        )
        check_sizes(self.image_size, discriminator_layers)
        self.fix_image_size()
        self.hparams.update(
            discriminator_channels=discriminator_channels or channels,
            discriminator_layers=discriminator_layers or default_layers(self.image_size),
        )
        switches = (spatial_control, noise_injection, layer_composition, grey)
        self._networks = (channels, residual_blocks, *switches, map_bias)
        self._has_class_scores = score_per_class
        self._requested = (None if categories is None else check_categories(categories), multi_label)
        self._has_categories = categories is not None
        self._build(self._requested[0] or (UNNAMED,), bool(multi_label))
        constrained = spatial_constraint and layer_composition
        self.weights = LossWeights(
            real_class_weight,
            fake_class_weight,
            reconstruction_weight,
            map_cycle_weight if constrained else 0.0,
            map_size_weight if constrained else 0.0,
            penalty_weight,
            map_size_warmup,
        )
        self.iterations = iterations
        self.batch_size = batch_size
        self.critic_updates = critic_updates
        self.identity_share = identity_share
        self.augmentation = Augmentation(None, vary=True) if augment else None
        self.diff_augment = DiffAugment(diff_augment)
        self.hparams["diff_augment"] = list(diff_augment)
        self.paired_steps = paired_steps
        self.paired_content = build_generator(paired_content, "the generator paired_content")
        self.hparams["paired_content"] = generator_names(self.paired_content)
        self.label_sets: dict[str, int] = {}
        self.automatic_optimization = False

    def _build(self, categories: tuple[str, ...], multi_label: bool) -> None:
        """Create the networks for some categories, which are stored in checkpoints."""
        self.hparams.update(categories=list(categories), multi_label=multi_label)
        self.categories: tuple[str, ...] = categories
        self.multi_label = multi_label
        count = len(categories)
        self.generator = Generator(count, *self._networks)
        # If an image has at most one type, "normal" is an additional class; otherwise it is the absence of all types.
        shape = (self.hparams["discriminator_channels"], self.hparams["discriminator_layers"], self._has_class_scores)
        classes = count + (self._has_class_scores or not multi_label)
        self.discriminator = Discriminator(self.image_size, classes, *shape)
        # These two are used in training only; self.model, which is exported, has the moving average of the generator.
        average = deepcopy(self.generator).requires_grad_(False)
        self.model = DefectGanModel(average, count, self.hparams["score_share"])

    def configure_optimizers(self) -> list[Optimizer]:
        """Return one Adam for each network, the discriminator's first."""
        return [
            Adam(network.parameters(), lr=self.hparams["learning_rate"], betas=(0.5, 0.999))
            for network in (self.discriminator, self.generator)
        ]

    def configure_callbacks(self) -> Sequence[Callback]:
        """Set the step limit to the updates of both networks, which Lightning counts."""
        stop = StopAfter(self.iterations + self.iterations // self.critic_updates)
        callbacks = super().configure_callbacks()
        return [stop if isinstance(callback, StopAfter) else callback for callback in callbacks]

    @property
    def step(self) -> int:
        """Number of training steps so far, also in a resumed run."""
        return self.global_step - self.global_step // (self.critic_updates + 1)

    def setup(self, stage: str) -> None:
        """Before training, determine the categories and replace the training batches with unpaired ones.

        Raises:
            ConfigurationError: If the trainer has no data module, or its types are not among the categories.
        """
        super().setup(stage)
        if stage != "fit":
            return
        datamodule = datamodule_of(self.trainer)
        if datamodule is None:
            msg = "DefectGan builds batches from the images of a data module: pass one as datamodule, not data loaders"
            raise ConfigurationError(msg)
        types = training_types(datamodule)
        self._learn_categories(types, datamodule.name)
        self.label_sets = dict(Counter(map(SEPARATOR.join, types)))
        loader = paired_loader(
            "DefectGan", datamodule, self.batch_size, lambda: self.rng(self.current_epoch), self.global_rank
        )
        self.use_train_loader(loader)

    def _learn_categories(self, types: list[tuple[str, ...]], source: str) -> None:
        names = sorted({name for several in types for name in several})
        categories, multi_label = self._requested
        categories = categories or tuple(names)
        check_known(names, categories, f"the training set of {source}")
        multi_label = any(len(several) > 1 for several in types) if multi_label is None else multi_label
        if (categories, multi_label) != (self.categories, self.multi_label):
            self._build(categories, multi_label)
        self._has_categories = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint is compatible, and adopt its categories if the model has none yet."""
        stored = {**self.former_arguments, **checkpoint["hyper_parameters"]}
        check_origin(stored)
        if not self._has_categories:
            self._build(tuple(stored["categories"]), stored["multi_label"])
            self._has_categories = True
        check_same(stored, self.hparams)
        self.label_sets = dict(checkpoint.get(LABEL_SETS, {}))
        super().on_load_checkpoint(checkpoint)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save how often each set of types occurs in the training set."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[LABEL_SETS] = self.label_sets

    def training_step(self, batch: Batch[Any], batch_idx: int) -> None:
        """Update the discriminator and, every ``critic_updates``-th step, the generator.

        Args:
            batch: Normal and defective images as the two halves of a batch, see ``paired_loader``.
            batch_idx: Index of the batch in its epoch.
        """
        rng = self.rng(self.current_epoch, batch_idx, self.global_rank)
        images = 2 * self._augmented(cast(Tensor, batch.image).as_subclass(Tensor), rng) - 1
        labels = batch_labels(batch, self.categories)
        augment = partial(self.diff_augment, rng=rng)
        task = Task(images, labels, self._targets(labels, rng), self.multi_label, augment)
        networks = (self.generator, self.discriminator)
        noise, step = device_rng(rng, images.device), self.step
        weights = self.weights.at(step)
        logged = self._update(0, discriminator_losses(*networks, task, weights, rng, noise), step)
        if (step + 1) % self.critic_updates == 0:
            losses, maps = generator_losses(*networks, task, weights, noise)
            if step < self.paired_steps:
                losses |= paired_losses(self.generator, images.chunk(2)[0], self.paired_content, weights, rng, noise)
            logged |= self._update(1, losses, step)
            logged["map_mean"] = maps[: len(maps) // 2].mean()  # of the normal images
            self._update_average((step + 1) // self.critic_updates)
        self.log_dict(logged, prog_bar=True, batch_size=len(images))

    def _augmented(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Flip or augment images by the generator of the step; the global random state is preserved."""
        if self.augmentation is None:
            return flip(images, rng)
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            return self.augmentation(images)

    def _targets(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Return target labels: those of the paired images, except for ``identity_share`` of the images their own."""
        unchanged = torch.rand(len(labels), 1, generator=rng) < self.identity_share
        return torch.where(unchanged.to(labels.device), labels, labels.roll(len(labels) // 2, 0))

    def _update(self, index: int, losses: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Update the discriminator (0) or the generator (1), and return the values to log."""
        check_finite(losses, f"step {step + 1}")
        optimizer = cast(list[LightningOptimizer], self.optimizers())[index]
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)
        optimizer.zero_grad()
        self.manual_backward(self._with_all_weights(cast(Tensor, sum(losses.values())), index))
        optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0; it falls linearly from the first step to the last."""
        first: float = self.hparams["learning_rate"]
        last: float = self.hparams["final_learning_rate"]
        return first + (last - first) * min(1.0, step / max(1, self.iterations - 1))

    def _with_all_weights(self, loss: Tensor, index: int) -> Tensor:
        """Add a gradient of 0 for weights that are not updated: distributed training waits for all gradients."""
        if index == 1 or not isinstance(self.trainer.strategy, ParallelStrategy):
            return loss  # the generator's losses pass through both networks
        return loss + 0 * sum(weight.sum() for weight in self.generator.parameters())

    def _update_average(self, update: int) -> None:
        """Update the moving average of the generator's weights; the decay is lower in the first updates."""
        decay = min(self.hparams["ema_decay"], update / (update + 10))
        pairs = list(self.model.generator.parameters()), list(self.generator.parameters())
        get_ema_multi_avg_fn(decay)(*pairs, update)  # type: ignore[no-untyped-call]

    @classmethod
    def load_for_synthesis(cls, checkpoint: Path | str, device: torch.device | str = "cpu") -> "DefectGan":
        """Load a trained model for synthesis; see :func:`~.synthesis.load_trained`."""
        return load_trained(cls, checkpoint, device)
