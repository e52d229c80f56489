"""What our models share while they train: finite losses and a point to resume from."""

import os
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from anomalib_defect_plugins.errors import UserError


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss became infinite or not a number."""


def check_finite(losses: dict[str, Tensor], step: str) -> None:
    """Stop training when a loss is not finite.

    Args:
        losses: Scalars by name.
        step: Where training is, for the message.

    Raises:
        NonFiniteLossError: Names the first such loss, its value and the step.
    """
    for name, value in losses.items():
        if not torch.isfinite(value):
            msg = (
                f"{name} is {value.item()} at {step}: check the training images for extreme values, "
                "or lower the learning rates, then resume from the last checkpoint"
            )
            raise NonFiniteLossError(msg)


class ResumePoint(Callback):
    """Keep ``last.ckpt`` beside the model's checkpoints, written atomically at the end of each training epoch.

    Lightning's own checkpoint waits for a validation run, and is moved into place from the temporary folder, which
    may be another file system. A run killed at any moment goes on from this file.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint of the epoch that ended."""
        del pl_module
        if trainer.checkpoint_callback is None or trainer.fast_dev_run:
            return
        folder = Path(trainer.checkpoint_callback.dirpath or trainer.default_root_dir)
        partial = folder / "last.ckpt.part"
        trainer.save_checkpoint(partial, weights_only=False)
        if trainer.is_global_zero:
            os.replace(partial, folder / "last.ckpt")
