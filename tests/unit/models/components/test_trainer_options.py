"""Each option of the trainer with each model: it takes effect, or is refused in one line before data are read."""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from anomalib.engine import Engine
from anomalib.metrics import AUROC, Evaluator
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_defect_plugins.core.errors import ConfigurationError, error_line
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.components.trainer_options import NEVER, reset_options
from anomalib_defect_plugins.models.cutpaste import CutPaste
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.models.sidn import Sidn
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}

MODELS: dict[str, tuple[type[AnomalibModule], dict[str, Any]]] = {
    "CutPaste": (CutPaste, {"image_size": (64, 64), "backbone": "test_resnet.r160_in1k", "pre_trained": False}),
    "DefectGan": (DefectGan, {"image_size": (32, 32), "channels": 4, "residual_blocks": 1, "critic_updates": 2}),
    "HtpGan": (HtpGan, {"image_size": (24, 32), "num_scales": 2, "min_size": 16, "width": 2}),
    "IsuGan": (
        IsuGan,
        {"image_size": (32, 32), "backbone": None, "width": 4, "residual_blocks": 1, "involution": False},
    ),
    "OneStage": (OneStage, {"image_size": (32, 32), "width": "small"}),
    "Sidn": (Sidn, {"image_size": (32, 32), "backbone": None, "channels": 4, "clusters": 3}),
}
ITERATIONS = 4
BATCHES = 3
"""Batches of an epoch of the data, six images in batches of two."""


def make(name: str, **arguments: Any) -> Any:
    """Return a tiny model."""
    cls, settings = MODELS[name]
    steps = "iterations_per_scale" if cls is HtpGan else "iterations"
    return cls(**{steps: ITERATIONS, "visualizer": False, "evaluator": False} | settings | arguments)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """One untrained model of each kind."""
    return {name: make(name, evaluator=True) for name in MODELS}


def make_trainer(folder: Path, **options: Any) -> Trainer:
    """Return a trainer that is about to train."""
    trainer = Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **QUIET | options)
    trainer.state.fn = TrainerFn.FITTING
    return trainer


def attached(model: Any, folder: Path, **options: Any) -> Trainer:
    """Return a trainer that has got the model, which is the first step of training."""
    trainer = make_trainer(folder, **options)
    model.trainer = trainer
    return trainer


def refusal(model: Any, trainer: Trainer) -> str | None:
    """Return the line that a model refuses the options of a trainer with, if it does."""
    try:
        model.trainer = trainer
    except ConfigurationError as error:
        return error_line(error)
    return None


ALL = set(MODELS)
IN_TURN = {"DefectGan", "HtpGan"}  # they update their networks in turn
OWN_BATCHES = {"DefectGan", "HtpGan", "IsuGan"}
COMPLETE_ONLY = {"HtpGan"}
NONE: set[str] = set()

MONITORED = "which validation does not compute"

CASES: list[tuple[dict[str, Any], set[str], str]] = [
    ({}, NONE, ""),
    ({"max_epochs": 0}, ALL, "max_epochs 0, which trains nothing"),
    ({"max_epochs": 5}, COMPLETE_ONLY, "max_epochs 5, .* after the last of its 2 epochs"),
    ({"max_epochs": 2}, NONE, ""),
    ({"max_steps": 0}, ALL, "max_steps 0, which trains nothing"),
    ({"max_steps": 3}, COMPLETE_ONLY, "max_steps 3"),
    ({"min_steps": 3}, COMPLETE_ONLY, "min_steps 3"),
    ({"min_epochs": 1}, NONE, ""),
    ({"min_epochs": 3}, COMPLETE_ONLY, "min_epochs 3"),
    ({"max_time": "00:00:00:00"}, ALL, "max_time 0, which trains nothing"),
    ({"max_time": "00:01:00:00"}, COMPLETE_ONLY, "max_time, because"),
    ({"callbacks": EarlyStopping("loss")}, COMPLETE_ONLY, "EarlyStopping of loss"),
    ({"callbacks": EarlyStopping("image_AUROC")}, ALL, "EarlyStopping of image_AUROC"),
    ({"callbacks": EarlyStopping("val_loss")}, ALL, "EarlyStopping of val_loss"),
    ({"callbacks": ModelCheckpoint()}, NONE, ""),
    ({"callbacks": ModelCheckpoint(monitor="loss")}, COMPLETE_ONLY, "ModelCheckpoint of loss"),
    ({"callbacks": ModelCheckpoint(monitor="image_AUROC")}, ALL, "ModelCheckpoint of image_AUROC"),
    ({"callbacks": StochasticWeightAveraging(1e-3)}, ALL, "StochasticWeightAveraging"),
    ({"callbacks": GradientAccumulationScheduler({0: 2})}, IN_TURN, "GradientAccumulationScheduler"),
    ({"callbacks": LearningRateFinder()}, OWN_BATCHES, "LearningRateFinder"),
    ({"callbacks": BatchSizeFinder()}, OWN_BATCHES, "BatchSizeFinder"),
    ({"overfit_batches": 1}, OWN_BATCHES, "overfit_batches, because it draws its own training batches"),
    ({"overfit_batches": 0.5}, OWN_BATCHES, "overfit_batches"),
    ({"fast_dev_run": True}, NONE, ""),
    ({"limit_train_batches": 0}, ALL, "limit_train_batches 0, which trains nothing"),
    ({"limit_train_batches": 0.5}, NONE, ""),
    ({"limit_val_batches": 0}, NONE, ""),
    ({"limit_test_batches": 1}, NONE, ""),
    ({"val_check_interval": 0}, ALL, "val_check_interval 0"),
    ({"val_check_interval": 3}, COMPLETE_ONLY, "val_check_interval 3"),
    ({"val_check_interval": 0.5}, COMPLETE_ONLY, "val_check_interval 0.5"),
    ({"val_check_interval": "00:00:01:00"}, COMPLETE_ONLY, "val_check_interval by time"),
    ({"check_val_every_n_epoch": 0}, ALL, "check_val_every_n_epoch 0"),
    ({"check_val_every_n_epoch": 5}, COMPLETE_ONLY, "check_val_every_n_epoch 5"),
    ({"gradient_clip_val": 1.0}, IN_TURN, "gradient_clip_val, because it updates its networks in turn"),
    ({"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}, IN_TURN, "gradient_clip_val"),
    ({"gradient_clip_val": 0}, NONE, ""),
    ({"accumulate_grad_batches": 0}, ALL, "accumulate_grad_batches 0"),
    ({"accumulate_grad_batches": 2}, IN_TURN, "accumulate_grad_batches"),
    ({"precision": "16-true"}, ALL, "precision 16-true"),
    ({"precision": "bf16-true"}, ALL, "precision bf16-true"),
    ({"precision": "64-true"}, ALL, "precision 64-true"),
    ({"precision": "bf16-mixed"}, NONE, ""),
    ({"precision": "16-mixed"}, NONE, ""),
    ({"deterministic": True}, NONE, ""),
    ({"detect_anomaly": True}, NONE, ""),
    ({"reload_dataloaders_every_n_epochs": 1}, NONE, ""),
    ({"inference_mode": False}, NONE, ""),
    ({"num_sanity_val_steps": 2}, NONE, ""),
    ({"enable_checkpointing": False}, NONE, ""),
    ({"profiler": "simple"}, NONE, ""),
]


@pytest.fixture(autouse=True)
def _nondeterministic() -> Iterator[None]:
    """Undo ``deterministic``, which Lightning sets for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("options", "refusing", "reason"), CASES, ids=[" ".join(options) + str(i) for i, (options, *_) in enumerate(CASES)]
)
def test_an_option_is_accepted_or_refused_in_one_line_before_data_are_read(models, tmp_path, options, refusing, reason):
    trainer = make_trainer(tmp_path, **options)
    lines = {name: refusal(model, trainer) for name, model in models.items()}
    assert {name for name, line in lines.items() if line} == refusing
    for name in refusing:
        assert re.match(f"error: {name} cannot be (trained|used) with {reason}", lines[name])
        assert "\n" not in lines[name]


@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_model_is_refused(name, tmp_path):
    compiled = torch.compile(make(name), backend="eager")
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ConfigurationError, match=rf"^{name} .*torch\.compile .*: .*model\.model\.compile\(\)"):
        trainer.fit(compiled)


@pytest.mark.parametrize("name", sorted(IN_TURN))
def test_a_model_of_several_optimizers_takes_no_other(name, tmp_path):
    model = make(name)
    model.configure_optimizers = lambda: None
    with pytest.raises(ConfigurationError, match=r"with another optimizer, .* set its learning rates instead"):
        attached(model, tmp_path)


def test_the_option_optimizer_is_refused(tmp_path):
    model = make("Sidn")
    model.configure_optimizers = MethodType(partial(print), model)  # as anomalib fit --optimizer does
    with pytest.raises(ConfigurationError, match=r"with --optimizer, .*: leave it out"):
        attached(model, tmp_path)


BY_STEPS = (-1, NEVER, None)

VALIDATIONS: list[tuple[dict[str, Any], tuple[Any, Any, Any]]] = [
    ({}, BY_STEPS),
    ({"max_epochs": 7}, (7, NEVER, None)),
    ({"val_check_interval": 10}, (-1, 10, None)),
    ({"val_check_interval": 10, "check_val_every_n_epoch": None}, (-1, 10, None)),
    ({"val_check_interval": 10, "check_val_every_n_epoch": 2}, (-1, 10, 2)),
    ({"val_check_interval": 0.5}, (-1, 0.5, 1)),
    ({"check_val_every_n_epoch": 3}, (-1, 1.0, 3)),
    ({"callbacks": EarlyStopping("loss")}, (-1, 1.0, 1)),
    ({"fast_dev_run": True}, (1, 1.0, 1)),
]


def limits(trainer: Trainer) -> tuple[Any, Any, Any]:
    return trainer.max_epochs, trainer.val_check_interval, trainer.check_val_every_n_epoch


@pytest.mark.parametrize(("options", "expected"), VALIDATIONS)
def test_options_of_the_user_replace_those_of_the_model(models, tmp_path, options, expected):
    assert limits(attached(models["Sidn"], tmp_path, **options)) == expected


def test_options_of_a_model_last_for_one_training(models, tmp_path):
    trainer = attached(models["HtpGan"], tmp_path)
    assert limits(trainer) == (2, 1.0, 2)
    models["Sidn"].trainer = trainer
    assert limits(trainer) == BY_STEPS
    reset_options(trainer)
    assert limits(trainer) == (None, 1.0, 1)


def test_an_option_that_the_user_changes_between_two_trainings_is_kept(models, tmp_path):
    trainer = attached(models["Sidn"], tmp_path)
    trainer.fit_loop.max_epochs = 9
    models["Sidn"].trainer = trainer
    assert limits(trainer) == (9, NEVER, None)


class Validations(Callback):
    """Records the steps that are validated."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Record the step."""
        self.steps.append(trainer.global_step)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of images: six normal ones to train on, four defective ones."""
    folder = tmp_path_factory.mktemp("data")
    write_folder_data(folder, image_size=(64, 64), normal=2 * BATCHES, normal_test=2, defective=4)
    return folder


@pytest.fixture
def train(data: Path, tmp_path: Path) -> Callable[..., tuple[Any, Trainer, list[int]]]:
    """Return a function that trains a model, and returns it with its trainer and the steps that were validated."""

    def run(name: str, *callbacks: Callback, evaluator: Any = False, **options: Any) -> tuple[Any, Trainer, list[int]]:
        torch.manual_seed(0)
        model, validations = make(name, evaluator=evaluator), Validations()
        datamodule = folder_datamodule(data)
        datamodule.train_batch_size = 2
        wrapped = datamodule if name in {"CutPaste", "HtpGan", "Sidn"} else WithDefects(datamodule, real=2)
        settings = {"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, **QUIET, **options}
        engine = Engine(callbacks=[*callbacks, validations], **settings)
        engine.fit(model, datamodule=wrapped)
        threshold = float(model.post_processor.image_threshold)
        if engine.trainer.limit_val_batches:  # the thresholds are those of the last weights
            engine.validate(model, datamodule=wrapped, verbose=False)
            assert float(model.post_processor.image_threshold) == threshold
        return model, engine.trainer, validations.steps

    return run


def stop(**options: Any) -> EarlyStopping:
    """Return a callback that stops at its second check."""
    return EarlyStopping("loss", patience=1, min_delta=1e9, check_finite=False, **options)


@pytest.mark.parametrize(
    ("options", "validated"),
    [
        ({"max_epochs": 1}, [3]),
        ({"max_steps": 2}, [2]),
        ({"min_steps": 3}, [4]),
        ({"min_epochs": 1}, [4]),
        ({"limit_train_batches": 2, "min_steps": 4}, [4]),
        ({"accumulate_grad_batches": 2}, [4]),
        ({"accumulate_grad_batches": 2, "max_epochs": 1}, [2]),
        ({"val_check_interval": 3}, [3, 4]),
        ({"check_val_every_n_epoch": 99}, [4]),
        ({"overfit_batches": 1}, [4]),
    ],
)
def test_training_ends_at_its_first_limit_and_with_a_validation(train, options, validated):
    _, trainer, steps = train("Sidn", **options)
    assert steps[: len(validated)] == validated
    assert trainer.global_step == validated[-1]


@pytest.mark.parametrize("name", ["CutPaste", "DefectGan", "IsuGan", "OneStage"])
def test_the_other_models_end_with_a_validation_too(train, name):
    model, trainer, steps = train(name, max_steps=3)
    assert trainer.global_step == steps[0] == 3
    assert not math.isnan(float(model.post_processor.image_threshold))


def test_early_stopping_validates_each_epoch(train, caplog):
    _, trainer, steps = train("Sidn", stop(), limit_train_batches=1)
    assert trainer.global_step == 2
    assert steps[:2] == [1, 2]
    assert "Sidn was trained for 2 of its 4 steps" in caplog.text


def test_early_stopping_of_a_validation_metric(train):
    auroc = AUROC(fields=["pred_score", "gt_label"], prefix="image_")
    monitor = EarlyStopping("image_AUROC", mode="max", patience=1, min_delta=2)
    _, trainer, _ = train("Sidn", monitor, evaluator=Evaluator(val_metrics=[auroc]), val_check_interval=1)
    assert trainer.global_step == 2


def test_steps_that_a_limit_leaves_out_are_named_at_the_start(train, caplog):
    train("Sidn", max_epochs=1)
    assert "Sidn will be trained for 3 of its 4 steps, because of max_epochs: leave" in caplog.text


@pytest.mark.parametrize("options", [{"min_steps": 5}, {"min_epochs": 2}])
def test_a_minimum_beyond_the_last_step_is_refused(train, options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigurationError, match=f"^Sidn cannot be trained with {name} {value}, .* after 4 steps: "):
        train("Sidn", **options)


def test_training_without_validation_is_named(train, caplog):
    model, _, steps = train("Sidn", limit_val_batches=0)
    assert not steps
    assert "is not validated (limit_val_batches 0), so there will be no thresholds; leave" in caplog.text
    assert math.isnan(float(model.post_processor.image_threshold))
