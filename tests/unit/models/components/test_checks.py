"""Checks before and during training: data, supervision, validation images, finite losses."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from anomalib.data import Folder
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError, UserError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data import WithDefects
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
    stages = []
    original = datamodule._setup
    monkeypatch.setattr(datamodule, "_setup", lambda stage: (stages.append(stage), original(stage)))
    set_up_data(trainer_with(datamodule))
    datamodule.setup(TrainerFn.FITTING)  # as Lightning does next
    assert len(datamodule.train_data) == 3
    assert len(stages) == 1


@pytest.mark.parametrize(
    ("removed", "reason"),
    [
        ("normal/*", "Found 0 .* images in .*normal"),
        ("defective", "Path does not exist: .*defective"),
        ("masks/000.png", "Mismatch between anomalous images and mask images"),
    ],
)
def test_unusable_folders_are_reported_in_one_line(root, removed, reason):
    for path in root.glob(removed):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InvalidInputError, match=rf"^Folder cannot be set up \({reason}.*\); check .*--data$") as error:
        set_up_data(trainer_with(folder_datamodule(root)))
    assert "\n" not in str(error.value)


def test_a_bug_in_a_data_module_is_not_reported_as_a_user_error(root, monkeypatch):
    datamodule = folder_datamodule(root)
    monkeypatch.setattr(datamodule, "_setup", lambda _: len(None))
    with pytest.raises(TypeError):
        set_up_data(trainer_with(datamodule))


def test_loaders_without_a_data_module_need_no_set_up():
    set_up_data(trainer_with(None))


class SupervisedModel(BoringModel):
    """A model that requires a supervision, and counts its steps."""

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
        """Do nothing."""


WRAP = (
    "Wrap it: --data WithDefects --data.base Folder --data.real 20, or add synthetic ones: --data.synthetic procedural"
)
PASS = "Pass --data.real 20, or add synthetic ones: --data.synthetic procedural"


@pytest.mark.parametrize(
    ("supervision", "with_defects", "line"),
    [
        ("image-labels", None, f"NeedsDefects needs defective images in the training set; generated has none. {WRAP}"),
        ("pixel-masks", None, f"NeedsDefects needs pixel masks of defective images in .*; generated has none. {WRAP}"),
        ("pixel-masks", {}, f"needs pixel masks of .*; generatedWithDefects has none. {PASS}"),
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
def test_a_model_without_its_supervision_stops_before_the_first_step(tmp_path, supervision, with_defects, line):
    write_folder_data(tmp_path / "data", image_size=(40, 36), normal=3, normal_test=2, defective=2)
    datamodule = folder_datamodule(tmp_path / "data")
    datamodule = datamodule if with_defects is None else WithDefects(datamodule, **with_defects)
    model = SupervisedModel(Supervision(supervision))
    trainer = Trainer(default_root_dir=tmp_path, max_epochs=1, limit_val_batches=0, enable_checkpointing=False, **QUIET)
    if line:
        with pytest.raises(ConfigurationError, match=line) as error:
            trainer.fit(model, datamodule=datamodule)
        assert "\n" not in str(error.value)
        assert model.steps == 0
    else:
        trainer.fit(model, datamodule=datamodule)
        assert model.steps > 0


def test_testing_a_model_needs_no_defects_in_the_training_set(root, tmp_path):
    model = SupervisedModel(Supervision.PIXEL_MASKS)
    model.test_step = lambda batch, batch_idx: None
    Trainer(default_root_dir=tmp_path, **QUIET).test(model, datamodule=folder_datamodule(root), verbose=False)


def make_datamodule(root: Path, val_split_mode: str = "same_as_test") -> Folder:
    datamodule = folder_datamodule(root)
    datamodule.val_split_mode = type(datamodule.val_split_mode)(val_split_mode)
    datamodule.setup()
    return datamodule


@pytest.mark.parametrize("val_split_mode", ["same_as_test", "from_test", "from_train", "none"])
def test_valid_evaluation_data_pass(root, val_split_mode):
    check_evaluation_data(make_datamodule(root, val_split_mode))


@pytest.mark.parametrize("val_split_mode", ["same_as_test", "from_test", "none"])
@pytest.mark.parametrize("name", ["defective/000.png", "defective/001.png", "normal_test/001.png", "masks/001.png"])
def test_a_corrupt_file_is_found_in_every_folder(root, val_split_mode, name):
    datamodule = make_datamodule(root, val_split_mode)
    (root / name).write_text("not an image")
    with pytest.raises(InvalidInputError, match=f"cannot read (image|mask) .*{name}"):
        check_evaluation_data(datamodule)


def test_a_missing_file_and_a_mask_of_another_size_are_found(root):
    datamodule = make_datamodule(root)
    Image.new("L", (24, 21)).save(root / "masks" / "000.png")
    with pytest.raises(InvalidInputError, match="24x21"):
        check_evaluation_data(datamodule)
    (root / "masks" / "000.png").unlink()
    with pytest.raises(MissingDataError, match=r"masks.000\.png not found\. Restore it"):
        check_evaluation_data(datamodule)


def test_training_images_are_not_checked(root):
    datamodule = make_datamodule(root)
    for path in (root / "normal").iterdir():
        path.write_text("not an image")
    check_evaluation_data(datamodule)


def test_validation_images_that_are_the_test_images_are_read_once(root, monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path: (opened.append(path), original(path))[1])
    check_evaluation_data(make_datamodule(root))
    assert len(opened) == len(set(opened)) == 6  # four images and two masks


@pytest.mark.parametrize(("val_split_mode", "validates"), [("same_as_test", True), ("none", False)])
def test_validation_is_skipped_only_without_validation_images(root, caplog, val_split_mode, validates):
    trainer = trainer_with(make_datamodule(root, val_split_mode))
    allow_no_validation(trainer, PostProcessor(), None)
    assert bool(trainer.limit_val_batches) == validates
    assert trainer.check_val_every_n_epoch == (5 if validates else 1)
    assert ("there will be no thresholds" in caplog.text) != validates


def test_a_threshold_from_the_normal_image_needs_no_validation_images(root, caplog):
    allow_no_validation(trainer_with(make_datamodule(root, "none")), ReferencePostProcessor(), None)
    assert "no thresholds" not in caplog.text
