"""The end of training, whatever ends it: a validation, and a warning if steps are left out."""

import logging
import math
from typing import NoReturn, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.models.components.callbacks import StopAfter
from anomalib_defect_plugins.models.components.trainer_options import callbacks_of, is_trial, set_options

logger = logging.getLogger(__name__)


class TrainingEnd(Callback):
    """Validates after the last step, whatever ends training, and warns if iterations of the model are left out.

    Comes after the callbacks that may stop training.
    """

    def __init__(self) -> None:
        self._validated = -1
        self._warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check ``min_steps``.

        Raises:
            ConfigurationError: If training would continue after the model's last step.
        """
        self._validated, self._warned = -1, False
        if stage == "fit" and (trainer.min_steps or 0) > _steps(trainer):
            _refuse(trainer, pl_module, "min_steps")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check ``min_epochs``, and warn if ``max_epochs`` or ``max_steps`` leaves iterations out.

        Raises:
            ConfigurationError: If training would continue after the model's last step.
        """
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        is_set = trainer.min_steps is None  # Lightning completes min_steps with one epoch
        if is_set and (trainer.min_epochs or 0) * per_epoch > _steps(trainer):
            _refuse(trainer, pl_module, "min_epochs")
        epochs, steps = cast(int, trainer.max_epochs), trainer.max_steps
        planned = {
            "max_epochs": epochs * per_epoch if epochs > 0 else math.inf,
            "max_steps": steps if steps > 0 else math.inf,
        }
        option = min(planned, key=planned.__getitem__)
        if pl_module.automatic_optimization and _leaves_out(trainer, planned[option]):
            self._warned = True
            logger.warning(
                "%s will be trained for %d of its %d steps, because of %s: leave --trainer.%s out, or lower "
                "--model.iterations to let the learning rate reach its end",
                *(pl_module.name, planned[option], _steps(trainer), option, option),
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Signal the trainer to stop after the last step, because it then validates even within an interval."""
        del pl_module
        if _is_last_batch(trainer):
            trainer.should_stop = True
            set_options(trainer, min_epochs=0, min_steps=None)  # an epoch counts only when it has ended
        if trainer.should_stop and trainer.check_val_every_n_epoch != 1 and trainer.enable_validation:
            set_options(trainer, check_val_every_n_epoch=None)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the step."""
        del pl_module
        self._validated = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if iterations are left out, or if the thresholds are those of an earlier step."""
        step = trainer.global_step
        if _leaves_out(trainer, step) and not self._warned:
            logger.warning(
                "%s was trained for %d of its %d steps: the trainer or a callback has ended training",
                *(pl_module.name, step, _steps(trainer)),
            )
        if 0 <= self._validated < step:
            logger.warning(
                "the thresholds of %s are those of step %d, the last one that was validated; training ended at %d",
                *(pl_module.name, self._validated, step),
            )


def _steps(trainer: Trainer) -> float:
    """Return the number of optimiser steps of a complete training; unlimited without a step limit."""
    limits = (callback.iterations for callback in callbacks_of(trainer) if isinstance(callback, StopAfter))
    return next(limits, math.inf)


def _is_last_batch(trainer: Trainer) -> bool:
    """Whether training ends with this batch, by the limit of the model or of the trainer."""
    limits = [_steps(trainer), *([trainer.max_steps] if trainer.max_steps > 0 else [])]
    is_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.global_step >= min(limits) or (trainer.is_last_batch and is_last_epoch)


def _leaves_out(trainer: Trainer, steps: float) -> bool:
    """Whether a training of that many steps is incomplete, and is meant to be complete."""
    return not is_trial(trainer) and steps < _steps(trainer) < math.inf


def _refuse(trainer: Trainer, model: LightningModule, option: str) -> NoReturn:
    msg = (
        f"{model.name} cannot be trained with {option} {getattr(trainer, option)}, because it ends after "
        f"{_steps(trainer):g} steps: raise --model.iterations instead"
    )
    raise ConfigurationError(msg)
