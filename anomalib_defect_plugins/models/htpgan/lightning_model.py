"""HTP-GAN in Lightning: one epoch trains one scale, coarse to fine, on one normal image.

Paper: Texture-perceiving generative adversarial network for one-shot surface inspection, ICASSP 2021,
https://arxiv.org/abs/2106.06792.
"""

from collections.abc import Callable
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, Batch, ImageItem
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader

from anomalib_defect_plugins.core.checks import check_one_of, check_positive
from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.models.components.checks import (
    check_finite,
)
from anomalib_defect_plugins.models.components.custom_train_loader import CustomTrainLoader
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.htpgan.loss import discriminator_loss, generator_loss
from anomalib_defect_plugins.models.htpgan.reference import load_reference
from anomalib_defect_plugins.models.htpgan.torch_model import HtpGanModel
from anomalib_defect_plugins.post_processing import OtsuPostProcessor, ReferencePostProcessor, SigmaPostProcessor

THRESHOLDS: dict[str, Callable[[], PostProcessor]] = {
    "adaptive": PostProcessor,
    "sigma": SigmaPostProcessor,
    "otsu": OtsuPostProcessor,
    "reference": ReferencePostProcessor,
}


class HtpGan(CustomTrainLoader, DefectModel, AnomalibModule):
    """One-shot surface inspection: learns the texture of one normal image, finds what is unlike it.

    Args:
        reference: The normal image to learn from: its index among the normal training images in the order of their
            paths, or its file name. No other image is looked at, and it is not augmented.
        image_size: Height and width that images are resized to, in pixels; a ``pre_processor`` of your own decides
            it instead.
        num_scales: Number of scales of the pyramid, 2 to 12.
        min_size: Shorter side of the coarsest scale, in pixels, at least 16.
        width: Channels of the hidden layers.
        texture_module: Whether the discriminators have the texture-perceiving module (the paper's ablation).
        iterations_per_scale: Training steps a scale; each updates the discriminator and the generator once.
        discriminator_lr: Learning rate of the discriminators (Adam).
        generator_lr: Learning rate of the generators (Adam).
        reconstruction_weight: Weight of the generator's reconstruction loss.
        blend_fakes: Whether generated images are blended with the real one under smooth random masks, so that the
            discriminator learns to judge places and not the whole image; ``False`` is the paper's plain game.
        fusion: What of each scale is fused: ``typicality`` (anything unlike the normal image), ``log_odds`` (for
            defects that add structure, such as cracks), ``entropy`` or ``paper``; see ``ScaleAnomalyMap``.
        contrast: Standard deviation that each image is scaled to, in units of the noise's.
        threshold: Where the thresholds come from: ``adaptive`` (anomalib's, from labelled validation images),
            ``sigma`` or ``otsu`` (from unlabelled validation images) or ``reference`` (from the normal image alone).
        pre_processor: As in anomalib.
        post_processor: As in anomalib; decides the threshold instead of ``threshold`` if one is given.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Raises:
        InvalidInputError: An argument that cannot be.
    """

    supervision = Supervision.ONE_SHOT
    paper = "https://arxiv.org/abs/2106.06792"
    threshold_option = "--model.threshold reference"

    def __init__(
        self,
        reference: int | str = 0,
        image_size: tuple[int, int] = (256, 256),
        num_scales: int = 7,
        min_size: int = 32,
        width: int = 8,
        texture_module: bool = True,
        iterations_per_scale: int = 150,
        discriminator_lr: float = 5e-4,
        generator_lr: float = 5e-5,
        reconstruction_weight: float = 10.0,
        blend_fakes: bool = True,
        fusion: str = "typicality",
        contrast: float = 0.05,
        threshold: str = "adaptive",
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        check_one_of("threshold", threshold, THRESHOLDS)
        check_positive(
            image_size=min(image_size),
            width=width,
            iterations_per_scale=iterations_per_scale,
            discriminator_lr=discriminator_lr,
            generator_lr=generator_lr,
            contrast=contrast,
        )
        super().__init__(
            image_size,
            pre_processor,
            THRESHOLDS[threshold]() if post_processor is True else post_processor,
            evaluator,
            visualizer,
        )
        self.fix_image_size()
        self.model = HtpGanModel(self.image_size, num_scales, min_size, width, texture_module, fusion, contrast)
        self.reference = reference
        self.iterations_per_scale = iterations_per_scale
        self.discriminator_lr = discriminator_lr
        self.generator_lr = generator_lr
        self.reconstruction_weight = reconstruction_weight
        self.blend_fakes = blend_fakes
        self.automatic_optimization = False

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One epoch a scale; validation once, when all scales are trained."""
        scales = len(self.model.sizes)
        return {"max_epochs": scales, "check_val_every_n_epoch": scales, "num_sanity_val_steps": 0}

    def configure_optimizers(self) -> list[Optimizer]:
        """Give each scale's discriminator and generator an Adam of its own: D_0, G_0, D_1, G_1, ..."""
        rates = (self.discriminator_lr, self.generator_lr)
        networks = zip(self.model.discriminators, self.model.generators, strict=True)
        return [
            Adam(network.parameters(), lr=rate, betas=(0.5, 0.999))
            for pair in networks
            for network, rate in zip(pair, rates, strict=True)
        ]

    def setup(self, stage: str) -> None:
        """Before training, put the reference image in the place of the data module's training batches."""
        if stage == "fit":
            self._check_trainer()
            datamodule = self.trainer.datamodule
            item = load_reference(datamodule, self.reference, self.hparams.min_size)
            super().setup(stage)
            self._use_reference(datamodule, item)

    def _check_trainer(self) -> None:
        trainer = self.trainer
        if trainer.world_size > 1:
            msg = (
                f"HtpGan learns from one image, which cannot be shared between {trainer.world_size} devices: "
                "pass --trainer.devices 1"
            )
            raise ConfigurationError(msg)
        if trainer.max_epochs != len(self.model.sizes) and not trainer.fast_dev_run:
            msg = (
                f"HtpGan trains one scale an epoch: max_epochs is {trainer.max_epochs}, but there are "
                f"{len(self.model.sizes)} scales; leave max_epochs out, and set --model.num_scales instead"
            )
            raise ConfigurationError(msg)

    def _use_reference(self, datamodule: AnomalibDataModule, item: ImageItem) -> None:
        collate = datamodule.train_data.collate_fn
        loader = DataLoader([item] * self.iterations_per_scale, batch_size=1, collate_fn=collate)
        self.use_train_loader(loader)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update one scale's discriminator, then its generator."""
        scale, step = self.current_epoch, batch_idx
        with torch.autocast(self.device.type, enabled=False):  # 16 bits would blur the grey levels of the image
            real = self.model.at_scale(batch.image[:1], scale)
        random = self.rng(scale, step)
        losses = {
            "d_loss": self._discriminator_step(scale, step, real, random),
            **self._generator_step(scale, step, real, random),
        }
        check_finite(losses, f"scale {scale + 1} of {len(self.model.sizes)}, iteration {step + 1}")
        self.log_dict({"scale": float(scale + 1), **losses}, prog_bar=True, batch_size=1)
        if step == self.trainer.num_training_batches - 1:
            with torch.autocast(self.device.type, enabled=False):
                self._finish_scale(scale, batch.image[:1])

    def _discriminator_step(self, scale: int, step: int, real: Tensor, random: torch.Generator) -> Tensor:
        with torch.no_grad():
            fake = self.model.generate(self._noise(scale, random)).to(real)
        share = self._blend_mask(real, random) if self.blend_fakes else torch.zeros_like(real[:, :1])
        logits = self.model.discriminators[scale](torch.cat([real, torch.lerp(fake, real, share)]))
        loss = discriminator_loss(*logits.chunk(2), share)
        self._optimise(2 * scale, loss, step)
        return loss.detach()

    def _generator_step(self, scale: int, step: int, real: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        fake = self.model.generate(self._noise(scale, random))
        adversarial = generator_loss(self.model.discriminators[scale](torch.cat([real, fake])).chunk(2)[1])
        reconstruction = functional.mse_loss(self.model.generate(self._fixed_noise(scale)), real)
        self._optimise(2 * scale + 1, adversarial + self.reconstruction_weight * reconstruction, step)
        return {"g_loss": adversarial.detach(), "rec_loss": reconstruction.detach()}

    def _optimise(self, index: int, loss: Tensor, step: int) -> None:
        optimizer = self.optimizers()[index]
        rate = self.generator_lr if index % 2 else self.discriminator_lr
        late = step >= 0.8 * self.trainer.num_training_batches
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.1 if late else 1.0)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def _finish_scale(self, scale: int, image: Tensor) -> None:
        """Calibrate the scale; start the next from it, or take the threshold when it was the last.

        It belongs to the scale's last step, so that every checkpoint of its epoch already has it.
        """
        self.model.calibrate(scale, image)
        if scale + 1 < len(self.model.sizes):
            for networks in (self.model.generators, self.model.discriminators):
                networks[scale + 1].load_state_dict(networks[scale].state_dict())
        elif isinstance(self.post_processor, ReferencePostProcessor):
            self.model.eval()
            with torch.no_grad():
                own = self.model(image)
            self.model.train()
            self.post_processor.set_reference(own.anomaly_map, own.pred_score)

    def _noise(self, scale: int, random: torch.Generator) -> list[Tensor]:
        """Draw unit noise at each scale up to this one, as eq. 1 prints it."""
        sizes = self.model.sizes[: scale + 1]
        return [torch.randn(1, 3, *size, generator=random).to(self.device) for size in sizes]

    def _fixed_noise(self, scale: int) -> list[Tensor]:
        """Give the noise of the reconstruction: fixed at the coarsest scale, none at the others."""
        sizes = self.model.sizes[: scale + 1]
        coarsest = torch.randn(1, 3, *sizes[0], generator=self.rng(0, self.iterations_per_scale))
        return [coarsest.to(self.device), *(torch.zeros(1, 3, *size, device=self.device) for size in sizes[1:])]

    def _blend_mask(self, real: Tensor, random: torch.Generator) -> Tensor:
        """Draw the share of the real image at each pixel: smooth blobs, ``(1, 1, H, W)`` in [0, 1]."""
        coarse = torch.rand(1, 1, 8, 8, generator=random)
        smooth = functional.interpolate(coarse, real.shape[-2:], mode="bicubic", align_corners=False)
        level = torch.rand(1, generator=random)
        return ((level - smooth) * 8).sigmoid().to(real)
