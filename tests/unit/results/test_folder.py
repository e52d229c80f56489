"""The folder of results: what is in it is whole."""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from anomalib_defect_plugins.results import folder as module
from anomalib_defect_plugins.results.folder import Record, Results, make_row, write_record
from anomalib_defect_plugins.results.run_spec import Measure, Part, Run
from anomalib_defect_plugins.core.errors import InvalidInputError

RUN = Run(Part("PaDiM", "Padim"), Part("brick", "TextureDefects"), Part("normal", None), 0, {}, Measure())


def make_record(run: Run = RUN, **more: object) -> Record:
    figures = {"image_AUROC": 0.5 + run.seed / 8}
    return {"key": run.key, "status": "done", "error": None, "run": run.to_dict(), "figures": figures, **more}


def add(results: Results, run: Run = RUN, **more: object) -> None:
    with results.new_run(run.key) as (folder, _):
        write_record(folder, make_record(run, **more))


@pytest.fixture
def results(tmp_path: Path) -> Results:
    results = Results(tmp_path / "out")
    with results.in_use():
        pass
    return results


def test_a_run_is_there_as_a_whole_and_its_waste_is_not(results: Results) -> None:
    with results.new_run("abc") as (folder, waste):
        (waste / "large").write_text("x")
        (folder / "maps").mkdir()
        (folder / "maps/0.png").write_text("x")
        write_record(folder, make_record())
        assert results.records() == {}
    assert results.records() == {"abc": make_record()}
    assert [path.name for path in (results.root / "runs").iterdir()] == ["abc"]
    assert (results.root / "runs/abc/maps/0.png").exists()
    assert (results.root / "runs/abc").stat().st_mode & 0o077, "only its owner may read it"


def test_a_run_that_raises_leaves_nothing(results: Results) -> None:
    with pytest.raises(ValueError, match="JSON"):
        add(results, cost={"train_seconds": float("nan")})
    assert list((results.root / "runs").iterdir()) == []


def test_a_run_takes_the_place_of_a_failed_one(results: Results) -> None:
    results.write_failed(RUN, make_record(status="failed", error="no"), "Traceback")
    folder = results.root / "runs" / RUN.key
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "traceback.txt"]
    add(results)
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    assert results.read(RUN.key)["status"] == "done"


@pytest.mark.parametrize("moment", ["while files are flushed", "before the rename", "after the rename"])
def test_killed_at_any_moment_it_holds_the_run_or_does_not(
    results: Results, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if not child:
        rename = Path.rename

        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        if moment == "while files are flushed":
            module._flush = die
        elif moment == "before the rename":
            Path.rename = die
        else:
            Path.rename = lambda *paths: (rename(*paths), die())
        add(results)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert set(results.records()) == ({RUN.key} if moment == "after the rename" else set())
    assert len(list((results.root / "runs").glob(".*.partial"))) == 1
    with results.in_use():
        assert list((results.root / "runs").glob(".*")) == []


def test_the_table_has_the_runs_that_are_there_in_the_order_asked_for(results: Results) -> None:
    runs = [replace(RUN, seed=seed) for seed in (2, 0, 1)]
    add(results, runs[2])
    add(results, runs[0])
    results.write_failed(runs[1], {"key": runs[1].key, "status": "failed", "error": "no, or"})
    results.write_table(runs)
    rows = list(csv.DictReader((results.root / "results.csv").open()))
    assert [(row["seed"], row["status"], row["image_AUROC"], row["error"]) for row in rows] == [
        ("2", "done", "0.75", ""),
        ("0", "failed", "", "no, or"),
        ("1", "done", "0.625", ""),
    ]
    results.write_table(runs[2:])
    assert len((results.root / "results.csv").read_text().splitlines()) == 2


def test_a_row_has_the_labels_of_today_and_everything_that_was_measured() -> None:
    latency = {"engine": "openvino", "precision": "INT8", "device": "CPU", "batch": 8, "median_ms": 2.5, "p95_ms": 3}
    unable = {"engine": "openvino", "precision": "FP16", "device": "CPU", "batch": 1, "error": "no"}
    record = make_record(
        cost={"train_seconds": 3},
        latency=[latency, unable],
        export_difference={"FP32": 1e-5},
        split={"train": 4, "hash": "ab"},
    )
    assert make_row(record, replace(RUN, model=Part("renamed", "Padim"))) == {
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
        "export_difference_FP32": 1e-5,
        "split_train": 4,
        "split_hash": "ab",
        "error": None,
    }


def test_a_folder_in_use_is_refused_and_one_whose_user_was_killed_is_not(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys, time, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print(flush=True), time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(results.root / ".lock")], stdout=subprocess.PIPE)
    other.stdout.readline()
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    with pytest.raises(InvalidInputError, match="out is in use by another benchmark"), results.in_use():
        pass
    other.kill()
    other.wait()
    with results.in_use():
        pass


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with (
        pytest.raises(InvalidInputError, match=r"holds something else, such as letter\.txt"),
        Results(tmp_path).in_use(),
    ):
        pass
    with pytest.raises(InvalidInputError, match="is a file"), Results(tmp_path / "letter.txt").in_use():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match=r"cannot write to .*out \(Not a directory\)"):
        Results(tmp_path / "file/out").write_configuration("")


def test_a_run_that_cannot_be_read_is_named(results: Results) -> None:
    add(results)
    (results.root / "runs" / RUN.key / "run.json").write_text("{")
    with pytest.raises(InvalidInputError, match=rf"{RUN.key}/run\.json cannot be read .*; delete the folder"):
        results.records()
