"""Checkpoints are written atomically, loaded without executing code, and named in errors."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.engine.plugins import AnomalibCheckpointIO
from anomalib.models import AnomalibModule
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.demos.boring_classes import BoringModel

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError, error_line
from anomalib_defect_plugins.models.components.callbacks import ResumePoint
from anomalib_defect_plugins.models.components.checkpoint_io import (
    AtomicCheckpointIO,
    CheckpointErrors,
    loading,
    use_atomic_checkpoints,
    why,
)
from anomalib_defect_plugins.models.onestage import OneStage

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}

VALID = {"state_dict": {"a": torch.arange(999.0)}, "hyper_parameters": {}, "pytorch-lightning_version": "2.6.0"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "nested" / "model.ckpt"
    AtomicCheckpointIO().save_checkpoint(VALID, path)
    return path


def test_a_saved_checkpoint_is_loaded_and_no_other_file_is_left(path):
    assert torch.equal(AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["a"], VALID["state_dict"]["a"])
    assert os.listdir(path.parent) == ["model.ckpt"]  # noqa: PTH208


def test_a_changed_byte_in_the_weights_is_detected(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data/0"))
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(999.0).numpy().tobytes()) + 1000] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # detects nothing
    with pytest.raises(
        InvalidInputError, match=rf"cannot load checkpoint {path} \(it is damaged, in {name}\); pass a "
    ):
        AtomicCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state_dict": None}, "it contains no trained model"),
        ({"hyper_parameters": [1]}, "it contains no trained model"),
        (
            {"pytorch-lightning_version": "1.9.5"},
            r"it was written by Lightning 1\.9\.5; this package reads 2\.2 and later",
        ),
        ({"pytorch-lightning_version": None}, "it was written by Lightning None; this package reads 2.2 and later"),
        ({"more": Path("/")}, r"it contains code, pathlib\S*PosixPath, which is not executed"),
    ],
)
def test_a_file_without_a_trained_model_is_refused_in_one_line(tmp_path, change, reason):
    path = tmp_path / "changed.ckpt"
    torch.save({**VALID, **change}, path)
    with pytest.raises(InvalidInputError, match=rf"^cannot load checkpoint {path} \({reason}\); pass a model.ckpt"):
        AtomicCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint", b"\x80\x02}q\x00.", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04 cut off"]
)
def test_a_file_that_torch_has_not_saved_is_refused_in_words(tmp_path, content):
    path = tmp_path / "junk.ckpt"
    path.write_bytes(content)
    line = (
        f"cannot load checkpoint {path} (it is incomplete, or PyTorch has not saved it); pass a model.ckpt or last.ckpt"
    )
    with pytest.raises(InvalidInputError) as error:
        AtomicCheckpointIO().load_checkpoint(path)
    assert str(error.value) == f"{line} of a training run"
    assert why(error.value) == "it is incomplete, or PyTorch has not saved it"


def test_a_reason_that_is_a_mere_value_has_the_name_of_its_error(tmp_path):
    with pytest.raises(InvalidInputError, match=r"\(KeyError: 174812789\); pass a model"), loading(_valid(tmp_path)):
        raise KeyError(174812789)


def test_a_reason_has_neither_the_file_nor_advice():
    assert why(ConfigurationError("the checkpoint is of another model; pass one of this")) == (
        "the checkpoint is of another model"
    )


def _valid(folder: Path) -> Path:
    torch.save(VALID, folder / "valid.ckpt")
    return folder / "valid.ckpt"


def test_a_missing_checkpoint_and_a_folder_are_named(tmp_path):
    for name in ("none.ckpt", "."):
        with pytest.raises(MissingDataError, match=r"^checkpoint .* not found; pass a model\.ckpt"):
            AtomicCheckpointIO().load_checkpoint(tmp_path / name)


def test_a_checkpoint_plugin_of_the_user_is_kept(tmp_path):
    class Custom(TorchCheckpointIO):
        """A checkpoint plugin of the user."""

    for plugin, expected in (
        (Custom, Custom),
        (TorchCheckpointIO, AtomicCheckpointIO),
        (AnomalibCheckpointIO, AtomicCheckpointIO),
    ):
        trainer = Trainer(plugins=[plugin()], default_root_dir=tmp_path, **QUIET)
        use_atomic_checkpoints(trainer)
        assert type(trainer.strategy.checkpoint_io) is expected


def test_types_that_a_model_allows_are_loaded(tmp_path):
    trainer = Trainer(plugins=[AnomalibCheckpointIO([type(Path())])], default_root_dir=tmp_path, **QUIET)
    use_atomic_checkpoints(trainer)
    torch.save({**VALID, "more": Path("/")}, tmp_path / "changed.ckpt")
    assert trainer.strategy.checkpoint_io.load_checkpoint(tmp_path / "changed.ckpt")["more"] == Path("/")


class Boring(CheckpointErrors, BoringModel):
    """A linear layer of 32 inputs and 2 outputs, with one optimizer."""


class Fitted:
    """A trained model and its ``last.ckpt``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fit(Boring())

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    def fit(self, model: LightningModule, ckpt_path: Path | None = None) -> None:
        settings = {"max_epochs": 1 + bool(ckpt_path), "limit_train_batches": 1, "limit_val_batches": 0, **QUIET}
        Trainer(callbacks=[ResumePoint()], default_root_dir=self.folder, **settings).fit(model, ckpt_path=ckpt_path)
        if ckpt_path is None:
            (found,) = self.folder.rglob("last.ckpt")
            found.rename(self.last)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return Fitted(tmp_path_factory.mktemp("fitted"))


def resumed_with(fitted: Fitted, path: Path, model: LightningModule | None = None, **change: Any) -> str:
    content = {**torch.load(fitted.last, weights_only=True), "hyper_parameters": {}, **change}
    torch.save({name: value for name, value in content.items() if value is not ...}, path)
    with pytest.raises(Exception) as error:  # noqa: PT011 - the line matters, not the type
        fitted.fit(model or Boring(), path)
    return error_line(error.value) or repr(error.value)


def test_weights_of_another_model_are_refused_in_one_line(fitted, tmp_path):
    other = Boring()
    other.layer = torch.nn.Linear(32, 3)
    line = resumed_with(fitted, tmp_path / "changed.ckpt", other)
    assert line.startswith("error: the weights do not fit this Boring (")
    assert "size mismatch for layer.weight" in line


def test_training_does_not_resume_from_weights_alone(fitted, tmp_path):
    line = resumed_with(fitted, tmp_path / "changed.ckpt", optimizer_states=...)
    assert line == "error: training cannot resume from this checkpoint, which has no optimizer_states: pass a last.ckpt"


@pytest.mark.parametrize(
    "change", [{"loops": {}}, {"optimizer_states": [{}]}, {"lr_schedulers": [3]}, {"callbacks": 7}]
)
def test_an_invalid_training_state_is_one_line_that_names_the_checkpoint(fitted, tmp_path, change):
    path = tmp_path / "changed.ckpt"
    assert resumed_with(fitted, path, **change).startswith(f"error: cannot resume from checkpoint {path} (")


def test_an_error_in_training_is_not_blamed_on_the_checkpoint(fitted, tmp_path):
    class Fails(Boring):
        """Fails in its first step."""

        def training_step(self, *_: object) -> None:
            """Raise an error."""
            raise ArithmeticError

    assert resumed_with(fitted, tmp_path / "changed.ckpt", Fails()) == "ArithmeticError()"


def test_a_model_loads_its_own_checkpoint_and_refuses_others(tmp_path):
    def saved(width: str, change: dict[str, Any]) -> Path:
        model = OneStage((64, 64), width="small", backbone=None, evaluator=False, visualizer=False)
        content = {
            **VALID,
            "state_dict": model.state_dict(),
            "hyper_parameters": {"image_size": (64, 64), "width": width},
        }
        torch.save({**content, **change}, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    assert isinstance(OneStage.load_from_checkpoint(saved("small", {})), AnomalibModule)
    with pytest.raises(ConfigurationError, match=r"the weights do not fit this OneStage \(.*size mismatch"):
        OneStage.load_from_checkpoint(saved("paper", {}))
    model = OneStage((64, 64), width="paper", backbone=None)
    model.on_load_checkpoint(torch.load(saved("small", {"hyper_parameters": {"width": "small"}}), weights_only=True))
    # Version 0.1 had no score; the checkpoint does not contain it.
    with pytest.raises(ConfigurationError, match=r"trained with score mean and not max, .*width small and not paper"):
        model.load_state_dict({})
    with pytest.raises(InvalidInputError, match="width is 'huge'"):
        OneStage.load_from_checkpoint(saved("huge", {}))
    with pytest.raises(InvalidInputError, match=r"cannot load checkpoint .*changed\.ckpt \("):
        OneStage.load_from_checkpoint(saved("small", {"state_dict": ...}))
