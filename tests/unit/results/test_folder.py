"""The results folder: every run in it is complete."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.results import folder as module
from anomalib_defect_plugins.results.folder import ResultsFolder, make_row
from anomalib_defect_plugins.results.record import LatencyRow, RunRecord, write_record
from anomalib_defect_plugins.results.run_spec import ComponentSpec, MeasureSpec, RunSpec

RUN = RunSpec(
    ComponentSpec("PaDiM", "Padim"),
    ComponentSpec("brick", "TextureDefects"),
    ComponentSpec("normal", None),
    0,
    {},
    MeasureSpec(),
)


def make_record(results: ResultsFolder, run: RunSpec = RUN, **more: Any) -> RunRecord:
    more = {"error": None, "metrics": {"image_AUROC": 0.5 + run.seed / 8}, **more}
    return RunRecord(results.run_folder(run.key), run, environment={}, command="", **more)


def add(results: ResultsFolder, run: RunSpec = RUN, **more: Any) -> None:
    with results.new_run(run.key) as (folder, _):
        write_record(folder, make_record(results, run, **more))


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    results = ResultsFolder(tmp_path / "out")
    with results.lock():
        pass
    return results


def test_a_run_appears_complete_and_without_its_scratch_files(results: ResultsFolder) -> None:
    record = make_record(results)
    with results.new_run(RUN.key) as (folder, scratch):
        (scratch / "large").write_text("x")
        (folder / "maps").mkdir()
        (folder / "maps/0.png").write_text("x")
        write_record(folder, record)
        assert results.records() == {}
    assert results.records() == {RUN.key: record}
    assert [path.name for path in (results.root / "runs").iterdir()] == [RUN.key]
    assert (results.run_folder(RUN.key) / "maps/0.png").exists()
    assert results.run_folder(RUN.key).stat().st_mode & 0o077, "only its owner can read it"


def test_a_run_that_raises_leaves_nothing(results: ResultsFolder) -> None:
    with pytest.raises(ValueError, match="JSON"):
        add(results, cost={"train_seconds": float("nan")})
    assert list((results.root / "runs").iterdir()) == []


def test_a_run_replaces_a_failed_one(results: ResultsFolder) -> None:
    results.write_failed(make_record(results, error="no"), "Traceback")
    folder = results.run_folder(RUN.key)
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "traceback.txt"]
    add(results)
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    record = results.read(RUN.key)
    assert record is not None
    assert record.status == "done"


def test_a_failed_run_has_no_measurements(results: ResultsFolder) -> None:
    results.write_failed(make_record(results, error="no"))
    content = json.loads((results.run_folder(RUN.key) / "run.json").read_text())
    assert list(content) == ["key", "status", "error", "run", "environment", "command"]


@pytest.mark.parametrize("moment", ["while files are flushed", "before the rename", "after the rename"])
def test_killed_at_any_moment_it_has_the_whole_run_or_nothing_of_it(results: ResultsFolder, moment: str) -> None:
    child = os.fork()
    if not child:
        rename = Path.rename

        def die(*_: object) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

        def rename_and_die(path: Path, target: Path) -> Any:
            rename(path, target)
            die()

        attributes = {
            "while files are flushed": (module, "_sync", die),
            "before the rename": (Path, "rename", die),
            "after the rename": (Path, "rename", rename_and_die),
        }
        setattr(*attributes[moment])
        add(results)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert set(results.records()) == ({RUN.key} if moment == "after the rename" else set())
    assert len(list((results.root / "runs").glob(".*.partial"))) == 1
    with results.lock():
        assert list((results.root / "runs").glob(".*")) == []


def test_partial_files_of_a_killed_benchmark_are_removed(results: ResultsFolder) -> None:
    partial = results.root / ".results.csv.123.part"
    partial.touch()
    with results.lock():
        assert not partial.exists()


def test_the_table_has_the_finished_runs_in_the_given_order(results: ResultsFolder) -> None:
    runs = [replace(RUN, seed=seed) for seed in (2, 0, 1)]
    add(results, runs[2])
    add(results, runs[0])
    results.write_failed(make_record(results, runs[1], error="no, or"))
    results.write_table(runs)
    rows = list(csv.DictReader((results.root / "results.csv").open()))
    assert [(row["seed"], row["status"], row["image_AUROC"], row["error"]) for row in rows] == [
        ("2", "done", "0.75", ""),
        ("0", "failed", "", "no, or"),
        ("1", "done", "0.625", ""),
    ]
    results.write_table(runs[2:])
    assert len((results.root / "results.csv").read_text().splitlines()) == 2


def test_a_row_has_the_present_labels_and_all_measurements(results: ResultsFolder) -> None:
    record = make_record(
        results,
        cost={"train_seconds": 3},
        latency=(
            LatencyRow("openvino", "INT8", "CPU", 8, 2.5, 3, 3.5, 400, repeats=50),
            LatencyRow("openvino", "FP16", "CPU", 1, reason="no"),
        ),
        export_difference={"FP32": 1e-5},
        export_changes={"FP32": {"changed_verdicts": 2}},
        split={"train": 4, "hash": "ab"},
    )
    assert make_row(record, replace(RUN, model=ComponentSpec("renamed", "Padim"))) == {
        "key": RUN.key,
        "status": "done",
        "model": "renamed",
        "data": "brick",
        "supervision": "normal",
        "seed": 0,
        "image_AUROC": 0.5,
        "train_seconds": 3,
        "openvino_INT8_CPU_batch8_median_ms": 2.5,
        "openvino_INT8_CPU_batch8_p95_ms": 3,
        "openvino_INT8_CPU_batch8_p99_ms": 3.5,
        "openvino_INT8_CPU_batch8_images_per_second": 400,
        "openvino_FP16_CPU_batch1_median_ms": None,
        "openvino_FP16_CPU_batch1_p95_ms": None,
        "openvino_FP16_CPU_batch1_p99_ms": None,
        "openvino_FP16_CPU_batch1_images_per_second": None,
        "export_difference_FP32": 1e-5,
        "export_FP32_changed_verdicts": 2,
        "split_train": 4,
        "split_hash": "ab",
        "error": None,
    }


def test_a_folder_in_use_is_refused_unless_its_user_was_killed(
    results: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys, time, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print(flush=True), time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(results.root / ".lock")], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.1)
    with pytest.raises(InvalidInputError, match="out is in use by another benchmark"), results.lock():
        pass
    other.kill()
    other.wait()
    with results.lock():
        pass


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with (
        pytest.raises(InvalidInputError, match=r"holds something else, such as letter\.txt"),
        ResultsFolder(tmp_path).lock(),
    ):
        pass
    with pytest.raises(InvalidInputError, match="is a file"), ResultsFolder(tmp_path / "letter.txt").lock():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_unwritable_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match=r"cannot write to .*out \(Not a directory\)"):
        ResultsFolder(tmp_path / "file/out").write_configuration("")


def test_an_unreadable_run_is_named(results: ResultsFolder) -> None:
    add(results)
    (results.run_folder(RUN.key) / "run.json").write_text("{")
    with pytest.raises(InvalidInputError, match=rf"{RUN.key}/run\.json cannot be read .*; delete the folder"):
        results.records()
