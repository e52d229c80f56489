"""ISU-GAN in Lightning: two generators and two discriminators learn to repair and to make defects.

Paper: Using ISU-GAN for unsupervised small sample defect detection, Scientific Reports 2022,
https://doi.org/10.1038/s41598-022-15855-7.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from anomalib_defect_plugins.core.checks import check_one_of, check_positive
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.models.components.custom_train_loader import CustomTrainLoader
from anomalib_defect_plugins.models.components.defect_model import DefectModel, resizing
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.components.unpaired_loader import flip, paired_loader
from anomalib_defect_plugins.models.isugan.dataclasses import add_repaired
from anomalib_defect_plugins.models.isugan.image_pool import ImagePool
from anomalib_defect_plugins.models.isugan.loss import adversarial_loss, difference, discriminator_loss
from anomalib_defect_plugins.models.isugan.post_processing import ImageOtsuPostProcessor
from anomalib_defect_plugins.models.isugan.torch_model import Generator, IsuGanModel, make_discriminator
from anomalib_defect_plugins.models.isugan.visualizer import RepairVisualizer
from anomalib_defect_plugins.post_processing import UnitPostProcessor

MASK_THRESHOLDS: dict[str, Callable[[], PostProcessor]] = {
    "otsu": ImageOtsuPostProcessor,
    "adaptive": UnitPostProcessor,
}

POOLS = "isugan_image_pools"
"""Where a checkpoint has the images of the pools."""

MIN_SIDE = 16


class IsuGan(CustomTrainLoader, DefectModel, IterativeTraining, AnomalibModule):
    """ISU-GAN: learns from normal and defective images, unpaired and without masks, to repair; finds what it repairs.

    It makes its own batches of what the data module has for training: ``batch_size`` normal images and as many
    defective ones, real or synthetic. An epoch has each normal image once. The data module's batch size is left out.

    Args:
        image_size: Height and width that images are resized to, in pixels, each at least 16.
        grey: Whether images are made grey; if not, colours are repaired too, and SSIM is the mean over the channels.
        width: Channels after the first convolution, a multiple of 4; the paper has 64.
        residual_blocks: Residual blocks of a generator; the paper has 9.
        skip: Whether generators have skip connections.
        involution: Whether they have involutions.
        squeeze_excitation: Whether they have SE blocks; without all three they are the plain ones of Table 3.
        iterations: Training steps. The paper's 100 epochs of 100 normal images are 10000.
        batch_size: Normal images in a step, and as many defective ones.
        learning_rate: Learning rate of Adam; it falls linearly to 0 over the second half of the steps.
        ssim_share: Share of the steps, the first ones, in which cycle and identity losses are 1 - SSIM, in [0, 1];
            afterwards they are L1. The paper's k = 10 of 100 epochs is 0.1.
        cycle_weight: Weight of L_cycle.
        identity_weight: Weight of L_identity.
        pool_size: Fakes that each discriminator's image pool keeps; 0 is none.
        window_size: Side of the SSIM window in pixels, odd; both of the losses and of inspection.
        score_share: Share of the pixels of an anomaly map, the highest ones, whose mean is the score; in (0, 1].
        mask_threshold: ``otsu`` (in each image that is decided to be defective, as in the paper) or ``adaptive``
            (anomalib's, one for all images, from validation images with masks).
        pre_processor: As in anomalib.
        post_processor: As in anomalib; decides the mask instead of ``mask_threshold`` if one is given.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Raises:
        InvalidInputError: An argument that cannot be.
    """

    supervision = Supervision.IMAGE_LABELS
    paper = "https://doi.org/10.1038/s41598-022-15855-7"
    grey = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        grey: bool = True,
        width: int = 64,
        residual_blocks: int = 9,
        skip: bool = True,
        involution: bool = True,
        squeeze_excitation: bool = True,
        iterations: int = 10000,
        batch_size: int = 1,
        learning_rate: float = 2e-4,
        ssim_share: float = 0.1,
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        pool_size: int = 50,
        window_size: int = 9,
        score_share: float = 0.001,
        mask_threshold: str = "otsu",
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        image_size = tuple(image_size)
        check_positive(
            iterations=iterations, batch_size=batch_size, learning_rate=learning_rate, score_share=score_share
        )
        _check_range("image_size", min(image_size), MIN_SIDE, float("inf"))
        _check_range("residual_blocks", residual_blocks, 0, float("inf"))
        _check_range("pool_size", pool_size, 0, float("inf"))
        _check_range("ssim_share", ssim_share, 0, 1)
        _check_range("score_share", score_share, 0, 1)
        _check_networks(width, window_size, min(image_size))
        check_one_of("mask_threshold", mask_threshold, MASK_THRESHOLDS)
        super().__init__(
            image_size,
            resizing(image_size, grey) if pre_processor is True else pre_processor,
            MASK_THRESHOLDS[mask_threshold]() if post_processor is True else post_processor,
            evaluator,
            visualizer,
        )
        shape = (width, residual_blocks, skip, involution, squeeze_excitation)
        self.model = IsuGanModel(grey, *shape, window_size=window_size, score_share=score_share)
        # These three only train: they are in checkpoints, but not in what is exported, which is self.model.
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
        self.window_size = window_size

    @classmethod
    def configure_visualizer(cls) -> RepairVisualizer:
        """anomalib's pictures, with the repaired image."""
        return RepairVisualizer()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One Adam for all networks, which is the same as one each: Adam treats every weight by itself.

        So a step has one backward pass that reaches every weight, which distributed training and mixed precision take
        as they take any model.
        """
        optimizer = Adam(self.parameters(), lr=self.learning_rate, betas=(0.5, 0.999))
        scheduler = LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / self.iterations)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Before training, put paired batches in the place of the data module's training batches."""
        super().setup(stage)
        if stage != "fit":
            return
        datamodule = self.trainer.datamodule
        if datamodule is None:
            msg = "IsuGan makes batches of a data module's images: pass one as datamodule, not data loaders"
            raise ConfigurationError(msg)
        loader = paired_loader("IsuGan", datamodule, self.batch_size, self._rng_of_epoch, self.global_rank)
        self.use_train_loader(loader)

    def _rng_of_epoch(self) -> torch.Generator:
        return self.rng(self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Learn from normal and defective images, which are the two halves of a batch, see ``paired_loader``."""
        rng = self.rng(self.current_epoch, batch_idx, self.global_rank)
        images = 2 * batch.image[:, : self.model.channels].as_subclass(Tensor) - 1
        return self.sum_losses(self.losses(*flip(images, rng).chunk(2), rng), batch_idx, len(images))

    @property
    def structural(self) -> bool:
        """Whether the losses are still 1 - SSIM, e < k of eq. 10 and 11; a resumed run knows its step."""
        return self.global_step < self.ssim_share * self.iterations

    def losses(self, p: Tensor, n: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Give the weighted losses, whose sum's gradient moves each network by its own losses only.

        The discriminators judge the fakes that the generators are judged by, before either changes, as in CycleGAN.

        Args:
            p: Normal images, (B, C, H, W), in [-1, 1].
            n: Defective images, likewise.
            rng: Source of the pools' chance.
        """
        fake_p, fake_n = self.model.generator(n), self.g_p2n(p)
        same_p = self.model.generator(p)
        with frozen(self.d_p, self.d_n):
            adversarial = adversarial_loss(self.d_n(fake_n)) + adversarial_loss(self.d_p(fake_p))  # eq. 8
        cycle = self._difference(p, self.model.generator(fake_n)) + self._difference(n, self.g_p2n(fake_p))  # eq. 10
        return {
            "adversarial_loss": adversarial,
            "cycle_loss": self.cycle_weight * cycle,
            "identity_loss": self.identity_weight * self._difference(p, same_p),  # eq. 11
            "discriminator_loss": 0.5 * self._discriminator_loss(p, n, fake_p, fake_n, rng),
        }

    def _difference(self, image: Tensor, other: Tensor) -> Tensor:
        return difference(image, other, self.structural, self.window_size)

    def _discriminator_loss(self, p: Tensor, n: Tensor, fake_p: Tensor, fake_n: Tensor, rng: torch.Generator) -> Tensor:
        pooled_p, pooled_n = self.pools["p"].exchange(fake_p, rng), self.pools["n"].exchange(fake_n, rng)
        return sum(  # eq. 9
            discriminator_loss(network(real), network(fake))
            for network, real, fake in ((self.d_p, p, pooled_p), (self.d_n, n, pooled_n))
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the image pools too: a resumed run goes on as if it had not stopped."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[POOLS] = {name: [image.cpu() for image in pool.images] for name, pool in self.pools.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fill the image pools again."""
        super().on_load_checkpoint(checkpoint)
        for name, images in checkpoint.get(POOLS, {}).items():
            self.pools[name].images = list(images)

    def test_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Give anomaly maps, scores and, as ``repaired``, the repaired images."""
        del batch_idx
        return self._inspect(batch)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Batch:
        """Give anomaly maps, scores and, as ``repaired``, the repaired images."""
        del batch_idx, dataloader_idx
        return self._inspect(batch)

    def _inspect(self, batch: Batch) -> Batch:
        repaired, predictions = self.model.inspect(batch.image)
        batch.update(**predictions._asdict())
        add_repaired(batch, repaired)
        return batch


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Let what is computed meanwhile give these networks no gradient; it still flows through them."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        msg = f"{name} is {value}; it must be {f'at least {low}' if high == float('inf') else f'in [{low}, {high}]'}"
        raise InvalidInputError(msg)


def _check_networks(width: int, window_size: int, side: int) -> None:
    if width < 4 or width % 4:
        msg = f"width is {width}; it must be a multiple of 4"
        raise InvalidInputError(msg)
    if window_size % 2 == 0 or not 3 <= window_size <= side:
        msg = f"window_size is {window_size}; it must be odd, 3 at least, and no larger than the image"
        raise InvalidInputError(msg)
