"""Trainer callbacks of the models: the step limit, teardown after failures, and the checkpoint to resume from."""

from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_defect_plugins.models.components.checkpoint_io import blame_checkpoint, use_atomic_checkpoints


class StopAfter(Callback):
    """End training after a number of optimiser steps, in the middle of an epoch if need be.

    Lightning's ``max_steps`` would repeat a batch when a run resumes at the end of an epoch.

    Args:
        iterations: Number of optimiser steps.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments: unlimited epochs, and validation only after the last step."""
        return {
            "max_epochs": -1,
            "val_check_interval": self.iterations,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the resumed checkpoint has completed all steps."""
        del pl_module
        trainer.should_stop = trainer.global_step >= self.iterations

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Stop after the last step."""
        del pl_module
        if trainer.global_step >= self.iterations:
            trainer.should_stop = True


class TeardownOnFailure(Callback):
    """Calls the model's ``teardown`` when training fails or is interrupted, where Lightning does not."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Call the model's ``teardown``."""
        del exception
        pl_module.teardown(cast(str, trainer.state.fn))


class ResumePoint(Callback):
    """Writes ``last.ckpt`` beside the model's checkpoints at the end of each training epoch.

    Lightning's own checkpoint waits for a validation run. A run killed at any moment can resume from this file: all
    checkpoints are written atomically.
    """

    def __init__(self) -> None:
        self._restored = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the trainer write checkpoints atomically and load them safely."""
        del pl_module, stage
        self._restored = False
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
        if trainer.checkpoint_callback is None or getattr(trainer, "fast_dev_run", False):
            return
        folder = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir)
        trainer.save_checkpoint(folder / "last.ckpt", weights_only=False)
