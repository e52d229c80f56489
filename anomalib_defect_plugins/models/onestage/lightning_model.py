"""OneStage in Lightning: learns to segment from images with and without defects, and their masks.

Paper: A one-stage approach for surface anomaly detection with background suppression strategies, Sensors 2020, 20(7),
1829, https://doi.org/10.3390/s20071829.
"""

import logging

from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam

from anomalib_defect_plugins.core.checks import check_positive
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.models.components.augmentation import Augmentation
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.onestage.loss import cross_entropy, stage_loss
from anomalib_defect_plugins.models.onestage.torch_model import OneStageModel, OneStageOutput
from anomalib_defect_plugins.post_processing import FixedPostProcessor, UnitPostProcessor

logger = logging.getLogger(__name__)

IMAGE_SIZE = (1408, 512)
"""Height and width that the paper resizes KolektorSDD's upright images to, in pixels."""

MIN_SIDE = 16
"""Of what is an eighth of this, instance norm still has something to normalise."""

SIGMA = 100 / (1408 * 512)
"""The paper's threshold: eq. 5 sums over the pixels of an image and compares with 100; here is the mean."""


class OneStage(DefectModel, IterativeTraining, AnomalibModule):
    """One-stage segmenter: learns from pixel masks of a few defects, suppresses background twice, has no classifier.

    Args:
        image_size: Height and width that images are resized to, in pixels, multiples of 8, each at least 16. Images are
            made grey. A ``pre_processor`` of your own decides it instead.
        width: ``paper`` or ``small``, which trains on a CPU.
        norm: ``group``, ``instance`` or ``batch``; the last needs batches of several images.
        coarse_suppression: Whether the maps of the three decoder stages are added up, each with its own loss (CBS);
            without, there is the last stage's map and the loss of the result.
        fine_iterations: Multiplications with the deepest map, n of FBS; 0 is without. With neither it is a U-Net.
        prior: Share of defect pixels that the maps start from, in (0, 1).
        defect_weight: Weight, in (0, 1), of the defect pixels of an image in its loss, however few they are; by default
            each pixel counts alike, as in the paper, and large defects more than small ones.
        augment: Whether training images are mirrored, turned, scaled and lit at random, their masks with them.
        iterations: Training steps.
        learning_rate: Learning rate of Adam.
        annealing: Whether it falls to 0 along a cosine; the paper's does not.
        sigma: Image threshold known beforehand, as a mean of the map in (0, 1): ``SIGMA`` = 1.39e-4 is the paper's.
            Pixels are then defective above 0.5. ``None`` leaves thresholds to anomalib and labelled validation images.
        pre_processor: As in anomalib.
        post_processor: As in anomalib; decides the thresholds instead of ``sigma`` if one is given.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Raises:
        InvalidInputError: An argument that cannot be.
    """

    supervision = Supervision.PIXEL_MASKS
    paper = "https://doi.org/10.3390/s20071829"
    default_image_size = IMAGE_SIZE
    grey = True
    threshold_option = "--model.sigma"

    def __init__(
        self,
        image_size: tuple[int, int] = IMAGE_SIZE,
        width: str = "paper",
        norm: str = "group",
        coarse_suppression: bool = True,
        fine_iterations: int = 3,
        prior: float = 0.01,
        defect_weight: float | None = None,
        augment: bool = False,
        iterations: int = 6000,
        learning_rate: float = 1e-3,
        annealing: bool = False,
        sigma: float | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        image_size = tuple(image_size)
        check_positive(iterations=iterations, learning_rate=learning_rate)
        _check_size(image_size)
        _check_share("defect_weight", defect_weight)
        _check_share("sigma", sigma, f", the paper's is {SIGMA:.3g}")
        super().__init__(
            image_size,
            pre_processor,
            _thresholds(sigma) if post_processor is True else post_processor,
            evaluator,
            visualizer,
        )
        self.model = OneStageModel(width, norm, coarse_suppression, fine_iterations, prior)
        self.defect_weight = defect_weight
        self.augmentation = Augmentation(None, vary=True) if augment else None
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.annealing = annealing
        self._vanished: set[str] = set()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, as in section 3."""
        optimizer = Adam(self.model.parameters(), lr=self.learning_rate)
        return self.cosine_schedule(optimizer) if self.annealing else optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Learn from the masks of a batch."""
        _check_size(tuple(batch.image.shape[-2:]))
        images, masks = batch.image.as_subclass(Tensor), batch.gt_mask.as_subclass(Tensor)[:, None]
        counts = self._marked(batch, masks)
        if self.augmentation is not None:
            images, masks = self.augmentation.with_masks(images, masks)
        losses = self.losses(self.model(images), masks, counts, self.defect_weight)
        return self.sum_losses(losses, batch_idx, len(images))

    @staticmethod
    def losses(
        output: OneStageOutput, masks: Tensor, counts: Tensor | None = None, defect_weight: float | None = None
    ) -> dict[str, Tensor]:
        """Give the loss of each stage's map (eq. 3) and that of the result.

        Args:
            output: What the network gives in training.
            masks: (B, 1, H, W), bool, true on defects.
            counts: (B,), bool: the images that count, all by default.
            defect_weight: See :func:`cross_entropy`.
        """
        rest = (masks, counts, defect_weight)
        losses = {f"{name}_loss": stage_loss(logits, *rest) for name, logits in output.stages.items()}
        return {**losses, "final_loss": cross_entropy(output.log_defect, output.log_normal, *rest)}

    def _marked(self, batch: Batch, masks: Tensor) -> Tensor:
        """Tell, (B,), which images can be learnt from: not a defect whose mask lost its last pixel on resizing."""
        marked = masks.flatten(1).any(1) | ~batch.gt_label.bool()
        for row in (~marked).nonzero().flatten().tolist():
            path = batch.image_path[row] if batch.image_path else "an image"
            if path not in self._vanished:
                self._vanished.add(path)
                logger.warning(
                    "the mask of %s has no pixel left at %d x %d, so it does not train: raise --model.image_size",
                    path,
                    *masks.shape[-2:],
                )
        return marked

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Give anomaly maps and scores for thresholds and normalisation."""
        _check_size(tuple(batch.image.shape[-2:]))
        return super().validation_step(batch, batch_idx)


def _thresholds(sigma: float | None) -> PostProcessor:
    return UnitPostProcessor() if sigma is None else FixedPostProcessor(sigma)


def _check_share(name: str, value: float | None, more: str = "") -> None:
    if value is not None and not 0 < value < 1:
        msg = f"{name} is {value}; it must be more than 0 and less than 1{more}"
        raise InvalidInputError(msg)


def _check_size(size: tuple[int, ...]) -> None:
    if any(side < MIN_SIDE or side % 8 for side in size):
        given = " x ".join(map(str, size))
        msg = f"images are to be {given} pixels, but sides must be multiples of 8 and at least {MIN_SIDE}: "
        raise InvalidInputError(msg + "change --model.image_size")
