"""Faults of the drill, as callbacks that inject them into a training run."""

import math
import multiprocessing
import os
import resource
import signal
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

SECOND_EPOCH = 1
"""Index of the second epoch, in which faults are injected, because a checkpoint exists by then."""


class MarkStart(Callback):
    """Creates a file when training begins.

    Args:
        path: Path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the file."""
        self.path.touch()


class FullDisk(Callback):
    """Leaves space for half of the next checkpoint.

    Args:
        mount: Mount point of the file system to fill; without one, the file size limit of the process is lowered.
    """

    def __init__(self, mount: Path | None) -> None:
        self.mount = mount
        self.is_full = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Fill the disk once."""
        if self.is_full or trainer.current_epoch != SECOND_EPOCH:
            return
        self.is_full = True
        last = Path(str(cast(ModelCheckpoint, trainer.checkpoint_callback).dirpath)) / "last.ckpt"
        space = last.stat().st_size // 2
        if self.mount is None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (space, resource.RLIM_INFINITY))
        else:
            with (self.mount / "filler").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free_bytes(self.mount) - space)


def free_bytes(mount: Path) -> int:
    """Return the number of free bytes of a file system."""
    status = os.statvfs(mount)
    return status.f_bavail * status.f_frsize


class KillWorker(Callback):
    """Kills a data-loading process, as the system does when it runs out of memory."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Kill one during training."""
        if trainer.current_epoch == SECOND_EPOCH and batch_idx == 1:
            self._kill()

    def on_validation_batch_start(self, *_: object) -> None:
        """Kill one during validation, for models that load no images in training."""
        self._kill()

    def _kill(self) -> None:
        for process in multiprocessing.active_children()[:1]:
            process.kill()


class PoisonLate(Callback):
    """Sets all weights to NaN, as an exploding gradient would."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Set the weights."""
        if trainer.current_epoch == SECOND_EPOCH and batch_idx == 1:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(math.nan)
