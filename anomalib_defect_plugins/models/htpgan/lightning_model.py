"""HTP-GAN: each epoch trains one scale, coarse to fine, on one normal image.

Paper: Texture-perceiving generative adversarial network for one-shot surface inspection, ICASSP 2021,
https://arxiv.org/abs/2106.06792.
"""

import logging
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataModule, Batch, ImageItem
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader, Dataset

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative, check_one_of, check_positive
from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.layers.restricted_forward import values_inside
from anomalib_defect_plugins.models.components.checks import check_finite, datamodule_of
from anomalib_defect_plugins.models.components.custom_train_loader import CustomTrainLoader
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.htpgan.loss import discriminator_loss, generator_loss
from anomalib_defect_plugins.models.htpgan.reference import load_reference
from anomalib_defect_plugins.models.htpgan.torch_model import HtpGanModel, upsample
from anomalib_defect_plugins.post_processing import (
    DefectPostProcessor,
    OtsuPostProcessor,
    ReferencePostProcessor,
    SigmaPostProcessor,
    unseen_views,
)

logger = logging.getLogger(__name__)

NOISE = "reconstruction_noise"
"""Key of the number that selects the noise of the reconstruction, in checkpoints."""

HEAD_KERNELS = ("1", "3")

THRESHOLDS: dict[str, Callable[[], PostProcessor]] = {
    "adaptive": DefectPostProcessor,
    "sigma": SigmaPostProcessor,
    "otsu": OtsuPostProcessor,
    "reference": ReferencePostProcessor,
}
"""Post-processors by the source of their thresholds."""


class HtpGan(CustomTrainLoader, DefectModel, AnomalibModule):
    """One-shot surface inspection: learns the texture of one normal image and detects what differs from it.

    Args:
        reference: Normal image to learn from: its index among the normal training images in the order of their paths,
            or its file name. No other training image is read, and augmentations are not applied.
        image_size: Height and width that images are resized to, in pixels; a custom ``pre_processor`` overrides it.
        num_scales: Number of scales of the pyramid, 2 to 12.
        min_size: Shorter side of the coarsest scale, in pixels, at least 16.
        width: Channels of the hidden layers.
        texture_module: Whether the discriminators have the texture-perceiving module (the paper's ablation).
        discriminator_blocks: Number of conv-blocks f_n of the discriminators. Each adds 2 pixels to the receptive
            field, which is 7x7 with the defaults.
        head_kernel: Side of the kernels of the discriminators' head g_n, 1 or 3; 3 adds 4 pixels.
        iterations_per_scale: Training steps per scale.
        discriminator_steps: Updates of the discriminator in each step; 3 in SinGAN.
        generator_steps: Updates of the generator in each step; 3 in SinGAN.
        joint_scales: Number of scales whose generators are trained together (ConSinGAN,
            https://arxiv.org/abs/2003.11512); each coarser one has a tenth of the learning rate of the next.
        discriminator_lr: Learning rate of the discriminators (Adam).
        generator_lr: Learning rate of the generators (Adam); 0 leaves them as they are initialised.
        reconstruction_weight: Weight of the generator's reconstruction loss.
        blend_fakes: Whether generated images are blended with the real one under smooth random masks, so that the
            discriminator learns to classify positions instead of whole images; ``False`` trains as in the paper.
        fusion: Quantity of each scale that is fused: ``typicality`` (for any difference from the normal image),
            ``maximum`` (the same, also for defects that only one scale sees, such as scratches), ``log_odds`` (for
            defects that add structure, such as cracks), ``entropy`` or ``paper``; see ``ScaleAnomalyMap``.
        score_share: Share of the highest pixels of an anomaly map whose mean is the score, in (0, 1], so that one
            bright grain does not decide.
        contrast: Standard deviation that each image is scaled to, after the mean of each channel is subtracted, in
            units of the coarsest scale's noise; ``None`` leaves images as they are, in [-1, 1].
        noise_amplitude: Standard deviation of the noise of each scale but the coarsest, in units of the root mean
            square error of the upsampled reconstruction (0.1 in SinGAN, https://arxiv.org/abs/1905.01164); ``None`` is
            unit noise at every scale, as eq. 1 prints it.
        threshold: Source of the thresholds: ``adaptive`` (anomalib's, from labelled validation images), ``sigma`` or
            ``otsu`` (from unlabelled validation images) or ``reference`` (from the normal image alone; pixels have the
            threshold of images if ``fusion`` is ``maximum``).
        pre_processor: As in anomalib.
        post_processor: As in anomalib; a custom one overrides ``threshold``.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    supervision = Supervision.ONE_SHOT
    paper = "https://arxiv.org/abs/2106.06792"
    threshold_option = "--model.threshold reference"
    complete_after_last_epoch = True
    former_arguments = MappingProxyType(
        {
            "discriminator_blocks": 2,
            "head_kernel": 1,
            "discriminator_steps": 1,
            "generator_steps": 1,
            "joint_scales": 1,
            "noise_amplitude": None,
            "score_share": 0.01,
        }
    )

    model: HtpGanModel

    def __init__(
        self,
        reference: int | str = 0,
        image_size: tuple[int, int] = (256, 256),
        num_scales: int = 7,
        min_size: int = 32,
        width: int = 8,
        texture_module: bool = True,
        discriminator_blocks: int = 2,
        head_kernel: int = 1,
        iterations_per_scale: int = 150,
        discriminator_steps: int = 1,
        generator_steps: int = 1,
        joint_scales: int = 1,
        discriminator_lr: float = 5e-4,
        generator_lr: float = 5e-5,
        reconstruction_weight: float = 10.0,
        blend_fakes: bool = True,
        fusion: str = "typicality",
        score_share: float = 0.01,
        contrast: float | None = 0.05,
        noise_amplitude: float | None = None,
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
            discriminator_blocks=discriminator_blocks,
            iterations_per_scale=iterations_per_scale,
            discriminator_steps=discriminator_steps,
            generator_steps=generator_steps,
            joint_scales=joint_scales,
            discriminator_lr=discriminator_lr,
            contrast=1 if contrast is None else contrast,
        )
        check_not_negative(generator_lr=generator_lr, noise_amplitude=0 if noise_amplitude is None else noise_amplitude)
        check_one_of("head_kernel", str(head_kernel), HEAD_KERNELS)
        check_fraction("score_share", score_share, one=True)
        super().__init__(
            image_size,
            pre_processor,
            THRESHOLDS[threshold]() if post_processor is True else post_processor,
            evaluator,
            visualizer,
        )
        self.fix_image_size()
        self.model = HtpGanModel(
            self.image_size,
            *(num_scales, min_size, width, texture_module, fusion, contrast, discriminator_blocks, head_kernel),
            score_share=score_share,
        )
        self.reference = reference
        self.iterations_per_scale = iterations_per_scale
        self.discriminator_lr = discriminator_lr
        self.generator_lr = generator_lr
        self.reconstruction_weight = reconstruction_weight
        self.blend_fakes = blend_fakes
        self.discriminator_steps = discriminator_steps
        self.generator_steps = generator_steps
        self.joint_scales = joint_scales
        self.noise_amplitude = noise_amplitude
        self._noise_number = iterations_per_scale
        self.automatic_optimization = False

    @property
    def trainer_defaults(self) -> dict[str, Any]:
        """One epoch per scale, and validation once, after the last scale."""
        scales = len(self.model.sizes)
        return {"max_epochs": scales, "check_val_every_n_epoch": scales}

    def configure_optimizers(self) -> list[Optimizer]:
        """Create one Adam per network, in the order D_0, G_0, D_1, G_1, ..."""
        rates = (self.discriminator_lr, self.generator_lr)
        networks = zip(self.model.discriminators, self.model.generators, strict=True)
        return [
            Adam(network.parameters(), lr=rate, betas=(0.5, 0.999))
            for pair in networks
            for network, rate in zip(pair, rates, strict=True)
        ]

    def setup(self, stage: str) -> None:
        """Replace the data module's training batches with the reference image before training.

        Raises:
            ConfigurationError: If there are several devices, or no data module.
            InvalidInputError: If no normal image matches ``reference``, or if the image is corrupt or too small.
        """
        if stage == "fit":
            self._check_trainer()
            datamodule = datamodule_of(self.trainer)
            item = load_reference(datamodule, self.reference, self.hparams["min_size"])
            super().setup(stage)
            self._use_reference(cast(AnomalibDataModule, datamodule), item)
            self._report_completed(self.trainer.current_epoch, self.iterations_per_scale)

    def _check_trainer(self) -> None:
        trainer = self.trainer
        if isinstance(trainer.strategy, ParallelStrategy):
            msg = (
                "HtpGan learns from one image, which cannot be shared between devices: pass --trainer.devices 1, and "
                "leave --trainer.strategy out"
            )
            raise ConfigurationError(msg)

    def _use_reference(self, datamodule: AnomalibDataModule, item: ImageItem) -> None:
        collate = datamodule.train_data.collate_fn
        items = cast("Dataset[ImageItem]", [item] * self.iterations_per_scale)
        self.use_train_loader(DataLoader(items, batch_size=1, collate_fn=collate))

    def training_step(self, batch: Batch[Any], batch_idx: int) -> None:
        """Update the discriminator of the current scale, then its generator."""
        scale, step = self.current_epoch, batch_idx
        image = cast(Tensor, batch.image)[:1]
        with torch.autocast(self.device.type, enabled=False):  # half precision is too coarse for the grey levels
            real = self.model.at_scale(image, scale)
        if step == 0:
            self._set_noise_amplitude(scale, real)
        rng = self.rng(scale, step)
        losses: dict[str, Tensor] = {}
        for _ in range(self.discriminator_steps):
            losses["d_loss"] = self._discriminator_step(scale, step, real, rng)
        for _ in range(self.generator_steps if self.generator_lr else 0):
            losses |= self._generator_step(scale, step, real, rng)
        check_finite(losses, f"scale {scale + 1} of {len(self.model.sizes)}, iteration {step + 1}")
        self.log_dict({"scale": float(scale + 1), **losses}, prog_bar=True, batch_size=1)
        if step >= self.trainer.num_training_batches - 1:  # more, if a scale is resumed with fewer iterations
            with torch.autocast(self.device.type, enabled=False):
                self._finish_scale(scale, image)

    def _discriminator_step(self, scale: int, step: int, real: Tensor, rng: torch.Generator) -> Tensor:
        with torch.no_grad():
            fake = self.model.generate(self._noise(scale, rng)).to(real)
        share = self._blend_mask(real, rng) if self.blend_fakes else torch.zeros_like(real[:, :1])
        logits = self.model.discriminators[scale](torch.cat([real, torch.lerp(fake, real, share)]))
        real_logits, fake_logits = logits.chunk(2)
        loss = discriminator_loss(real_logits, fake_logits, share)
        self._optimise([2 * scale], loss, step)
        return loss.detach()

    def _generator_step(self, scale: int, step: int, real: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        fake = self.model.generate(self._noise(scale, rng), self.joint_scales)
        adversarial = generator_loss(self.model.discriminators[scale](torch.cat([real, fake])).chunk(2)[1])
        rebuilt = self.model.generate(self._fixed_noise(scale), self.joint_scales)
        reconstruction = functional.mse_loss(rebuilt, real)
        trained = [2 * n + 1 for n in range(scale, max(-1, scale - self.joint_scales), -1)]
        self._optimise(trained, adversarial + self.reconstruction_weight * reconstruction, step)
        return {"g_loss": adversarial.detach(), "rec_loss": reconstruction.detach()}

    def _optimise(self, indices: Sequence[int], loss: Tensor, step: int) -> None:
        """Update networks of one kind, finest first, by their index among the optimisers."""
        optimizers = cast(list[LightningOptimizer], self.optimizers())
        rate = self.generator_lr if indices[0] % 2 else self.discriminator_lr
        is_last_fifth = step >= 0.8 * self.trainer.num_training_batches
        for depth, index in enumerate(indices):
            for group in optimizers[index].param_groups:
                group["lr"] = rate * 0.1**depth * (0.1 if is_last_fifth else 1.0)
            optimizers[index].zero_grad()
        self.manual_backward(loss)
        for index in indices:
            optimizers[index].step()

    @torch.no_grad()
    def _set_noise_amplitude(self, scale: int, real: Tensor) -> None:
        """Set the noise of a scale by the error that the coarser ones leave to it, as SinGAN does."""
        if scale and self.noise_amplitude is not None:
            coarser = upsample(self.model.generate(self._fixed_noise(scale - 1)), real)
            error = functional.mse_loss(coarser, real).sqrt()
            self.model.noise_amplitudes[scale] = self.noise_amplitude * error

    def _finish_scale(self, scale: int, image: Tensor) -> None:
        """Calibrate the scale, and initialise the next one from it; after the last scale, set the thresholds.

        Part of the scale's last step, so that every checkpoint of its epoch includes the result.
        """
        views = [unseen_views(image)] if self.model.fusion == "maximum" else []
        self.model.calibrate(scale, torch.cat([image, *views]))
        if scale + 1 < len(self.model.sizes):
            for networks in (self.model.generators, self.model.discriminators):
                networks[scale + 1].load_state_dict(networks[scale].state_dict())
        elif isinstance(self.post_processor, ReferencePostProcessor):
            self.model.eval()
            with torch.no_grad():
                output = self.model(image)
                unseen = [self.model(view[None]).pred_score for view in unseen_views(image)]
            self.model.train()
            values = values_inside(self, output.anomaly_map)
            is_maximum = self.model.fusion == "maximum"
            self.post_processor.set_reference(values, output.pred_score, torch.cat(unseen), common_limit=is_maximum)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of the noise of the reconstruction, which a resumed run keeps."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[NOISE] = self._noise_number

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the noise of the reconstruction; name the scales that a resumed run leaves as they are."""
        super().on_load_checkpoint(checkpoint)
        former = checkpoint["hyper_parameters"]["iterations_per_scale"]
        self._noise_number = int(checkpoint.get(NOISE, former))
        if self.resumes_training:
            self._report_completed(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"], former)

    def _report_completed(self, scales: int, iterations: int) -> None:
        total = len(self.model.sizes)
        if scales >= total:
            logger.warning("all %d scales of HtpGan are completed, so that nothing is trained", total)
        elif scales and iterations != self.iterations_per_scale:
            logger.warning(
                "%d of %d scales are completed with iterations_per_scale %d; the others are trained with %d",
                *(scales, total, iterations, self.iterations_per_scale),
            )

    def _noise(self, scale: int, rng: torch.Generator) -> list[Tensor]:
        """Draw the noise z_n of eq. 1 for each scale up to this one."""
        pairs = zip(self.model.sizes[: scale + 1], self.model.noise_amplitudes, strict=False)
        return [amplitude * torch.randn(1, 3, *size, generator=rng).to(self.device) for size, amplitude in pairs]

    def _fixed_noise(self, scale: int) -> list[Tensor]:
        """Return the noise of the reconstruction: fixed at the coarsest scale, zero at the others."""
        sizes = self.model.sizes[: scale + 1]
        coarsest = torch.randn(1, 3, *sizes[0], generator=self.rng(0, self._noise_number))
        return [coarsest.to(self.device), *(torch.zeros(1, 3, *size, device=self.device) for size in sizes[1:])]

    def _blend_mask(self, real: Tensor, rng: torch.Generator) -> Tensor:
        """Draw the share of the real image in each pixel: smooth blobs, shape (1, 1, H, W), in [0, 1]."""
        coarse = torch.rand(1, 1, 8, 8, generator=rng)
        smooth = functional.interpolate(coarse, real.shape[-2:], mode="bicubic", align_corners=False)
        level = torch.rand(1, generator=rng)
        return ((level - smooth) * 8).sigmoid().to(real)
