"""What models share while they train: finite losses, sound data, teardown, and a point to resume from."""

import errno
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import Folder
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from anomalib_defect_plugins.core import files
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError, UserError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.components.callbacks import ResumePoint, TeardownOnFailure
from anomalib_defect_plugins.models.components.checks import (
    NonFiniteLossError,
    allow_no_validation,
    check_evaluation_data,
    check_finite,
    set_up_data,
)
from anomalib_defect_plugins.post_processing import ReferencePostProcessor
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


# Losses


def test_finite_losses_pass():
    check_finite({"d_loss": torch.tensor(1e30), "g_loss": torch.tensor(-3.0)}, "step 1")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named_with_its_value_and_the_step(value):
    losses = {"d_loss": torch.tensor(1.0), "g_loss": torch.tensor(value)}
    line = rf"^g_loss is {value} at scale 2 of 7, iteration 3: .*resume"
    with pytest.raises(NonFiniteLossError, match=line) as error:
        check_finite(losses, "scale 2 of 7, iteration 3")
    assert "\n" not in str(error.value)
    assert isinstance(error.value, UserError)


# Data


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "data"
    write_folder_data(folder, image_size=(20, 24), normal=3, normal_test=2, defective=2)
    return folder


def trainer_with(datamodule: Folder) -> Trainer:
    trainer = Trainer(check_val_every_n_epoch=5, **QUIET)
    trainer.datamodule = datamodule
    trainer.state.fn = TrainerFn.FITTING
    return trainer


def test_a_data_module_is_set_up_once(root, monkeypatch):
    datamodule = folder_datamodule(root)
    times = []
    original = datamodule._setup
    monkeypatch.setattr(datamodule, "_setup", lambda stage: (times.append(stage), original(stage)))
    set_up_data(trainer_with(datamodule))
    datamodule.setup(TrainerFn.FITTING)  # as Lightning does next
    assert len(datamodule.train_data) == 3
    assert len(times) == 1


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("normal/*", "Found 0 .* images in .*normal"),
        ("defective", "Path does not exist: .*defective"),
        ("masks/000.png", "Mismatch between anomalous images and mask images"),
    ],
)
def test_folders_that_cannot_be_used_are_told_of_in_one_line(root, gone, reason):
    for path in root.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InvalidInputError, match=rf"^Folder cannot be set up \({reason}.*\); check .*--data$") as error:
        set_up_data(trainer_with(folder_datamodule(root)))
    assert "\n" not in str(error.value)


def test_a_mistake_in_the_code_of_a_data_module_is_not_taken_for_one_of_the_user(root, monkeypatch):
    datamodule = folder_datamodule(root)
    monkeypatch.setattr(datamodule, "_setup", lambda _: len(None))
    with pytest.raises(TypeError):
        set_up_data(trainer_with(datamodule))


def test_loaders_without_a_data_module_need_no_set_up():
    set_up_data(trainer_with(None))


class Needs(BoringModel):
    """A model that needs something, and can count its steps."""

    name = "NeedsDefects"
    steps = 0

    def __init__(self, supervision: Supervision) -> None:
        super().__init__()
        self.supervision = supervision

    def prepare_data(self) -> None:
        set_up_data(self.trainer)

    def training_step(self, batch: object, batch_idx: int) -> None:
        self.steps += 1

    def validation_step(self, batch: object, batch_idx: int) -> None:
        """Look at nothing."""


WRAP = (
    "Wrap it: --data WithDefects --data.base Folder --data.real 20, or add synthetic ones: --data.synthetic procedural"
)
GIVE = "Pass --data.real 20, or add synthetic ones: --data.synthetic procedural"


@pytest.mark.parametrize(
    ("needs", "given", "line"),
    [
        ("image-labels", None, f"NeedsDefects needs defective images in the training set; generated has none. {WRAP}"),
        ("pixel-masks", None, f"NeedsDefects needs pixel masks of defective images in .*; generated has none. {WRAP}"),
        ("pixel-masks", {}, f"needs pixel masks of .*; generatedWithDefects has none. {GIVE}"),
        (
            "pixel-masks",
            {"real": 1, "train_on_real": False},
            "has none. Pass --data.train_on_real true, or add synthetic",
        ),
        ("pixel-masks", {"real": 1, "masks": False}, "generatedWithDefects has none. Pass --data.masks true"),
        ("image-labels", {"real": 1, "masks": False}, ""),
        ("pixel-masks", {"real": 1}, ""),
        ("pixel-masks", {"synthetic": "noise"}, ""),
        ("normal", None, ""),
        ("one-shot", {"real": 1}, ""),
    ],
)
def test_a_model_that_lacks_what_it_needs_stops_before_its_first_step(tmp_path, needs, given, line):
    write_folder_data(tmp_path / "data", image_size=(40, 36), normal=3, normal_test=2, defective=2)
    datamodule = folder_datamodule(tmp_path / "data")
    datamodule = datamodule if given is None else WithDefects(datamodule, **given)
    model = Needs(Supervision(needs))
    trainer = Trainer(default_root_dir=tmp_path, max_epochs=1, limit_val_batches=0, enable_checkpointing=False, **QUIET)
    if line:
        with pytest.raises(ConfigurationError, match=line) as error:
            trainer.fit(model, datamodule=datamodule)
        assert "\n" not in str(error.value)
        assert model.steps == 0
    else:
        trainer.fit(model, datamodule=datamodule)
        assert model.steps > 0


def test_testing_a_model_needs_no_defects_in_training(root, tmp_path):
    model = Needs(Supervision.PIXEL_MASKS)
    model.test_step = lambda batch, batch_idx: None
    Trainer(default_root_dir=tmp_path, **QUIET).test(model, datamodule=folder_datamodule(root), verbose=False)


def set_up(root: Path, val_split_mode: str = "same_as_test") -> Folder:
    datamodule = folder_datamodule(root)
    datamodule.val_split_mode = type(datamodule.val_split_mode)(val_split_mode)
    datamodule.setup()
    return datamodule


@pytest.mark.parametrize("val_split_mode", ["same_as_test", "from_test", "from_train", "none"])
def test_sound_evaluation_data_pass(root, val_split_mode):
    check_evaluation_data(set_up(root, val_split_mode))


@pytest.mark.parametrize("val_split_mode", ["same_as_test", "from_test", "none"])
@pytest.mark.parametrize("name", ["defective/000.png", "defective/001.png", "normal_test/001.png", "masks/001.png"])
def test_a_broken_file_is_found_wherever_it_is(root, val_split_mode, name):
    datamodule = set_up(root, val_split_mode)
    (root / name).write_text("no image")
    with pytest.raises(InvalidInputError, match=f"cannot read (image|mask) .*{name}"):
        check_evaluation_data(datamodule)


def test_a_file_that_has_gone_and_a_mask_of_another_size_are_found(root):
    datamodule = set_up(root)
    Image.new("L", (24, 21)).save(root / "masks" / "000.png")
    with pytest.raises(InvalidInputError, match="24x21"):
        check_evaluation_data(datamodule)
    (root / "masks" / "000.png").unlink()
    with pytest.raises(MissingDataError, match=r"masks.000\.png not found\. Restore it"):
        check_evaluation_data(datamodule)


def test_training_images_are_not_looked_at(root):
    datamodule = set_up(root)
    for path in (root / "normal").iterdir():
        path.write_text("no image")
    check_evaluation_data(datamodule)


def test_validation_images_that_are_the_test_images_are_read_once(root, monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path: (opened.append(path), original(path))[1])
    check_evaluation_data(set_up(root))
    assert len(opened) == len(set(opened)) == 6  # four images and two masks


@pytest.mark.parametrize(("val_split_mode", "validates"), [("same_as_test", True), ("none", False)])
def test_validation_is_left_out_only_where_there_are_no_images_for_it(root, caplog, val_split_mode, validates):
    trainer = trainer_with(set_up(root, val_split_mode))
    allow_no_validation(trainer, PostProcessor(), None)
    assert bool(trainer.limit_val_batches) == validates
    assert trainer.check_val_every_n_epoch == (5 if validates else 1)
    assert ("there will be no thresholds" in caplog.text) != validates


def test_a_threshold_from_the_normal_image_needs_no_validation_and_no_warning(root, caplog):
    allow_no_validation(trainer_with(set_up(root, "none")), ReferencePostProcessor(), None)
    assert "no thresholds" not in caplog.text


# Failures


class Fail(Callback):
    """Raises an error in the first step of an epoch."""

    def __init__(self, epoch: int, error: type[BaseException] = ArithmeticError) -> None:
        self.epoch = epoch
        self.error = error

    def on_train_batch_start(self, trainer, *_: object) -> None:
        """Raise it."""
        if trainer.current_epoch == self.epoch:
            raise self.error


class Boring(BoringModel):
    """Takes down for which stages it is torn down."""

    def __init__(self) -> None:
        super().__init__()
        self.torn_down: list[str] = []

    def teardown(self, stage: str) -> None:
        """Take it down."""
        self.torn_down.append(stage)


def boring_fit(folder: Path, *callbacks: Callback, model: Boring | None = None, **arguments: Any) -> Boring:
    torch.manual_seed(0)
    checkpoint = ModelCheckpoint(dirpath=folder / "weights", filename="model")
    settings = {"max_epochs": 3, "limit_train_batches": 2, "limit_val_batches": 1} | QUIET | arguments
    trainer = Trainer(callbacks=[checkpoint, *callbacks], default_root_dir=folder, **settings)
    model = model or Boring()
    trainer.fit(model)
    return model


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Keeps what Ctrl-C does, which Lightning switches off once it was pressed."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
def test_a_model_is_torn_down_when_its_training_fails(tmp_path, error):
    model = Boring()
    with pytest.raises((error, SystemExit)):
        boring_fit(tmp_path, TeardownOnFailure(), Fail(1, error), model=model)
    assert model.torn_down == ["fit"]


def test_a_model_whose_training_succeeds_is_torn_down_once(tmp_path):
    assert boring_fit(tmp_path, TeardownOnFailure()).torn_down == ["fit"]


# The point to resume from


class Saves(Callback):
    """Takes down which epoch ``last.ckpt`` is of when the next one starts, and what lies beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs: list[int] = []
        self.files: set[str] = set()

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Read it."""
        if trainer.current_epoch:
            self.epochs.append(torch.load(self.folder / "last.ckpt", weights_only=True)["epoch"])
            self.files |= {path.name for path in self.folder.iterdir()}


def test_every_epoch_leaves_a_point_to_resume_from_beside_the_models_checkpoint(tmp_path):
    folder = tmp_path / "weights"
    saves = Saves(folder)
    model = boring_fit(tmp_path, ResumePoint(), saves)
    assert saves.epochs == [0, 1]
    assert saves.files == {"last.ckpt", "model.ckpt"}
    last = torch.load(folder / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    assert all(torch.equal(last["state_dict"][name], values) for name, values in model.state_dict().items())
    assert last["optimizer_states"]


def test_a_point_to_resume_from_does_not_wait_for_validation(tmp_path):
    saves = Saves(tmp_path / "weights")
    boring_fit(tmp_path, ResumePoint(), saves, check_val_every_n_epoch=3)
    assert saves.epochs == [0, 1]


class Spoil(Callback):
    """Does something when the second epoch starts."""

    def __init__(self, spoil: Callable[[], None]) -> None:
        self.spoil = spoil

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        """Do it."""
        if trainer.current_epoch == 1:
            self.spoil()


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_point_before_it_and_nothing_half_written(tmp_path, monkeypatch, moment):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    line = (
        r"^cannot write checkpoint .*last\.ckpt \(No space left on device\); earlier checkpoints are complete: free some space"
    )
    with pytest.raises(UserError, match=line) as error:
        boring_fit(tmp_path, ResumePoint(), Spoil(lambda: monkeypatch.setattr(files.os, moment, fail)))
    assert isinstance(error.value, OSError)
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"last.ckpt", "model.ckpt"}
    for path in (tmp_path / "weights").iterdir():
        assert torch.load(path, weights_only=True)["epoch"] == 0


def test_a_leftover_of_a_killed_save_is_replaced(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / ".last.ckpt.part").write_bytes(b"half a checkpoint")
    boring_fit(tmp_path, ResumePoint())
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "model.ckpt"}
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 2


@pytest.mark.parametrize("arguments", [{"fast_dev_run": True}, {"enable_checkpointing": False}])
def test_no_point_is_kept_where_no_checkpoints_are_wanted(tmp_path, arguments):
    settings = {"max_epochs": 1, "limit_train_batches": 1} | QUIET | arguments
    Trainer(callbacks=[ResumePoint()], default_root_dir=tmp_path, **settings).fit(BoringModel())
    assert not list(tmp_path.rglob("*.ckpt*"))
