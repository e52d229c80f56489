"""What goes wrong in the drill, as callbacks of a training."""

import math
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

SECOND_EPOCH = 1
"""Faults strike in the second epoch, when there is something to lose."""


class Started(Callback):
    """Leaves a file when training has begun.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave it."""
        self.path.touch()


class FullDisk(Callback):
    """Leaves room for half of the next checkpoint.

    Args:
        mount: The file system that fills up; without one, no file may be larger than that.
    """

    def __init__(self, mount: Path | None) -> None:
        self.mount = mount
        self.is_full = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Fill it, once."""
        if self.is_full or trainer.current_epoch != SECOND_EPOCH:
            return
        self.is_full = True
        last = Path(trainer.checkpoint_callback.dirpath) / "last.ckpt"
        room = last.stat().st_size // 2
        if self.mount is None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        else:
            with (self.mount / "filler").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free(self.mount) - room)


def free(mount: Path) -> int:
    """Bytes that a file system has left."""
    found = os.statvfs(mount)
    return found.f_bavail * found.f_frsize


class KillWorker(Callback):
    """Kills a process that reads images, as the system does when memory runs out."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Kill one in training."""
        if trainer.current_epoch == SECOND_EPOCH and batch_idx == 1:
            self._kill()

    def on_validation_batch_start(self, *_: object) -> None:
        """Kill one in validation, of a model that reads no images in training."""
        self._kill()

    def _kill(self) -> None:
        for process in multiprocessing.active_children()[:1]:
            os.kill(process.pid, signal.SIGKILL)


class PoisonLate(Callback):
    """Turns all weights to NaN, as an exploding gradient would."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Poison them."""
        if trainer.current_epoch == SECOND_EPOCH and batch_idx == 1:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(math.nan)
