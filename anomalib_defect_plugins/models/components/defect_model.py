"""The mixin of every model in this package."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from torch import Tensor, nn

from anomalib_defect_plugins.core.freed_memory import keep_freed_memory, return_freed_memory
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data.lost_masks import warn_of_lost_masks
from anomalib_defect_plugins.metrics.evaluator import DefectEvaluator, default_evaluator
from anomalib_defect_plugins.models.components.callbacks import ResumePoint
from anomalib_defect_plugins.models.components.checked_export import CheckedExport
from anomalib_defect_plugins.models.components.checked_reading import CheckedReading
from anomalib_defect_plugins.models.components.checkpoint_io import CheckpointErrors
from anomalib_defect_plugins.models.components.checks import (
    allow_no_validation,
    check_evaluation_data,
    datamodule_of,
)
from anomalib_defect_plugins.models.components.decision_log import DecisionLog
from anomalib_defect_plugins.models.components.image_size import ImageSize
from anomalib_defect_plugins.models.components.mixed_sizes import MixedSizes
from anomalib_defect_plugins.models.components.prediction_table import PredictionTable
from anomalib_defect_plugins.models.components.progress_log import ProgressLog
from anomalib_defect_plugins.models.components.resumed_optimizers import ResumedOptimizers
from anomalib_defect_plugins.models.components.shared_trainer import SharedTrainer
from anomalib_defect_plugins.models.components.trainer_options import TrainerOptions
from anomalib_defect_plugins.models.components.training_end import TrainingEnd
from anomalib_defect_plugins.models.components.visualizer import CheckedVisualizer
from anomalib_defect_plugins.post_processing import DefectPostProcessor

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object  # a model derives from AnomalibModule directly, or anomalib's get_model would not find it


class DefectModel(CheckpointErrors, SharedTrainer, TrainerOptions, CheckedExport, ImageSize):
    """Shared behaviour of all models: sizes, data checks, thresholds, checkpoints, random numbers.

    Comes before ``AnomalibModule`` among the bases of a model, which sets ``self.model`` to its network after
    ``super().__init__()``.

    Args:
        image_size: As in ``ImageSize``.
        pre_processor: As in anomalib; ``True`` is :meth:`configure_pre_processor`.
        post_processor: As in anomalib; ``True`` is :meth:`configure_post_processor`.
        evaluator: As in anomalib; ``True`` is :meth:`configure_evaluator`.
        visualizer: As in anomalib.
        grey: As in ``ImageSize``.

    Attributes:
        supervision: What the training set has to contain; checked before training.
        paper: Link to the paper, shown by ``anomalib-defects list``.
        threshold_option: Command-line option that yields thresholds without validation images, if there is one.
        seed: Seed of :meth:`rng`; -1 until training starts, then kept in checkpoints.
    """

    supervision: ClassVar[Supervision]
    paper: ClassVar[str]
    threshold_option: ClassVar[str | None] = None

    seed: Tensor

    def __init__(
        self,
        image_size: Size | None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
        grey: bool | None = None,
    ) -> None:
        super().__init__(image_size, pre_processor, post_processor, evaluator, visualizer, grey)
        self.register_buffer("seed", torch.tensor(-1))
        self.register_load_state_dict_pre_hook(_add_missing_seed)  # type: ignore[no-untyped-call]

    def configure_post_processor(self) -> PostProcessor:
        """Return a post-processor that applies the threshold with the highest F1 score of the validation images."""
        return DefectPostProcessor()

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Return an evaluator with anomalib's default metrics, correct for scores on any scale."""
        return default_evaluator()

    @classmethod
    def configure_visualizer(cls) -> CheckedVisualizer:
        """Return anomalib's visualizer, with images as this package reads them."""
        return CheckedVisualizer()

    @property
    def learning_type(self) -> LearningType:
        """One-class. anomalib has no type for models that learn from defects."""
        return LearningType.ONE_CLASS

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return anomalib's callbacks, the end of training, the checkpoint to resume from, and the logs."""
        callbacks = list(cast(Sequence[Callback], super().configure_callbacks()))
        if isinstance(self.evaluator, DefectEvaluator):
            callbacks.insert(0, self.evaluator.ranking)
        resuming = (ResumePoint(self.resume_interval), ResumedOptimizers())
        logs = (DecisionLog(), PredictionTable(), ProgressLog())
        return [*callbacks, CheckedReading(), TrainingEnd(), *resuming, MixedSizes(), *logs]

    def setup(self, stage: str) -> None:
        """Set the image size, then check the masks, and the validation and test files before training starts."""
        keep_freed_memory()
        datamodule = datamodule_of(self.trainer)
        self.share_image_size()
        if datamodule is not None and stage != "predict":
            warn_of_lost_masks(datamodule, stage)
        if stage == "fit" and datamodule is not None:
            check_evaluation_data(datamodule)
            allow_no_validation(self.trainer, self.post_processor, self.threshold_option)

    def teardown(self, stage: str) -> None:
        """Return the memory of batches to the system."""
        del stage
        return_freed_memory()

    def on_fit_start(self) -> None:
        """Draw the seed, unless a checkpoint has restored it."""
        if self.seed < 0:
            self.seed.fill_(torch.initial_seed() % 2**62)

    def rng(self, *numbers: int) -> torch.Generator:
        """Return a CPU generator that depends only on the seed and ``numbers``, so that a resumed run repeats it."""
        mixed = np.random.SeedSequence((int(self.seed), *numbers)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(mixed[0]))

    def validation_step(self, batch: Batch[Any], batch_idx: int) -> Batch[Any]:  # type: ignore[override]
        """Predict anomaly maps and scores, for thresholds and normalisation."""
        del batch_idx
        output: InferenceBatch = self.model(batch.image)
        return cast(Batch[Any], batch.update(**output._asdict()))


def _add_missing_seed(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Complete the weights of checkpoints from before every model had a seed."""
    del module
    state_dict.setdefault(f"{prefix}seed", torch.tensor(-1))
