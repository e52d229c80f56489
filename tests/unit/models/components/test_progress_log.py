"""The log of a training without a terminal, and of where its results are."""

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from anomalib_defect_plugins.models.components import progress_log
from anomalib_defect_plugins.models.components.callbacks import StopAfter
from anomalib_defect_plugins.models.components.progress_log import ProgressLog, duration, progress

MODEL = SimpleNamespace(name="OneStage", visualizer=None)


def make_trainer(folder: Path | None = None, step: int = 0, epoch: int = 0, **options: object) -> SimpleNamespace:
    state = {"global_step": step, "current_epoch": epoch, "is_global_zero": True, "default_root_dir": folder}
    limits = {"max_epochs": -1, "max_steps": -1, "num_training_batches": 10}
    metrics = {"callback_metrics": {"image_AUROC": 0.5}, "progress_bar_metrics": {"loss": 0.25}}
    empty = {"callbacks": [], "ckpt_path": None, "checkpoint_callback": None}
    return SimpleNamespace(**{**state, **limits, **metrics, **empty, **options})


@pytest.mark.parametrize(
    ("options", "batches", "expected"),
    [
        ({"callbacks": [StopAfter(400)], "step": 100}, 0, 0.25),
        ({"callbacks": [StopAfter(400)], "max_steps": 200, "step": 100}, 0, 0.5),
        ({"max_epochs": 4, "epoch": 1}, 5, 0.375),
        ({}, 5, 0.0),
    ],
)
def test_progress_is_the_share_of_the_limit_that_ends_training(options, batches, expected):
    assert progress(make_trainer(**options), batches) == pytest.approx(expected)


def test_a_line_a_minute_has_step_losses_and_time_left(monkeypatch, capsys):
    clock = iter([0.0, 30.0, 60.0, 90.0, 120.0])
    monkeypatch.setattr(progress_log.time, "monotonic", lambda: next(clock))
    log, callbacks = ProgressLog(), [StopAfter(400)]
    log.on_train_start(make_trainer(callbacks=callbacks), MODEL)
    for step in (50, 100, 150, 200):
        log.on_train_batch_end(make_trainer(callbacks=callbacks, step=step), MODEL, None, None, 0)
    assert capsys.readouterr().err.splitlines() == [
        "OneStage: 25% of the training, step 100, 3 min left, loss 0.25",
        "OneStage: 50% of the training, step 200, 2 min left, loss 0.25",
    ]


def test_a_terminal_has_the_progress_bar_instead(monkeypatch, capsys):
    monkeypatch.setattr(progress_log, "INTERVAL", 0.0)
    monkeypatch.setattr(progress_log.sys, "stderr", SimpleNamespace(isatty=lambda: True))
    log = ProgressLog()
    log.on_train_start(make_trainer(), MODEL)
    log.on_train_batch_end(make_trainer(step=5), MODEL, None, None, 0)
    assert capsys.readouterr() == ("", "")


def test_after_a_test_the_metrics_are_in_a_file_and_the_folders_in_the_log(tmp_path, caplog):
    (tmp_path / "images").mkdir()
    (tmp_path / "model.ckpt").touch()
    trainer = make_trainer(tmp_path, ckpt_path=str(tmp_path / "model.ckpt"))
    with caplog.at_level(logging.INFO):
        ProgressLog().teardown(trainer, MODEL, "test")
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"image_AUROC": 0.5}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"Results of OneStage: heat maps: {tmp_path}/images; checkpoint: {tmp_path}/model.ckpt; "
        f"metrics: {tmp_path}/metrics.json"
    )


def test_a_metric_that_is_not_defined_is_null(tmp_path):
    trainer = make_trainer(tmp_path, callback_metrics={"image_AUROC": math.nan, "image_F1Score": 1.0})
    ProgressLog().teardown(trainer, MODEL, "test")
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"image_AUROC": None, "image_F1Score": 1.0}


@pytest.mark.parametrize(
    ("seconds", "text"), [(20, "1 min"), (150, "3 min"), (3700, "1 h 02 min"), (math.inf, "unknown time")]
)
def test_times_are_in_minutes_or_hours(seconds, text):
    assert duration(seconds) == text
