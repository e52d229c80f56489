"""Trainer callbacks of the models: the step limit, teardown after failures, and the checkpoint to resume from."""

import logging
import math
import time
from pathlib import Path
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_defect_plugins.models.components.checkpoint_io import blame_checkpoint, use_atomic_checkpoints
from anomalib_defect_plugins.models.components.shared_trainer import SeparateModels, callbacks_of

logger = logging.getLogger(__name__)


class StopAfter(Callback):
    """End training after a number of optimiser steps, in the middle of an epoch if need be.

    Lightning's ``max_steps`` would repeat a batch when a run resumes at the end of an epoch.

    Args:
        iterations: Number of optimiser steps.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate and stop at once if all steps are completed: in the resumed checkpoint, or in a former training."""
        trainer.should_stop = trainer.global_step >= self.iterations
        if trainer.should_stop:
            logger.warning(
                "%s has completed the %d iterations that it is to be trained for, so that it is only validated: raise "
                "--model.iterations to train on",
                *(type(pl_module).__name__, getattr(pl_module, "iterations", self.iterations)),
            )
            validate(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Stop after the last step."""
        del pl_module
        if trainer.global_step >= self.iterations:
            trainer.should_stop = True


def validate(trainer: Trainer) -> None:
    """Run the validation of a training, as Lightning does between two steps."""
    if trainer.enable_validation:
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False
        trainer.validating = True
        loop.run()
        trainer.training = True


class TeardownOnFailure(Callback):
    """Calls the model's ``teardown`` when training fails or is interrupted, where Lightning does not."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Call the model's ``teardown``."""
        del exception
        pl_module.teardown(cast(str, trainer.state.fn))


class ResumePoint(Callback):
    """Writes ``last.ckpt`` beside the model's checkpoints at the end of training epochs.

    Lightning's own checkpoint waits for a validation run. A run killed at any moment can resume from this file: all
    checkpoints are written atomically.

    Args:
        interval: Least time between two files in seconds, for models whose epochs may be a few steps. The first and
            the last epoch are always followed by a file.
    """

    def __init__(self, interval: float = 0.0) -> None:
        self.interval = interval
        self._restored = False
        self._written = -math.inf

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the trainer write checkpoints atomically and load them safely."""
        del pl_module, stage
        self._restored = False
        self._written = -math.inf
        use_atomic_checkpoints(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop attributing errors to the checkpoint: it has been restored."""
        del trainer, pl_module
        self._restored = True

    on_sanity_check_start = on_validation_start = on_test_start = on_predict_start = on_train_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Name the checkpoint in an error raised while it was restored."""
        del pl_module
        if trainer.ckpt_path and not self._restored:
            blame_checkpoint(trainer.ckpt_path, exception)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``last.ckpt``."""
        del pl_module
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        is_due = is_last or time.monotonic() - self._written >= self.interval
        is_due = trainer.strategy.broadcast(is_due)  # all processes take part in saving
        if not is_due or trainer.checkpoint_callback is None or getattr(trainer, "fast_dev_run", False):
            return
        self._written = time.monotonic()
        folder = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir)
        trainer.save_checkpoint(folder / f"{_stem(trainer)}.ckpt", weights_only=False)


def _stem(trainer: Trainer) -> str:
    """Return the file name, which has a number as Lightning's if the trainer has trained other models before."""
    separate = (callback for callback in callbacks_of(trainer) if isinstance(callback, SeparateModels))
    number = next((callback.trained for callback in separate), 0)
    return f"last-v{number}" if number else "last"
