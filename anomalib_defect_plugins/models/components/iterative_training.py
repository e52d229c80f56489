"""The step limit of models that train for a number of iterations instead of epochs."""

from collections.abc import Sequence
from typing import Any, cast

from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from anomalib_defect_plugins.models.components.callbacks import StopAfter
from anomalib_defect_plugins.models.components.checks import check_finite
from anomalib_defect_plugins.models.components.trainer_options import NEVER, TrainerOptions


class IterativeTraining(TrainerOptions):
    """Ends training after ``iterations`` optimiser steps. Comes before ``AnomalibModule`` among the bases of a model.

    Attributes:
        iterations: Number of training steps.
    """

    iterations: int
    resume_interval = 30.0

    @property
    def trainer_defaults(self) -> dict[str, Any]:
        """Train for ``iterations`` steps, however many epochs that takes, and validate after the last."""
        return {"max_epochs": -1, "val_check_interval": NEVER, "check_val_every_n_epoch": None}

    def configure_callbacks(self) -> Sequence[Callback]:
        """Add the step limit to the other callbacks."""
        return [*cast(Sequence[Callback], super().configure_callbacks()), StopAfter(self.iterations)]

    def cosine_schedule(self, optimizer: Optimizer) -> OptimizerLRScheduler:
        """Return ``optimizer`` with a learning rate that falls to 0 along a cosine, step by step."""
        schedule = CosineAnnealingLR(optimizer, self.iterations)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def sum_losses(self, losses: dict[str, Tensor], batch_idx: int, batch_size: int) -> Tensor:
        """Return the sum of weighted losses, and log each of them.

        Args:
            losses: Scalars by name.
            batch_idx: Index of the batch in its epoch.
            batch_size: Number of images in the batch.

        Raises:
            NonFiniteLossError: If a loss is not finite; names the loss and the step.
        """
        total = cast(Tensor, sum(losses.values()))
        logged = {**losses, "loss": total}
        check_finite(logged, f"step {self.global_step + 1}, batch {batch_idx + 1} of its epoch")
        self.log_dict(logged, prog_bar=True, batch_size=batch_size)
        return total
