"""Lightning module of OneStage, which learns segmentation from images with and without defects and their masks.

Paper: A one-stage approach for surface anomaly detection with background suppression strategies, Sensors 2020, 20(7),
1829, https://doi.org/10.3390/s20071829.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from anomalib.data import Batch, ImageBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative, check_positive
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data.mask_resize import ignored_pixels
from anomalib_defect_plugins.models.components.augmentation import Augmentation
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.encoder_rate import rates
from anomalib_defect_plugins.models.components.fitted_density import FittedDensity
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.onestage.encoder import SegDecEncoder, TimmEncoder
from anomalib_defect_plugins.models.onestage.loss import cross_entropy, pixel_weights, stage_loss
from anomalib_defect_plugins.models.onestage.torch_model import OneStageModel, OneStageOutput
from anomalib_defect_plugins.post_processing import DefectPostProcessor, FixedPostProcessor

logger = logging.getLogger(__name__)

MIN_SIDE = 16
"""Minimum height and width in pixels: instance norm needs more than one pixel at an eighth of the size."""

SIGMA = 100 / (1408 * 512)
"""The paper's image threshold as a mean; eq. 5 compares the sum over the pixels of an image with 100."""


class OneStage(FittedDensity, DefectModel, IterativeTraining, AnomalibModule):
    """One-stage segmenter with dual background suppression and without a classifier, trained on a few pixel masks.

    Args:
        image_size: Height and width that images are resized to, in pixels, multiples of 16 (8 without a backbone);
            ``None`` selects those of the training images, scaled down to 640 x 256 pixels if they have more. The
            paper's is (1408, 512). A custom ``pre_processor`` overrides it.
        width: Paper's encoder: ``paper``, or ``small``, which is suitable for training on a CPU.
        norm: ``group``, ``instance`` or ``batch``, which needs batches of several images.
        coarse_suppression: Whether the maps of the three decoder stages are summed and have a loss each (CBS); if not,
            only the last stage's map and the loss of the result are used.
        fine_iterations: Number of multiplications with the deepest map, n of FBS; 0 disables FBS. Without CBS and FBS,
            the network is a U-Net.
        prior: Initial mean of the maps, in (0, 1).
        backbone: Name of a convolutional timm model as encoder; images keep their colours. ``None`` selects the paper's
            encoder, which starts from random weights and makes images grey.
        pre_trained: Whether to load timm's weights into the backbone, which are downloaded once; or a file with them.
        stages: Strides of the features that the maps f_1, f_2 and f_3 are computed from, coarse to fine; ``None``
            selects 4, 2, 1, or 8, 4, 2 with a backbone.
        score: Image score: ``max`` of the map, ``top``, the mean of its highest 1 %, or ``mean`` as in the paper.
        defect_weight: Lowest total weight of the defect pixels of a defective image in its loss, in (0, 1). With
            ``None`` all pixels have equal weight, as in the paper, and small defects are not learnt.
        density_weight: Weight of the Mahalanobis distance of the backbone's features to those of the normal training
            images, fitted after the last step, which is added to the log-odds of the map. 0, no backbone or a
            ``sigma`` select the map of the paper, in [0, 1].
        spread_weight: Weight of the spread of these distances over an image, which is added to the image score; without
            a density it has no effect.
        augment: Whether to mirror, rotate, scale and light training images and their masks at random.
        iterations: Number of training steps.
        learning_rate: Learning rate of Adam.
        encoder_rate: Learning rate of the backbone, as a multiple of ``learning_rate``; 0 freezes it.
        annealing: Whether the learning rate falls to 0 along a cosine; constant in the paper.
        sigma: Fixed threshold of the image score, in (0, 1); the paper's, for ``mean``, is ``SIGMA`` = 1.39e-4. The
            pixel threshold is then 0.5. ``None`` uses anomalib's thresholds from labelled validation images.
        pre_processor: As in anomalib.
        post_processor: As in anomalib; a custom one overrides ``sigma``.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    supervision = Supervision.PIXEL_MASKS
    paper = "https://doi.org/10.3390/s20071829"
    threshold_option = "--model.sigma"
    former_arguments = MappingProxyType(
        {"backbone": None, "stages": None, "score": "mean", "density_weight": 0.0, "spread_weight": 0.0}
    )

    model: OneStageModel

    def __init__(
        self,
        image_size: tuple[int, int] | None = None,
        width: str = "paper",
        norm: str = "group",
        coarse_suppression: bool = True,
        fine_iterations: int = 3,
        prior: float = 0.05,
        backbone: str | None = "mobilenetv2_100",
        pre_trained: bool | str | Path = True,
        stages: Sequence[int] | None = None,
        score: str = "max",
        defect_weight: float | None = 0.1,
        density_weight: float = 3.0,
        spread_weight: float = 30.0,
        augment: bool = True,
        iterations: int = 400,
        learning_rate: float = 1e-3,
        encoder_rate: float = 0.1,
        annealing: bool = True,
        sigma: float | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        check_positive(iterations=iterations, learning_rate=learning_rate)
        check_not_negative(encoder_rate=encoder_rate, density_weight=density_weight, spread_weight=spread_weight)
        self.size_multiple = TimmEncoder.strides[-1] if backbone else SegDecEncoder.strides[-1]
        if image_size is not None:
            self._check_size(image_size)
        if defect_weight is not None:
            check_fraction("defect_weight", defect_weight)
        if sigma is not None:
            check_fraction(f"sigma (the paper's is {SIGMA:.3g})", sigma)
        super().__init__(
            image_size,
            pre_processor,
            _thresholds(sigma) if post_processor is True else post_processor,
            evaluator,
            visualizer,
            grey=backbone is None,
        )
        self.model = OneStageModel(
            width,
            norm,
            coarse_suppression,
            fine_iterations,
            prior,
            backbone,
            pre_trained,
            stages,
            score,
            density_weight if backbone and sigma is None else 0.0,
            spread_weight,
        )
        self.model.encoder.requires_grad_(backbone is None or encoder_rate > 0)
        self.defect_weight = defect_weight or 0.0
        self.augmentation = Augmentation(None, vary=True) if augment else None
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.encoder_rate = encoder_rate if backbone else 1.0
        self.annealing = annealing
        self._vanished: set[str] = set()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam, as in section 3."""
        optimizer = Adam(rates(self.model, self.learning_rate, self.encoder_rate), lr=self.learning_rate)
        return self.cosine_schedule(optimizer) if self.annealing else optimizer

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images = cast(Tensor, batch.image).as_subclass(Tensor)
        masks = cast(Tensor, batch.gt_mask).as_subclass(Tensor)[:, None]
        self._check_size(images.shape[-2:])
        counts = self._has_valid_mask(batch, masks)
        ignored = ignored_pixels(batch, images.shape[-2:])
        if self.augmentation is not None:
            drawn = masks if ignored is None else torch.cat([masks, ignored], 1)
            images, drawn = self.augmentation.with_masks(images, drawn)
            masks, ignored = drawn[:, :1], None if ignored is None else drawn[:, 1:]
        losses = self.losses(self.model(images), masks, counts, self.defect_weight, ignored)
        return self.sum_losses(losses, batch_idx, len(images))

    @staticmethod
    def losses(
        output: OneStageOutput,
        masks: Tensor,
        counts: Tensor | None = None,
        defect_weight: float = 0.0,
        ignored: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss of each stage's map (eq. 3) and that of the result.

        Args:
            output: Output of the network in training.
            masks: Masks, shape (B, 1, H, W), bool, true on defects.
            counts: See :func:`pixel_weights`.
            defect_weight: See :func:`pixel_weights`.
            ignored: See :func:`pixel_weights`.
        """
        target = masks, pixel_weights(masks, counts, defect_weight, ignored)
        losses = {f"{name}_loss": stage_loss(logits, *target) for name, logits in output.stages.items()}
        return {**losses, "final_loss": cross_entropy(output.log_defect, output.log_normal, *target)}

    def _has_valid_mask(self, batch: ImageBatch, masks: Tensor) -> Tensor:
        """Return, shape (B,), whether an image is normal or its mask still has a pixel after resizing; warn if not."""
        valid = masks.flatten(1).any(1) | ~cast(Tensor, batch.gt_label).bool()
        for row in (~valid).nonzero().flatten().tolist():
            path = batch.image_path[row] if batch.image_path else "an image"
            if path not in self._vanished:
                self._vanished.add(path)
                logger.warning(
                    "the mask of %s has no pixel left at %d x %d, so it is not used: raise --model.image_size",
                    path,
                    *masks.shape[-2:],
                )
        return valid

    def validation_step(self, batch: Batch[Any], batch_idx: int) -> Batch[Any]:  # type: ignore[override]
        """Predict anomaly maps and scores, for thresholds and normalisation."""
        self._check_size(cast(Tensor, batch.image).shape[-2:])
        return super().validation_step(batch, batch_idx)

    def _check_size(self, size: Sequence[int]) -> None:
        if any(side < MIN_SIDE or side % self.size_multiple for side in size):
            pixels = " x ".join(map(str, size))
            msg = (
                f"the image size is {pixels} pixels, but sides must be multiples of {self.size_multiple} and at least "
            )
            raise InvalidInputError(msg + f"{MIN_SIDE}: change --model.image_size")


def _thresholds(sigma: float | None) -> PostProcessor:
    # Scores are in [0, 1], but often so small that the interval above the threshold has no digits left for them.
    return DefectPostProcessor() if sigma is None else FixedPostProcessor(sigma)
