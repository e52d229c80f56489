"""Runs of a tiny model, one after the other in this process."""

import argparse
import csv
import json
import signal
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from tiny_benchmark import SIDE, Tiny, write_benchmark

from anomalib_defect_plugins.benchmark import profile
from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.benchmark.job import BenchmarkRun, BenchmarkRuns, Setting
from anomalib_defect_plugins.benchmark.runners import RayRunner, SerialRunner, _outcome, _reason
from anomalib_defect_plugins.cli import benchmark
from anomalib_defect_plugins.cli.benchmark import add_parser
from anomalib_defect_plugins.core import ray_cluster
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.split_file import read_split
from anomalib_defect_plugins.results.run_spec import Measure


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take back what Lightning leaves in a process: seeds in its environment, and a deaf ear for Ctrl-C."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def run(path: Path, out: Path, **options: Any) -> pd.DataFrame:
    setting = Setting(out, str(path), torch.get_num_threads())
    return SerialRunner(BenchmarkRuns(read_benchmark(path), setting, **options)).run()


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["benchmark", *words])
    return options.run(options)


def records(out: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob("runs/*/run.json")}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and, in ``out``, its one run."""
    folder = tmp_path_factory.mktemp("done")
    run(write_benchmark(folder, [{}], [0]), folder / "out")
    return folder


def test_a_run_says_what_came_out_and_what_it_took(done: Path) -> None:
    (record,) = records(done / "out").values()
    assert record["status"] == "done"
    assert record["error"] is None
    assert {"image_AUROC", "image_F1Score", "image_Precision", "image_Recall"} <= set(record["figures"])
    assert {"pixel_AUROC", "pixel_AUPRO", "pixel_AP", "pixel_IoU", "pixel_MeanIoU"} <= set(record["figures"])
    assert record["cost"]["train_seconds"] > 0
    assert record["cost"]["test_seconds"] > 0
    assert record["cost"]["peak_host_bytes"] > 2**26, "an interpreter with torch takes more than 64 MiB"
    assert record["cost"]["parameters"] == 3 * 4 * 9 + 4, "one convolution of 3 x 3 from 3 to 4 channels, with bias"
    assert record["image_size"] == [SIDE, SIDE]
    assert record["environment"]["torch"] == version("torch")
    assert record["command"].endswith(
        f"benchmark.yaml --only {record['key']} --threads {torch.get_num_threads()} --force"
    )
    assert record["environment"]["shared"] is False


def test_a_run_keeps_its_images_maps_masks_split_and_model(done: Path) -> None:
    ((key, record),) = records(done / "out").items()
    folder = done / "out/runs" / key
    rows = list(csv.DictReader((folder / "images.csv").open()))
    assert [row["label"] for row in rows] == ["1"] * 4 + ["0"] * 4
    assert {row["defect_type"] for row in rows} == {"abnormal", "good"}
    assert len(list((folder / "maps").iterdir())) == 8
    assert len(list((folder / "masks").iterdir())) == 4
    images = [str(path) for path in (done / "data").glob("*/*.png") if path.parent.name != "masks"]
    assert {name: len(paths) for name, paths in read_split(folder / "split.csv", images).items()} == {
        "train": record["split"]["train"],
        "test": record["split"]["test"],
    }
    scores = Tiny.load_from_checkpoint(folder / "model.ckpt").model.mean
    assert scores.shape == (3, SIDE, SIDE)
    assert scores.abs().sum() > 0


def test_the_score_and_verdict_are_those_of_the_model_that_is_kept(done: Path) -> None:
    ((key, record),) = records(done / "out").items()
    rows = list(csv.DictReader((done / "out/runs" / key / "images.csv").open()))
    for row in rows:
        assert (float(row["score"]) > record["thresholds"]["image"]) == (row["pred_label"] == "1")
    scores = {label: [float(row["score"]) for row in rows if row["label"] == label] for label in "01"}
    pairs = [(a, b) for a in scores["1"] for b in scores["0"]]
    by_hand = sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)
    assert record["figures"]["image_AUROC"] == pytest.approx(by_hand)


def test_a_failing_run_is_a_row_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = run(write_benchmark(tmp_path, [{"error": "no way"}, {}], [0]), tmp_path / "out")
    assert list(table.status) == ["failed", "done"]
    assert table.error[0] == "ValueError: no way"
    folder = tmp_path / "out/runs" / table.key[0]
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "traceback.txt"]
    assert "in on_fit_start" in (folder / "traceback.txt").read_text()
    assert "figures" not in records(tmp_path / "out")[table.key[0]]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("1 of 2: tiny 0, Folder, normal, seed 0: failed: ValueError: no way, ")
    assert second.startswith("2 of 2: tiny 1, Folder, normal, seed 0: image_AUROC ")


def test_an_error_that_a_user_can_mend_is_its_line_without_a_traceback(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, [{}], [0], supervision=[{"class_path": "WithDefects", "init_args": {"real": 99}}])
    table = run(path, tmp_path / "out")
    assert table.error[0].startswith("real is 99, but ")
    assert [path.name for path in (tmp_path / "out/runs" / table.key[0]).iterdir()] == ["run.json"]


def test_started_again_only_what_is_missing_runs(done: Path, tmp_path: Path) -> None:
    before = records(done / "out")
    table = run(write_benchmark(done, [{"rate": 0.2}, {}], [0]), done / "out")
    assert list(table.status) == ["done", "done"]
    after = records(done / "out")
    assert len(after) == 2
    assert after.items() >= before.items(), "a changed configuration is a new run, and what is done stays"
    table = run(write_benchmark(done, [{}], [0]), done / "out")
    assert list(table.key) == list(before), "the table has what the file asks for"
    assert records(done / "out") == after


def test_a_failed_run_is_kept_unless_it_is_to_be_tried_again(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, [{"error": "no"}], [0])

    def file_of_the_run(**options: Any) -> int:
        (key,) = run(path, tmp_path / "out", **options).key
        return (tmp_path / "out/runs" / key / "run.json").stat().st_ino

    first = file_of_the_run()
    assert file_of_the_run() == first
    assert file_of_the_run(retry_failed=True) != first


def test_by_force_what_is_done_is_made_again_and_nothing_else(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, [{}], [0, 1])
    words = ["--config", str(path), "--out", str(tmp_path / "out")]

    def files() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("runs/*/run.json")}

    command(*words)
    before, (first, second) = files(), (run.key for run in read_benchmark(path).runs)
    command(*words, "--only", first)
    assert files() == before
    figures = records(tmp_path / "out")[first]["figures"]
    command(*words, "--only", first, "--force")
    assert files()[first] != before[first]
    assert files()[second] == before[second]
    assert records(tmp_path / "out")[first]["figures"] == figures
    command(*words, "--force")
    assert not files().items() & before.items()


def test_a_forced_run_whose_process_is_killed_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, [{}], [0])
    run(path, tmp_path / "out")
    job = BenchmarkRun(read_benchmark(path).runs[0], Setting(tmp_path / "out", str(path), 1))
    before = job.results.stamp(job.benchmark_run.key)
    assert before is not None
    assert _outcome(job, 0, before)["status"] == "done"
    assert _outcome(job, -9, before - 1)["status"] == "done", "it was killed when its work was done"
    assert _outcome(job, -9, before)["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "gpus", "shared"),
    [
        ([], 0, False),
        (["--runner", "process"], 0, False),
        (["--runner", "process"], 2, True),
        (["--runner", "process", "--jobs", "3"], 0, True),
        (["--runner", "ray"], 0, True),
        (["--runner", "ray", "--jobs", "1"], 2, False),
    ],
)
def test_a_run_knows_whether_others_are_made_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], gpus: int, shared: bool
) -> None:
    settings = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(benchmark, "_runner", lambda _, generator: settings.append(generator.setting) or Nothing())
    command("--config", str(write_benchmark(tmp_path, [{}], [0])), *words)
    assert settings[0].shared == shared


class Nothing:
    """A runner with nothing to do."""

    def run(self) -> list[str]:
        """Give an empty table."""
        return []


def test_only_the_run_that_is_named_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_benchmark(tmp_path, [{}], [0, 1])
    key = read_benchmark(path).runs[1].key
    assert command("--config", str(path), "--out", str(tmp_path / "out"), "--only", key) == 0
    assert list(records(tmp_path / "out")) == [key]
    assert f"results: {tmp_path / 'out/results.csv'} (1 of 2 runs)" in capsys.readouterr().out
    with pytest.raises(InvalidInputError, match=r"--only 123: .*benchmark\.yaml has no such run"):
        command("--config", str(path), "--only", "123")


def test_the_command_ends_with_1_if_a_run_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_benchmark(tmp_path, [{"error": "no way"}], [0])
    assert command("--config", str(path), "--out", str(tmp_path / "out")) == 1
    assert "(1 of 1 runs, 1 failed: --retry-failed makes these again)" in capsys.readouterr().out
    assert (tmp_path / "out/benchmark.yaml").read_text() == path.read_text()


def test_the_results_are_in_a_folder_of_the_benchmarks_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command("--config", str(write_benchmark(tmp_path, [{"error": "no"}], [0])))
    assert (tmp_path / "results/tiny/results.csv").exists()


def test_ctrl_c_ends_with_one_line_and_keeps_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_benchmark(tmp_path, [{}, {"error": "interrupt"}, {}], [0])
    content = yaml.safe_load(path.read_text())
    content["models"][2]["init_args"] = {"rate": 0.3}
    path.write_text(yaml.safe_dump(content))
    assert command("--config", str(path), "--out", str(tmp_path / "out")) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped: 1 of 3 runs are there; the same command goes on"
    assert [path.name for path in (tmp_path / "out/runs").iterdir()] == [read_benchmark(path).runs[0].key]


def test_supervision_puts_defects_into_training(tmp_path: Path) -> None:
    wrap = {"class_path": "WithDefects", "init_args": {"real": 3}}
    table = run(write_benchmark(tmp_path, [{}], [0], supervision=[{"name": "normal"}, wrap]), tmp_path / "out")
    assert list(table.split_train) == [8, 11]
    assert list(table.split_test) == [8, 5]
    assert table.split_hash.nunique() == 2


def test_latency_is_measured_on_the_trained_model_with_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(
        model: Tiny, image_size: tuple[int, int], folder: Path, images: torch.Tensor, measure: Measure
    ) -> dict[str, Any]:
        assert model.model.mean.abs().sum() > 0
        assert image_size == (SIDE, SIDE)
        assert images.shape == (8, 3, SIDE, SIDE)
        assert 0 <= images.min() < images.max() <= 1
        assert measure == Measure(precisions=("FP32",))
        (folder / "openvino").mkdir()
        return {"cost": {"flops": 7}, "latency": [], "export_difference": {"FP32": 0.5}}

    monkeypatch.setattr(profile, "profile", measure)
    path = write_benchmark(tmp_path, [{}], [0], measure={"precisions": ["FP32"]})
    table = run(path, tmp_path / "out")
    assert table.error[0] is None
    (record,) = records(tmp_path / "out").values()
    assert record["export_difference"] == {"FP32": 0.5}
    assert record["cost"]["flops"] == 7
    assert record["cost"]["parameters"] == 112
    assert (tmp_path / "out/runs" / record["key"] / "openvino").is_dir()


def test_what_is_not_wanted_is_not_kept(tmp_path: Path) -> None:
    measure = {"latency": False, "keep": {"maps": False, "model": False}}
    table = run(write_benchmark(tmp_path, [{}], [0], measure=measure), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out/runs" / table.key[0]).iterdir()}
    assert names == {"run.json", "images.csv", "split.csv"}


@pytest.mark.parametrize("task", [None, 0, 3])
def test_on_a_cpu_figures_do_not_depend_on_who_runs_it(done: Path, tmp_path: Path, task: int | None) -> None:
    path = done / "benchmark.yaml"
    runs = read_benchmark(path).runs
    job = BenchmarkRun(runs[0], Setting(tmp_path, str(path), torch.get_num_threads()))
    (tmp_path / "runs").mkdir()
    torch.rand(5)
    job.run(task)
    (record,) = records(tmp_path).values()
    assert record["figures"] == records(done / "out")[record["key"]]["figures"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--jobs", "2"], "--jobs is for --runner process or ray"),
        (["--runner", "process", "--address", "auto"], "--address is for --runner ray"),
        (["--gpus-per-job", "1"], "--gpus-per-job is for --runner ray"),
    ],
)
def test_an_option_of_another_runner_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(InvalidInputError, match=line):
        command("--config", "any.yaml", *words)


def test_without_ray_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInputError, match=r"install it with pip install 'anomalib-defect-plugins\[ray\]'"):
        RayRunner(None)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("localhost:1", "Connection refused"),
        ("ray://localhost:1", "Connection refused"),
        ("somewhere", "not HOST:PORT, ray://HOST:PORT or auto"),
        ("localhost:high", "not HOST:PORT"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line_at_once(tmp_path: Path, address: str, reason: str) -> None:
    pytest.importorskip("ray", reason="pip install 'anomalib-defect-plugins[ray]'")
    words = ["--config", str(write_benchmark(tmp_path, [{}], [0])), "--out", str(tmp_path / "out")]
    line = (
        rf"^there is no Ray cluster at {address} \(.*{reason}.*\); start one, mend --address, or leave --address out$"
    )
    start = time.monotonic()
    with pytest.raises(InvalidInputError, match=line):
        command(*words, "--runner", "ray", "--address", address)
    assert time.monotonic() - start < ray_cluster.PATIENCE


def test_a_host_that_keeps_silent_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(address: tuple[str, int], patience: float) -> None:
        assert (address, patience) == (("::1", 6379), 10)
        msg = "timed out"
        raise TimeoutError(msg)

    monkeypatch.setattr(ray_cluster.socket, "create_connection", connect)
    with pytest.raises(InvalidInputError, match=r"no Ray cluster at \[::1\]:6379 \(timed out\)"):
        ray_cluster.start_ray(None, "[::1]:6379")


def test_a_process_that_was_killed_is_said_to_be() -> None:
    assert _reason(-9).startswith("killed by signal 9 (SIGKILL), as the system does when memory runs out")
    assert _reason(-11) == "killed by signal 11 (SIGSEGV)"
    assert _reason(3) == "its process ended with status 3"
