"""Models that share an ``Engine`` or a trainer train as if each had its own."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Padim
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from tiny_models import CLASSES, make_datamodule, make_model

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import differences, seed_all

OPTIONS = (
    "max_epochs",
    "val_check_interval",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "limit_val_batches",
    "should_stop",
)


def make(name: str) -> AnomalibModule:
    seed_all(0)
    if name == "padim":
        return Padim(layers=["layer1"], n_features=2, pre_trained=False, evaluator=False, visualizer=False)
    if name == "null":
        return make_model("cutpaste", iterations=0)
    return make_model(name)


def make_engine(folder: Path, *callbacks: Callback, **arguments: Any) -> Engine:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"accelerator": "cpu", "devices": 1, **quiet, **arguments}
    return Engine(callbacks=list(callbacks), default_root_dir=folder, **settings)


def fit(engine: Engine, model: AnomalibModule, datamodule: AnomalibDataModule) -> tuple[int, int, Path]:
    """Fit, and return the steps, the epochs and the checkpoint."""
    seed_all(0)
    engine.fit(model, datamodule=datamodule)
    return engine.trainer.global_step, engine.trainer.current_epoch, Path(str(engine.best_model_path))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_folder_data(folder, image_size=(32, 32), normal=4, normal_test=2, defective=4)
    return folder


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[tuple[int, int], dict[str, Any]]]:
    """Steps, epochs and final state of each model in an engine of its own."""
    found = {}
    for name in (*CLASSES, "null", "padim"):
        model = make(name)
        steps, epochs, _ = fit(make_engine(tmp_path_factory.mktemp(name)), model, make_datamodule(root))
        found[name] = ((steps, epochs), model.state_dict())
    return found


CHAIN = ("sidn", "padim", "htpgan", "null", "onestage", "isugan", "cutpaste", "defectgan", "padim", "sidn")
"""Models in an order in which each follows one with other options or with another kind of optimisation."""


@pytest.mark.slow
def test_each_model_of_an_engine_ends_like_one_in_an_engine_of_its_own(root, alone, tmp_path):
    engine = make_engine(tmp_path)
    checkpoints = []
    for name in CHAIN:
        model = make(name)
        steps, epochs, checkpoint = fit(engine, model, make_datamodule(root))
        progress, state = alone[name]
        assert (name, steps, epochs) == (name, *progress)
        assert not differences(model.state_dict(), state), name
        checkpoints.append(checkpoint)
        saved = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert not differences(saved, model.state_dict()), f"{checkpoint} is not that of {name}"
    assert len(set(checkpoints)) == len(CHAIN)
    assert len(list(tmp_path.rglob("last*.ckpt"))) == sum(name != "padim" for name in CHAIN)


@pytest.fixture
def plain(root: Path) -> Iterator[AnomalibDataModule]:
    """A data module without validation images."""
    datamodule = folder_datamodule(root)
    datamodule.val_split_mode = ValSplitMode.NONE
    return datamodule


@pytest.mark.parametrize("method", ["sidn", "htpgan"])
def test_a_trainer_gets_its_options_and_callbacks_back(root, plain, tmp_path, method):
    engine = make_engine(tmp_path)
    other = make_engine(tmp_path / "other")
    other._setup_workspace(make(method), datamodule=plain)
    other._setup_trainer(make(method))
    fit(engine, make(method), plain)
    assert {name: getattr(engine.trainer, name) for name in OPTIONS if name != "should_stop"} == {
        name: getattr(other.trainer, name) for name in OPTIONS if name != "should_stop"
    }
    kinds = [type(callback).__name__ for callback in engine.trainer.callbacks]
    assert [name for name in kinds if name != "SeparateModels"] == [
        type(callback).__name__ for callback in other.trainer.callbacks
    ]
    model = make(method)
    fit(engine, model, make_datamodule(root))  # is validated, unlike the first
    assert model.post_processor.image_threshold.isfinite()


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("error", [ConfigurationError, KeyboardInterrupt])
def test_a_model_whose_training_failed_leaves_nothing_behind(root, tmp_path, error):
    class Fails(Callback):
        """Fails in the second step of the first model."""

        failed = False

        def on_train_batch_end(self, trainer, pl_module, *_: object) -> None:
            """Fail."""
            if not self.failed and trainer.global_step >= 2:
                self.failed = True
                raise error

    engine = make_engine(tmp_path, Fails())
    with pytest.raises((error, SystemExit)):
        fit(engine, make("htpgan"), make_datamodule(root))
    model = make("sidn")
    assert fit(engine, model, make_datamodule(root))[0] == 4
    assert model.post_processor.image_threshold.isfinite()


def test_a_model_that_is_fitted_again_continues_where_it_stopped(root, tmp_path, caplog):
    class Rates(Callback):
        """Records the learning rate of each step."""

        def __init__(self) -> None:
            self.rates: list[float] = []

        def on_train_batch_start(self, trainer, *_: object) -> None:
            """Record it."""
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    rates = Rates()
    engine, model, datamodule = make_engine(tmp_path, rates), make("sidn"), make_datamodule(root)
    fit(engine, model, datamodule)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        fit(engine, model, datamodule)
    assert "Sidn has completed the 4 iterations" in caplog.text
    assert not differences(model.state_dict(), before)
    model.iterations = 8
    assert fit(engine, model, datamodule)[0] == 8
    # 1e-3 * (1 + cos(pi * step / 8)) / 2 for the steps 4 to 7
    assert rates.rates[4:] == pytest.approx([5e-4, 3.086583e-4, 1.464466e-4, 3.806023e-5], rel=1e-5)


def test_the_options_of_the_user_hold_for_every_model(root, tmp_path):
    stopping = EarlyStopping("image_threshold", patience=1)
    stopping.wait_count, stopping.stopped_epoch = 3, 3  # as after a model that was stopped
    engine = make_engine(tmp_path, max_epochs=1)
    assert fit(engine, make("sidn"), make_datamodule(root, 2))[:2] == (3, 1)
    engine.trainer.callbacks.append(stopping)
    stopping._should_skip_check = lambda _: True
    assert fit(engine, make("onestage"), make_datamodule(root, 2))[:2] == (3, 1)
    assert (stopping.wait_count, stopping.stopped_epoch) == (0, 0)
