"""What our models that train for a number of steps share: how long, on which data, and when training stops."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from anomalib_defect_plugins.models.components.callbacks import ResumePoint, StopAfter
from anomalib_defect_plugins.models.components.checkpoint_io import Checkpointed
from anomalib_defect_plugins.models.components.checks import (
    allow_no_validation,
    check_evaluation_data,
    check_finite,
    datamodule_of,
    set_up_data,
)

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Model
else:
    _Model = object  # a model derives from AnomalibModule itself, or anomalib's get_model would not find it


class IterativeTraining(Checkpointed, _Model):  # type: ignore[misc]
    """Comes before ``AnomalibModule`` among the bases of a model, which has its network in ``model``.

    Attributes:
        iterations: Training steps.
    """

    iterations: int

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """As many steps as asked for, however many epochs these are, and validation after the last."""
        return StopAfter(self.iterations).trainer_arguments

    @property
    def learning_type(self) -> LearningType:
        """One-class, which to anomalib means that it is trained; it has no name for learning from defects."""
        return LearningType.ONE_CLASS

    def configure_callbacks(self) -> Sequence[Callback]:
        """Add the end of training and the resume point to anomalib's callbacks."""
        callbacks = cast(Sequence[Callback], super().configure_callbacks())
        return [*callbacks, StopAfter(self.iterations), ResumePoint()]

    def prepare_data(self) -> None:
        """Set the data module up, with one line for whatever is wrong with it."""
        set_up_data(self.trainer)

    def setup(self, stage: str) -> None:
        """Look at the evaluation data before training."""
        datamodule = datamodule_of(self.trainer)
        if stage == "fit" and datamodule is not None:
            check_evaluation_data(datamodule)
            allow_no_validation(self.trainer, self.post_processor)

    def annealed(self, optimizer: Optimizer) -> OptimizerLRScheduler:
        """Give an optimizer whose learning rate falls to 0 along a cosine, step by step."""
        schedule = CosineAnnealingLR(optimizer, self.iterations)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def add_up(self, losses: dict[str, Tensor], batch_idx: int, batch_size: int) -> Tensor:
        """Give the sum of losses; show them, and stop training when one is not finite.

        Args:
            losses: Weighted scalars by name.
            batch_idx: Number of the batch in its epoch.
            batch_size: Images that they are of.

        Raises:
            NonFiniteLossError: Names the loss and the step.
        """
        total = cast(Tensor, sum(losses.values()))
        shown = {**losses, "loss": total}
        check_finite(shown, f"step {self.global_step + 1}, batch {batch_idx + 1} of its epoch")
        self.log_dict(shown, prog_bar=True, batch_size=batch_size)
        return total

    def validation_step(self, batch: Batch[Any], batch_idx: int) -> Batch[Any]:  # type: ignore[override]
        """Give anomaly maps and scores for thresholds and normalisation."""
        del batch_idx
        output: InferenceBatch = self.model(batch.image)
        return cast(Batch[Any], batch.update(**output._asdict()))
