"""Mixins of models written before :class:`DefectModel`; to be removed in version 0.2."""

from typing import Any

from torch import Tensor

from anomalib_defect_plugins.models.components.checkpoint_io import CheckpointErrors
from anomalib_defect_plugins.models.components.custom_train_loader import CustomTrainLoader
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining as StepLimit


class IterativeTraining(DefectModel, StepLimit):
    """:class:`DefectModel` and the step limit, with the constructor of ``AnomalibModule``."""

    def __init__(self, *components: Any, **named: Any) -> None:
        super().__init__(self.default_image_size, *components, **named)

    annealed = StepLimit.cosine_schedule
    add_up = StepLimit.sum_losses


class OwnBatches(CustomTrainLoader, CheckpointErrors):  # type: ignore[misc]  # anomalib's bases disagree
    """:class:`CustomTrainLoader` and :meth:`DefectModel.rng`, for models that register the buffer ``seed``."""

    seed: Tensor
    use_loader = CustomTrainLoader.use_train_loader
    on_fit_start = DefectModel.on_fit_start
    rng = DefectModel.rng
