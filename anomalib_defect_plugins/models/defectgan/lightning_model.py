"""Defect-GAN in Lightning: a generator puts defects on normal images and takes them off defective ones.

Paper: Defect-GAN: high-fidelity defect synthesis for automated defect inspection, WACV 2021,
https://arxiv.org/abs/2103.15158.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from anomalib_defect_plugins.core.checks import check_not_negative, check_positive
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.core.rng import device_rng
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.models.components.augmentation import Augmentation
from anomalib_defect_plugins.models.components.callbacks import StopAfter
from anomalib_defect_plugins.models.components.checks import check_finite
from anomalib_defect_plugins.models.components.custom_train_loader import CustomTrainLoader
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.components.unpaired_loader import flip, paired_loader
from anomalib_defect_plugins.models.defectgan.categories import UNNAMED, batch_labels, check_known, training_types
from anomalib_defect_plugins.models.defectgan.loss import LossWeights, Task, discriminator_losses, generator_losses
from anomalib_defect_plugins.models.defectgan.synthesis import (
    MAX_SHARE,
    blend_defects,
    defect_masks,
    load_trained,
    reached,
)
from anomalib_defect_plugins.models.defectgan.torch_model import (
    DefectGanModel,
    Discriminator,
    Generator,
    Synthesized,
    default_layers,
    everywhere,
)
from anomalib_defect_plugins.models.defectgan.validation import (
    check_numbers,
    check_origin,
    check_same,
    check_sizes,
    checked,
)
from anomalib_defect_plugins.post_processing import UnitPostProcessor


class DefectGan(CustomTrainLoader, DefectModel, IterativeTraining, AnomalibModule):
    """Defect-GAN: learns to make defects of chosen types at chosen places, and to take them away.

    Training needs normal and defective images, unpaired and without masks; the defect types come with the batches. It
    makes its own batches of what the data module has for training: ``batch_size`` normal images and as many defective
    ones, real or synthetic. The data module's batch size is left out.

    Args:
        image_size: Height and width that images are resized to, in pixels, multiples of 4, each at least 32.
        categories: Defect types in the order of the control map's channels; by default those of the training images,
            sorted, or ``defect`` where the data module tells none.
        multi_label: Whether types are independent of each other; by default, whether any training image has several.
        channels: Channels of the generator's first convolution; the paper has 64.
        residual_blocks: Residual blocks of the generator.
        discriminator_channels: Channels of the discriminator's first layer; by default ``channels``.
        discriminator_layers: Its layers; by default 6, or as many as leave 2 pixels of the shorter side.
        spatial_control: Whether the control map goes to SPADE in the decoder (SCC of Table 2); if not, the label joins
            the image, as in StarGAN, and holds everywhere.
        noise_injection: Whether there is adaptive noise (ANI).
        layer_composition: Whether defects are a layer on the image (LWC); if not, G gives the whole image.
        spatial_constraint: Whether L_sd-cyc and L_sd-con are used (SC); they need ``layer_composition``, and are left
            out without it.
        grey: Whether defects are painted grey. For grey images, which else have to teach the network what grey is.
        augment: Whether training images are turned, scaled and lit at random too; they are mirrored in any case. The
            discriminator then knows few images less by heart, and takes longer to tell their types.
        iterations: Training steps. Each is an update of the discriminator; each ``critic_updates``-th one of the
            generator too. The paper's are 500,000.
        batch_size: Normal images in a step, and as many defective ones.
        learning_rate: Learning rate of Adam in the first step.
        final_learning_rate: Learning rate that it falls to, linearly.
        critic_updates: Updates of the discriminator for each of the generator.
        identity_share: Share of the images, in [0, 1), that are to become what they are already, so that the network
            learns to leave them alone; 0 in the paper. Without it, maps need not be low where the control map is 0.
        ema_decay: Decay of the moving average of the generator's weights, in [0, 1). It is the average that tests,
            synthesizes and is exported.
        real_class_weight: Weight of L_cls^r.
        fake_class_weight: Weight of L_cls^f.
        reconstruction_weight: Weight of L_rec.
        map_cycle_weight: Weight of L_sd-cyc.
        map_size_weight: Weight of L_sd-con.
        map_size_warmup: Steps before L_sd-con has a weight above the paper's 1. Maps become smaller with it, but vanish
            while the discriminator does not yet know what to ask for.
        penalty_weight: Weight of the gradient penalty.
        score_share: Share of the pixels of an anomaly map, the highest ones, whose mean is the score; in (0, 1].
        pre_processor: As in anomalib.
        post_processor: As in anomalib.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Attributes:
        categories: As the argument, known when training has begun.
        image_size: As the argument.

    Raises:
        InvalidInputError: An argument that cannot be.
    """

    supervision = Supervision.IMAGE_LABELS
    paper = "https://arxiv.org/abs/2103.15158"
    default_image_size = (128, 128)

    def __init__(
        self,
        image_size: tuple[int, int] = (128, 128),
        categories: Sequence[str] | None = None,
        multi_label: bool | None = None,
        channels: int = 64,
        residual_blocks: int = 6,
        discriminator_channels: int | None = None,
        discriminator_layers: int | None = None,
        spatial_control: bool = True,
        noise_injection: bool = True,
        layer_composition: bool = True,
        spatial_constraint: bool = True,
        grey: bool = False,
        augment: bool = False,
        iterations: int = 500000,
        batch_size: int = 4,
        learning_rate: float = 2e-4,
        final_learning_rate: float = 1e-6,
        critic_updates: int = 5,
        identity_share: float = 0.25,
        ema_decay: float = 0.999,
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
            score_share=score_share,
        )
        check_not_negative(map_size_warmup=map_size_warmup)
        check_numbers(residual_blocks, score_share, identity_share=identity_share, ema_decay=ema_decay)
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
        self._networks = (channels, residual_blocks, spatial_control, noise_injection, layer_composition, grey)
        self._asked_for = (None if categories is None else checked(categories), multi_label)
        self._settled = categories is not None
        self._build(self._asked_for[0] or (UNNAMED,), bool(multi_label))
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
        self.automatic_optimization = False

    def _build(self, categories: tuple[str, ...], multi_label: bool) -> None:
        """Make the networks, which depend on the categories; checkpoints keep these."""
        self.hparams.update(categories=list(categories), multi_label=multi_label)
        self.categories: tuple[str, ...] = categories
        self.multi_label = multi_label
        count = len(categories)
        self.generator = Generator(count, *self._networks)
        # With one label an image, "no defect" is a class of its own; with many it is the lack of all.
        shape = (self.hparams.discriminator_channels, self.hparams.discriminator_layers)
        self.discriminator = Discriminator(self.image_size, count if multi_label else 1 + count, *shape)
        # These two only train. What is exported is self.model, whose generator is the moving average.
        average = deepcopy(self.generator).requires_grad_(False)
        self.model = DefectGanModel(average, count, self.hparams.score_share)

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for each network, the discriminator's first."""
        return [
            Adam(network.parameters(), lr=self.hparams.learning_rate, betas=(0.5, 0.999))
            for network in (self.discriminator, self.generator)
        ]

    def configure_callbacks(self) -> Sequence[Callback]:
        """Let the end of training wait for the updates of both networks, which is what Lightning counts."""
        stop = StopAfter(self.iterations + self.iterations // self.critic_updates)
        callbacks = super().configure_callbacks()
        return [stop if isinstance(callback, StopAfter) else callback for callback in callbacks]

    @property
    def step(self) -> int:
        """Training steps so far, which a resumed run knows too."""
        return self.global_step - self.global_step // (self.critic_updates + 1)

    def setup(self, stage: str) -> None:
        """Before training, learn the categories, and put paired batches in the place of the data module's."""
        super().setup(stage)
        if stage != "fit":
            return
        datamodule = self.trainer.datamodule
        if datamodule is None:
            msg = "DefectGan makes batches of a data module's images: pass one as datamodule, not data loaders"
            raise ConfigurationError(msg)
        self._learn_categories(training_types(datamodule), datamodule.name)
        loader = paired_loader(
            "DefectGan", datamodule, self.batch_size, lambda: self.rng(self.current_epoch), self.global_rank
        )
        self.use_train_loader(loader)

    def _learn_categories(self, types: list[tuple[str, ...]], source: str) -> None:
        found = sorted({name for several in types for name in several})
        categories, multi_label = self._asked_for
        categories = categories or tuple(found)
        check_known(found, categories, f"the training set of {source}")
        multi_label = any(len(several) > 1 for several in types) if multi_label is None else multi_label
        if (categories, multi_label) != (self.categories, self.multi_label):
            self._build(categories, multi_label)
        self._settled = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit; take its categories where none are known yet."""
        stored = checkpoint["hyper_parameters"]
        check_origin(stored)
        if not self._settled:
            self._build(tuple(stored["categories"]), stored["multi_label"])
            self._settled = True
        check_same(stored, self.hparams)
        super().on_load_checkpoint(checkpoint)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the discriminator, and now and then the generator, on normal and defective images.

        These are the two halves of a batch, see ``paired_loader``.
        """
        rng = self.rng(self.current_epoch, batch_idx, self.global_rank)
        images = 2 * self._varied(batch.image.as_subclass(Tensor), rng) - 1
        labels = batch_labels(batch, self.categories)
        task = Task(images, labels, self._targets(labels, rng), self.multi_label)
        networks = (self.generator, self.discriminator)
        noise, step = device_rng(rng, images.device), self.step
        weights = self.weights.at(step)
        shown = self._update(0, discriminator_losses(*networks, task, weights, rng, noise), step)
        if (step + 1) % self.critic_updates == 0:
            losses, maps = generator_losses(*networks, task, weights, noise)
            shown |= self._update(1, losses, step)
            shown["map_mean"] = maps[: len(maps) // 2].mean()  # of the normal images
            self._average((step + 1) // self.critic_updates)
        self.log_dict(shown, prog_bar=True, batch_size=len(images))

    def _varied(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Mirror images, or vary them in all ways, by a source of chance of the step's own."""
        if self.augmentation is None:
            return flip(images, rng)
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            return self.augmentation(images)

    def _targets(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Give what images shall become: a normal one what its partner is, and that one normal; some what they are."""
        stays = torch.rand(len(labels), 1, generator=rng) < self.identity_share
        return torch.where(stays.to(labels.device), labels, labels.roll(len(labels) // 2, 0))

    def _update(self, index: int, losses: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Move the discriminator (0) or the generator (1), and give what is to be shown."""
        check_finite(losses, f"step {step + 1}")
        optimizer = self.optimizers()[index]
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)
        optimizer.zero_grad()
        self.manual_backward(self._reaching_all(sum(losses.values()), index))
        optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0: it falls linearly, and the last step has the final one."""
        first, last = self.hparams.learning_rate, self.hparams.final_learning_rate
        return first + (last - first) * min(1.0, step / max(1, self.iterations - 1))

    def _reaching_all(self, loss: Tensor, index: int) -> Tensor:
        """Distributed training waits for a gradient of every weight: give the resting network's a gradient of 0."""
        if index == 1 or self.trainer.world_size == 1:
            return loss  # the generator's losses pass through both networks
        return loss + 0 * sum(weight.sum() for weight in self.generator.parameters())

    def _average(self, update: int) -> None:
        """Move the average of the generator's weights; in the first updates faster, or it would stay at its start."""
        decay = min(self.hparams.ema_decay, update / (update + 10))
        pairs = list(self.model.generator.parameters()), list(self.generator.parameters())
        get_ema_multi_avg_fn(decay)(*pairs, update)

    @torch.no_grad()
    def synthesize(self, images: Tensor, control: Tensor, rng: torch.Generator | None = None) -> Synthesized:
        """Put defects on images, by the averaged weights.

        Args:
            images: (B, 3, h, w) in [0, 1], of any size; they are resized as in training.
            control: Control map (B, K, H, W) in [0, 1], of any size; or (B, K), which holds everywhere. Channels are in
                the order of ``categories``; all 0 is normal.
            rng: Source of the adaptive noise, a generator of the CPU; without one there is none.

        Returns:
            Images (B, 3, *image_size) in [0, 1] and the maps m of eq. 2, (B, 1, *image_size), in [0, 1].

        Raises:
            InvalidInputError: The control map has other categories or is for another number of images.
        """
        if control.ndim not in {2, 4} or control.shape[:2] != (len(images), len(self.categories)):
            msg = f"a control map for {len(images)} images and {len(self.categories)} categories is "
            raise InvalidInputError(msg + f"(B, K) or (B, K, H, W), not {tuple(control.shape)}")
        control = everywhere(control) if control.ndim == 2 else control
        noise = None if rng is None else device_rng(rng, self.device)
        return self.model.synthesize(self.resized(images), control.to(self.device), noise)

    @torch.no_grad()
    def restore(self, images: Tensor) -> Synthesized:
        """Take the defects off images (B, 3, h, w) in [0, 1], eq. 3 and 4; gives what :meth:`synthesize` gives."""
        return self.model.restore(self.resized(images))

    def resized(self, images: Tensor) -> Tensor:
        """Give images (B, 3, h, w) at the size of the network, (B, 3, *image_size), in [0, 1], on its device."""
        images = images.to(self.device)
        return images if self.pre_processor is None else self.pre_processor(images).clamp(0, 1)

    @classmethod
    def load_for_synthesis(cls, checkpoint: Path | str, device: torch.device | str = "cpu") -> "DefectGan":
        """Load a trained model for synthesis; see :func:`~.synthesis.load_trained`."""
        return load_trained(cls, checkpoint, device)

    @torch.no_grad()
    def draw_defects(
        self, images: Tensor, control: Tensor, rng: torch.Generator, threshold: float = 0.5
    ) -> tuple[Tensor, Tensor]:
        """Put defects on images of any size, which keep their own pixels elsewhere.

        Args:
            images: Images on the model's device, shape (B, C, H, W), float in [0, 1], C 1 or 3.
            control: Control map, as in :meth:`synthesize`.
            rng: CPU generator of the adaptive noise.
            threshold: Value of the map m that a defect reaches.

        Returns:
            Images, shape (B, C, H, W), not clamped; and masks, shape (B, 1, H, W), bool.
        """
        resized = self.resized(images.expand(-1, 3, -1, -1))
        generated, maps = self.synthesize(resized, control, rng)
        return blend_defects(images, generated - resized, maps * self.reached(control), threshold)

    def reached(self, control: Tensor) -> Tensor:
        """Return where a control map (B, K, h, w) can have an effect, shape (B, 1, *image_size), bool."""
        return reached(control, self.image_size)

    def defect_masks(self, maps: Tensor, threshold: float = 0.5, max_share: float = MAX_SHARE) -> Tensor:
        """Return the masks of synthesized defects; see :func:`~.synthesis.defect_masks`."""
        return defect_masks(maps, threshold, max_share=max_share)
