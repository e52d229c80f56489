"""TODO anomalib_defect_plugins/models/components/callbacks.py."""

from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_defect_plugins.models.components.checkpoint_io import blame_checkpoint, write_atomically


class StopAfter(Callback):
    """End training after a number of optimiser steps, in the middle of an epoch if need be.

    Not Lightning's ``max_steps``: with it, a run that resumes at the end of an epoch repeats a batch.

    Args:
        iterations: How many steps.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """What the trainer must be told: epochs without end, and validation after the last step only."""
        return {
            "max_epochs": -1,
            "val_check_interval": self.iterations,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave it be if the checkpoint that is resumed has all steps already."""
        del pl_module
        trainer.should_stop = trainer.global_step >= self.iterations

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Stop after the last step."""
        del pl_module
        if trainer.global_step >= self.iterations:
            trainer.should_stop = True


class TeardownOnFailure(Callback):
    """Call the model's ``teardown`` when training fails or is interrupted, where Lightning leaves it out."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Call it."""
        del exception
        pl_module.teardown(cast(str, trainer.state.fn))


class ResumePoint(Callback):
    """Keep ``last.ckpt`` beside the model's checkpoints, written at the end of each training epoch.

    Lightning's own checkpoint waits for a validation run. A run killed at any moment goes on from this file: it and all
    others are written atomically.
    """

    def __init__(self) -> None:
        self._begun = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the trainer's checkpoints written atomically and loaded safely."""
        del pl_module, stage
        self._begun = False
        write_atomically(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, nothing is the checkpoint's fault."""
        del trainer, pl_module
        self._begun = True

    on_sanity_check_start = on_validation_start = on_test_start = on_predict_start = on_train_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Name the checkpoint where it was to blame."""
        del pl_module
        if trainer.ckpt_path and not self._begun:
            blame_checkpoint(trainer.ckpt_path, exception)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint of the epoch that ended."""
        del pl_module
        if trainer.checkpoint_callback is None or getattr(trainer, "fast_dev_run", False):
            return
        folder = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir)
        trainer.save_checkpoint(folder / "last.ckpt", weights_only=False)
