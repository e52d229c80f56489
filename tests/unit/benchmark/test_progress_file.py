"""The file that tells other programs how far a run is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anomalib_defect_plugins.benchmark import progress_file
from anomalib_defect_plugins.benchmark.progress_file import ProgressFile, RunProgress, read_progress


def test_batches_of_each_phase_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_file, "INTERVAL_S", 0)
    path, model = tmp_path / "run.json", object()
    trainer: Any = SimpleNamespace(num_training_batches=5, max_epochs=4, num_test_batches=[6])
    progress: Any = ProgressFile(path)
    assert read_progress(path) is None
    progress.on_train_start(trainer, model)
    for _ in range(10):
        progress.on_train_batch_end(trainer, model, None, None, 0)
    training = read_progress(path)
    assert training is not None
    assert (training.phase, training.step, training.total, training.share) == ("training", 10, 20, 0.5)
    progress.on_test_start(trainer, model)
    for _ in range(6):
        progress.on_test_batch_end(trainer, model, None, None, 0)
    testing = read_progress(path)
    assert testing is not None
    assert (testing.phase, testing.step, testing.total) == ("testing", 6, 6)


def test_the_time_left_follows_from_the_finished_share() -> None:
    assert RunProgress("training", 25, 100, 10).seconds_left == pytest.approx(30)
    assert RunProgress("training", 0, 100, 10).seconds_left is None
    assert RunProgress("training", 7, 0, 10).share == 0


def test_a_damaged_file_is_no_progress(tmp_path: Path) -> None:
    for content in ("", "{", "[]", '{"step": 1}'):
        (tmp_path / "run.json").write_text(content)
        assert read_progress(tmp_path / "run.json") is None
