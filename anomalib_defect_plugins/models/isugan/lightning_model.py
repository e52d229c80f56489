"""Lightning module of ISU-GAN: two generators and two discriminators are trained to repair and to generate defects.

Paper: Using ISU-GAN for unsupervised small sample defect detection, Scientific Reports 2022,
https://doi.org/10.1038/s41598-022-15855-7.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from anomalib.data import Batch
from anomalib.data.utils import LabelName
from anomalib.metrics import AnomalibMetric, Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative, check_one_of, check_positive
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.generators.mixed import build_generator, generator_names
from anomalib_defect_plugins.models.components.checks import datamodule_of
from anomalib_defect_plugins.models.components.custom_train_loader import CustomTrainLoader
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.fitted_density import FittedDensity
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.components.unpaired_loader import flip, paired_loader
from anomalib_defect_plugins.models.isugan.dataclasses import RepairedBatch, add_repaired
from anomalib_defect_plugins.models.isugan.image_pool import ImagePool
from anomalib_defect_plugins.models.isugan.loss import adversarial_loss, difference, discriminator_loss
from anomalib_defect_plugins.models.isugan.post_processing import ImageOtsuPostProcessor, OtsuOfImagePostProcessor
from anomalib_defect_plugins.models.isugan.torch_model import Generator, IsuGanModel, make_discriminator
from anomalib_defect_plugins.models.isugan.visualizer import RepairVisualizer
from anomalib_defect_plugins.post_processing import DefectPostProcessor, UnitPostProcessor

MASK_THRESHOLDS: dict[str, tuple[Callable[[], PostProcessor], Callable[[], PostProcessor]]] = {
    "otsu": (ImageOtsuPostProcessor, OtsuOfImagePostProcessor),
    "adaptive": (UnitPostProcessor, DefectPostProcessor),
}
"""Post-processors of maps in [0, 1], and of distances."""

POOLS = "isugan_image_pools"
"""Key of the images of the pools in a checkpoint."""

MIN_SIDE = 16
"""Minimum height and width of images in pixels."""


class Accuracy(AnomalibMetric, BinaryAccuracy):  # type: ignore[misc]
    """Share of correct image labels, eq. 12."""


class IsuGan(CustomTrainLoader, FittedDensity, DefectModel, IterativeTraining, AnomalibModule):
    """ISU-GAN: learns to repair defects from unpaired images without masks, and detects them by what a repair changes.

    The model builds its own batches from the training images of the data module: ``batch_size`` normal images and the
    same number of defective ones, real or synthetic. An epoch contains each normal image once. The batch size of the
    data module is ignored.

    Args:
        image_size: Height and width that images are resized to, in pixels, at least 16; ``None`` selects those of the
            training images, scaled down to 128 x 128 pixels if they have more. The paper's is (256, 256).
        grey: Whether to convert images to grey; if not, colours are repaired too, and SSIM is averaged over channels.
        width: Channels after the first convolution, a multiple of 4; 64 in the paper.
        residual_blocks: Number of residual blocks of a generator; 9 in the paper.
        skip: Whether generators have skip connections.
        involution: Whether generators have involutions.
        squeeze_excitation: Whether generators have SE blocks; without all three they are the plain ones of Table 3.
        backbone: Name of a convolutional timm model that sees what a repair changes, frozen; ``None`` selects the
            paper's SSIM.
        pre_trained: Whether to load timm's weights into the backbone, which are downloaded once; or a file with them.
        repair_weight: Weight of the Mahalanobis distance of the change of the backbone's features by a repair, from the
            changes in the normal training images, which is fitted after the last step; 0 disables it.
        density_weight: Weight of the distances of the features of an image to those of the normal training images,
            which needs no repair; 0 disables them.
        layers: Whether generators compose their output of the image and a foreground by a map, instead of painting all
            of it; not in the paper.
        iterations: Number of training steps. The paper's 100 epochs of 100 normal images are 10,000.
        batch_size: Number of normal images per step, and of defective ones.
        learning_rate: Learning rate of Adam, which falls linearly to 0 over the second half of the steps.
        ssim_share: Fraction of the steps, from the first on, in which cycle and identity losses are 1 - SSIM, in
            [0, 1]; afterwards they are L1. The paper's k = 10 of 100 epochs is 0.1.
        cycle_weight: Weight of L_cycle.
        identity_weight: Weight of L_identity.
        paired_weight: Weight of the difference between a normal image and the repair of the same image with a synthetic
            defect, whose result is known; 0 disables it, as in the paper.
        paired_content: Generator of these defects: a registered name, an instance, a mapping with ``class_path`` and
            ``init_args``, or several of them.
        cycle_noise: Standard deviation of the noise on repaired images within the cycle, in units of the image range
            [-1, 1]: without it, a cycle may hide the defect in the repaired image
            (https://papers.nips.cc/paper/8343). 0 in the paper.
        pool_size: Capacity of the image pool of each discriminator; 0 disables the pools.
        window_size: Side of the SSIM window in pixels, odd, for the losses and for inspection.
        score_share: Fraction of highest pixels of an anomaly map whose mean is the score, in (0, 1].
        mask_threshold: ``otsu`` (for each image classified as defective, as in the paper) or ``adaptive`` (anomalib's
            single threshold, from validation images with masks).
        pre_processor: As in anomalib.
        post_processor: As in anomalib; a custom one overrides ``mask_threshold``.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    supervision = Supervision.IMAGE_LABELS
    paper = "https://doi.org/10.1038/s41598-022-15855-7"
    former_arguments = MappingProxyType({"backbone": None, "layers": False, "paired_weight": 0.0, "cycle_noise": 0.0})
    grey = True
    default_image_size = (128, 128)
    size_multiple = 8  # of the generators
    max_pixels = 128 * 128

    model: IsuGanModel

    def __init__(
        self,
        image_size: tuple[int, int] | None = None,
        grey: bool = True,
        backbone: str | None = "mobilenetv2_100",
        pre_trained: bool | str | Path = True,
        repair_weight: float = 0.0,
        density_weight: float = 1.0,
        width: int = 16,
        residual_blocks: int = 3,
        skip: bool = True,
        involution: bool = True,
        squeeze_excitation: bool = True,
        layers: bool = False,
        iterations: int = 1000,
        batch_size: int = 1,
        learning_rate: float = 2e-4,
        ssim_share: float = 0.1,
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        paired_weight: float = 0.0,
        paired_content: DefectGenerator | str | Sequence[DefectGenerator | str] = ("perturb", "shading"),
        cycle_noise: float = 0.0,
        pool_size: int = 50,
        window_size: int = 9,
        score_share: float = 0.01,
        mask_threshold: str = "otsu",
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        check_positive(iterations=iterations, batch_size=batch_size, learning_rate=learning_rate)
        check_not_negative(residual_blocks=residual_blocks, pool_size=pool_size, cycle_noise=cycle_noise)
        check_not_negative(paired_weight=paired_weight, repair_weight=repair_weight, density_weight=density_weight)
        if backbone and not repair_weight and not density_weight:
            msg = "repair_weight and density_weight are 0: set one of them, or backbone to null"
            raise InvalidInputError(msg)
        check_fraction("ssim_share", ssim_share, zero=True, one=True)
        check_fraction("score_share", score_share, one=True)
        _check_networks(self.min_side if image_size is None else min(image_size), width, window_size)
        check_one_of("mask_threshold", mask_threshold, MASK_THRESHOLDS)
        super().__init__(
            image_size,
            pre_processor,
            MASK_THRESHOLDS[mask_threshold][backbone is not None]() if post_processor is True else post_processor,
            evaluator,
            visualizer,
            grey,
        )
        shape = (width, residual_blocks, skip, involution, squeeze_excitation, layers)
        self.model = IsuGanModel(
            grey, *shape, window_size, score_share, backbone, pre_trained, repair_weight, density_weight
        )
        # These three are used in training only: checkpoints contain them, but the exported graph is self.model.
        self.g_p2n = Generator(self.model.channels, *shape)
        self.d_p = make_discriminator(self.model.channels, width)
        self.d_n = make_discriminator(self.model.channels, width)
        self.pools = {"p": ImagePool(pool_size), "n": ImagePool(pool_size)}
        self.iterations = iterations
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.ssim_share = ssim_share
        self.cycle_weight = cycle_weight
        self.identity_weight = identity_weight
        self.paired_weight = paired_weight
        self.paired_content = build_generator(paired_content, "the generator paired_content")
        self.hparams["paired_content"] = generator_names(self.paired_content)
        self.cycle_noise = cycle_noise
        self.repair_error = MeanMetric()
        self.window_size = window_size

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Return the default metrics, and the accuracy of image labels, eq. 12."""
        evaluator = DefectModel.configure_evaluator()
        evaluator.test_metrics.append(Accuracy(fields=["pred_label", "gt_label"], prefix="image_", strict=False))
        return evaluator

    @classmethod
    def configure_visualizer(cls) -> RepairVisualizer:
        """Return anomalib's visualizer, extended by the repaired image."""
        return RepairVisualizer()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return one Adam for all networks, which is equivalent to one each, because Adam is element-wise.

        A step thus has one backward pass that reaches every weight, as distributed training and mixed precision expect.
        """
        trained = [weight for weight in self.parameters() if weight.requires_grad]  # not the backbone
        optimizer = Adam(trained, lr=self.learning_rate, betas=(0.5, 0.999))
        scheduler = LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / self.iterations)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Replace the training batches of the data module with unpaired ones before training.

        Raises:
            ConfigurationError: If the trainer has no data module.
        """
        super().setup(stage)
        if stage != "fit":
            return
        datamodule = datamodule_of(self.trainer)
        if datamodule is None:
            msg = "IsuGan builds batches from the images of a data module: pass one as datamodule, not data loaders"
            raise ConfigurationError(msg)
        loader = paired_loader("IsuGan", datamodule, self.batch_size, self._rng_of_epoch, self.global_rank)
        self.use_train_loader(loader)

    def _rng_of_epoch(self) -> torch.Generator:
        return self.rng(self.current_epoch)

    def training_step(self, batch: Batch[Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch, whose halves are normal and defective images, see ``paired_loader``."""
        rng = self.rng(self.current_epoch, batch_idx, self.global_rank)
        images = 2 * cast(Tensor, batch.image)[:, : self.model.channels].as_subclass(Tensor) - 1
        normal, defective = flip(images, rng).chunk(2)
        return self.sum_losses(self.losses(normal, defective, rng), batch_idx, len(images))

    @property
    def structural(self) -> bool:
        """Whether the losses are still 1 - SSIM: e < k of eq. 10 and 11."""
        return self.global_step < self.ssim_share * self.iterations

    def losses(self, p: Tensor, n: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Compute the weighted losses; the gradient of their sum updates each network by its own losses only.

        The discriminator loss uses fakes generated before the generators' update, as in CycleGAN.

        Args:
            p: Normal images, shape (B, C, H, W), float in [-1, 1].
            n: Defective images, same shape and range.
            rng: CPU generator for the image pools.
        """
        fake_p, fake_n = self.model.generator(n), self.g_p2n(p)
        same_p = self.model.generator(p)
        with frozen(self.d_p, self.d_n):
            adversarial = adversarial_loss(self.d_n(fake_n)) + adversarial_loss(self.d_p(fake_p))  # eq. 8
        rebuilt = self.g_p2n(self._with_noise(fake_p, rng))
        cycle = self._difference(p, self.model.generator(fake_n)) + self._difference(n, rebuilt)  # eq. 10
        losses = {
            "adversarial_loss": adversarial,
            "cycle_loss": self.cycle_weight * cycle,
            "identity_loss": self.identity_weight * self._difference(p, same_p),  # eq. 11
            "discriminator_loss": 0.5 * self._discriminator_loss(p, n, fake_p, fake_n, rng),
        }
        if self.paired_weight:
            losses["paired_loss"] = self.paired_weight * self.paired_loss(p, rng)
        return losses

    def paired_loss(self, p: Tensor, rng: torch.Generator) -> Tensor:
        """Compute the mean absolute difference between normal images and the repair of synthetic defects on them.

        The means over defects and over normal pixels are added. Defects are a few per cent of an image, so a mean over
        all pixels hardly rewards a repair: it taught the generator to keep the image.

        Args:
            p: Normal images, shape (B, C, H, W), float in [-1, 1].
            rng: CPU generator for the defects.
        """
        defective, mask = self.paired_content(((p + 1) / 2).clamp(0, 1).float(), rng)
        error = (cast(Tensor, self.model.generator(2 * defective - 1)) - p).abs().mean(1, keepdim=True)
        parts = [(error * part).sum() / part.sum().clamp(min=1) for part in (mask, ~mask)]
        return parts[0] + parts[1]

    def _with_noise(self, images: Tensor, rng: torch.Generator) -> Tensor:
        if not self.cycle_noise:
            return images
        return images + self.cycle_noise * torch.randn(images.shape, generator=rng).to(images)

    def _difference(self, image: Tensor, other: Tensor) -> Tensor:
        return difference(image, other, self.structural, self.window_size)

    def _discriminator_loss(self, p: Tensor, n: Tensor, fake_p: Tensor, fake_n: Tensor, rng: torch.Generator) -> Tensor:
        pooled_p, pooled_n = self.pools["p"].exchange(fake_p, rng), self.pools["n"].exchange(fake_n, rng)
        loss_p = discriminator_loss(self.d_p(p), self.d_p(pooled_p))  # eq. 9
        return loss_p + discriminator_loss(self.d_n(n), self.d_n(pooled_n))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the image pools, so that a resumed run equals an uninterrupted one."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[POOLS] = {name: [image.cpu() for image in pool.images] for name, pool in self.pools.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the image pools."""
        super().on_load_checkpoint(checkpoint)
        for name, images in checkpoint.get(POOLS, {}).items():
            self.pools[name].images = list(images)

    def test_step(self, batch: Batch[Any], batch_idx: int) -> Batch[Any]:  # type: ignore[override]
        """Predict anomaly maps, scores and, as ``repaired``, the repaired images.

        The mean square error of repaired normal images, eq. 16 with images in [0, 1], is logged as ``RepairMSE``.
        """
        del batch_idx
        batch = self._inspect(batch)
        normal = batch.gt_label == LabelName.NORMAL
        image = cast(Tensor, batch.image)[normal, : self.model.channels]
        repaired = cast(Tensor, cast(RepairedBatch, batch).repaired)[normal]
        self.repair_error.update((repaired - image).square())
        return batch

    def on_test_epoch_end(self) -> None:
        """Log the error of repaired normal images, if there are any."""
        super().on_test_epoch_end()
        error = self.repair_error.compute()
        self.repair_error.reset()
        if error.isfinite():
            self.log("RepairMSE", error)

    def predict_step(  # type: ignore[override]
        self, batch: Batch[Any], batch_idx: int, dataloader_idx: int = 0
    ) -> Batch[Any]:
        """Predict anomaly maps, scores and, as ``repaired``, the repaired images."""
        del batch_idx, dataloader_idx
        return self._inspect(batch)

    def _inspect(self, batch: Batch[Any]) -> Batch[Any]:
        repaired, predictions = self.model.inspect(cast(Tensor, batch.image))
        batch.update(**predictions._asdict())
        add_repaired(batch, repaired)
        return batch


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Disable gradients for the weights of networks; gradients still flow through the networks."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _check_networks(side: int, width: int, window_size: int) -> None:
    if side < MIN_SIDE:
        msg = f"image_size is {side}; it must be at least {MIN_SIDE}"
        raise InvalidInputError(msg)
    if width < 4 or width % 4:
        msg = f"width is {width}; it must be a multiple of 4"
        raise InvalidInputError(msg)
    if window_size % 2 == 0 or not 3 <= window_size <= side:
        msg = f"window_size is {window_size}; it must be odd, at least 3, and no larger than the image"
        raise InvalidInputError(msg)
