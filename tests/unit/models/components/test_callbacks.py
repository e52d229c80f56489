"""Teardown after failures, the step limit, and the checkpoint to resume from."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from anomalib_defect_plugins.core import files
from anomalib_defect_plugins.core.errors import UserError
from anomalib_defect_plugins.models.components.callbacks import ResumePoint, StopAfter, TeardownOnFailure

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Fail(Callback):
    """Raises an error in the first step of an epoch."""

    def __init__(self, epoch: int, error: type[BaseException] = ArithmeticError) -> None:
        self.epoch = epoch
        self.error = error

    def on_train_batch_start(self, trainer, *_: object) -> None:
        """Raise the error."""
        if trainer.current_epoch == self.epoch:
            raise self.error


class RecordingModel(BoringModel):
    """Records the stages of its ``teardown``."""

    def __init__(self) -> None:
        super().__init__()
        self.torn_down: list[str] = []

    def teardown(self, stage: str) -> None:
        """Record the stage."""
        self.torn_down.append(stage)


def fit(folder: Path, *callbacks: Callback, model: RecordingModel | None = None, **arguments: Any) -> RecordingModel:
    torch.manual_seed(0)
    checkpoint = ModelCheckpoint(dirpath=folder / "weights", filename="model")
    settings = {"max_epochs": 3, "limit_train_batches": 2, "limit_val_batches": 1} | QUIET | arguments
    trainer = Trainer(callbacks=[checkpoint, *callbacks], default_root_dir=folder, **settings)
    model = model or RecordingModel()
    trainer.fit(model)
    return model


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
def test_a_model_is_torn_down_when_its_training_fails(tmp_path, error):
    model = RecordingModel()
    with pytest.raises((error, SystemExit)):
        fit(tmp_path, TeardownOnFailure(), Fail(1, error), model=model)
    assert model.torn_down == ["fit"]


def test_a_model_whose_training_succeeds_is_torn_down_once(tmp_path):
    assert fit(tmp_path, TeardownOnFailure()).torn_down == ["fit"]


def test_the_step_limit_ends_training_within_an_epoch(tmp_path):
    steps = []
    model = RecordingModel()
    model.on_train_batch_end = lambda *_: steps.append(model.global_step)
    fit(tmp_path, StopAfter(3), model=model, max_epochs=-1)  # epochs of two steps
    assert steps == [1, 2, 3]


class CheckpointRecorder(Callback):
    """Records, when an epoch starts, the epoch in ``last.ckpt`` and the files next to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs: list[int] = []
        self.files: set[str] = set()

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Read the checkpoint."""
        if trainer.current_epoch:
            self.epochs.append(torch.load(self.folder / "last.ckpt", weights_only=True)["epoch"])
            self.files |= {path.name for path in self.folder.iterdir()}


def test_every_epoch_writes_a_resumable_checkpoint_next_to_the_models(tmp_path):
    folder = tmp_path / "weights"
    recorder = CheckpointRecorder(folder)
    model = fit(tmp_path, ResumePoint(), recorder)
    assert recorder.epochs == [0, 1]
    assert recorder.files == {"last.ckpt", "model.ckpt"}
    last = torch.load(folder / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    assert all(torch.equal(last["state_dict"][name], values) for name, values in model.state_dict().items())
    assert last["optimizer_states"]


def test_the_resumable_checkpoint_does_not_wait_for_validation(tmp_path):
    recorder = CheckpointRecorder(tmp_path / "weights")
    fit(tmp_path, ResumePoint(), recorder, check_val_every_n_epoch=3)
    assert recorder.epochs == [0, 1]


def test_between_the_first_and_the_last_epoch_checkpoints_are_written_by_time(tmp_path):
    recorder = CheckpointRecorder(tmp_path / "weights")
    fit(tmp_path, ResumePoint(interval=3600), recorder, max_epochs=4)
    assert recorder.epochs == [0, 0, 0]
    assert torch.load(tmp_path / "weights" / "last.ckpt", weights_only=True)["epoch"] == 3


class BeforeSecondEpoch(Callback):
    """Calls a function when the second epoch starts."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Call the function."""
        if trainer.current_epoch == 1:
            self.function()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_save_keeps_the_checkpoint_before_it_and_no_partial_file(tmp_path, monkeypatch, call):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    line = (
        r"^cannot write checkpoint .*last\.ckpt \(No space left on device\); earlier checkpoints are complete: "
        r"free some space"
    )
    with pytest.raises(UserError, match=line) as error:
        fit(tmp_path, ResumePoint(), BeforeSecondEpoch(lambda: monkeypatch.setattr(files.os, call, fail)))
    assert isinstance(error.value, OSError)
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"last.ckpt", "model.ckpt"}
    for path in (tmp_path / "weights").iterdir():
        assert torch.load(path, weights_only=True)["epoch"] == 0


def test_a_leftover_of_a_killed_save_is_overwritten(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / ".last.ckpt.part").write_bytes(b"half a checkpoint")
    fit(tmp_path, ResumePoint())
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "model.ckpt"}
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 2


@pytest.mark.parametrize("arguments", [{"fast_dev_run": True}, {"enable_checkpointing": False}])
def test_no_checkpoint_is_written_where_checkpoints_are_disabled(tmp_path, arguments):
    settings = {"max_epochs": 1, "limit_train_batches": 1} | QUIET | arguments
    Trainer(callbacks=[ResumePoint()], default_root_dir=tmp_path, **settings).fit(BoringModel())
    assert not list(tmp_path.rglob("*.ckpt*"))
