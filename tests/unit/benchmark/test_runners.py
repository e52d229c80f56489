"""Runs of a tiny model, one after the other in this process, and the command ``anomalib-defects benchmark``."""

import argparse
import csv
import json
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pandas as pd
import pytest
import torch
import yaml
from tiny_benchmark import SIDE, Tiny, write_benchmark

from anomalib_defect_plugins.benchmark import profile
from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.benchmark.job import BenchmarkRun, BenchmarkRuns, ExecutionSettings
from anomalib_defect_plugins.benchmark.runners import RayRunner, SerialRunner, exit_reason, process_row
from anomalib_defect_plugins.cli import benchmark
from anomalib_defect_plugins.cli.benchmark import add_parser
from anomalib_defect_plugins.core import ray_cluster
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.split_file import read_split
from anomalib_defect_plugins.results.run_spec import MeasureSpec


@pytest.fixture(autouse=True)
def _restore_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what Lightning changes in a process: seeds in its environment, and the handler of Ctrl-C."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def run(path: Path, out: Path, **options: Any) -> pd.DataFrame:
    settings = ExecutionSettings(out, str(path), torch.get_num_threads())
    return SerialRunner(BenchmarkRuns(read_benchmark(path), settings, **options)).run()


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["benchmark", *words])
    status: int = options.run(options)
    return status


def records(out: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob("runs/*/run.json")}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and, in ``out``, its one run."""
    folder = tmp_path_factory.mktemp("done")
    run(write_benchmark(folder, [{}], [0]), folder / "out")
    return folder


def test_a_run_records_its_metrics_and_cost(done: Path) -> None:
    (record,) = records(done / "out").values()
    assert record["status"] == "done"
    assert record["error"] is None
    assert {"image_AUROC", "image_F1Score", "image_Precision", "image_Recall"} <= set(record["metrics"])
    assert {"pixel_AUROC", "pixel_AUPRO", "pixel_AP", "pixel_IoU", "pixel_MeanIoU"} <= set(record["metrics"])
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
    mean = cast(Tiny, Tiny.load_from_checkpoint(folder / "model.ckpt")).model.mean
    assert mean.shape == (3, SIDE, SIDE)
    assert mean.abs().sum() > 0


def test_scores_and_labels_agree_with_the_threshold_and_the_metrics(done: Path) -> None:
    ((key, record),) = records(done / "out").items()
    rows = list(csv.DictReader((done / "out/runs" / key / "images.csv").open()))
    for row in rows:
        # The post-processor is anomalib's, whose labels exclude the threshold.
        assert (float(row["score"]) > record["thresholds"]["image"]) == (row["pred_label"] == "1")
    scores = {label: [float(row["score"]) for row in rows if row["label"] == label] for label in "01"}
    pairs = [(a, b) for a in scores["1"] for b in scores["0"]]
    expected = sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)
    assert record["metrics"]["image_AUROC"] == pytest.approx(expected)


def test_a_failing_run_is_a_row_and_the_others_continue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = run(write_benchmark(tmp_path, [{"error": "no way"}, {}], [0]), tmp_path / "out")
    assert list(table.status) == ["failed", "done"]
    assert table.error[0] == "ValueError: no way"
    folder = tmp_path / "out/runs" / table.key[0]
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "traceback.txt"]
    assert "in on_fit_start" in (folder / "traceback.txt").read_text()
    assert "metrics" not in records(tmp_path / "out")[table.key[0]]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("1 of 2: tiny 0, Folder, normal, seed 0: failed: ValueError: no way, ")
    assert second.startswith("2 of 2: tiny 1, Folder, normal, seed 0: image_AUROC ")


def test_an_error_that_a_user_can_fix_is_its_line_without_a_traceback(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, [{}], [0], supervision=[{"class_path": "WithDefects", "init_args": {"real": 99}}])
    table = run(path, tmp_path / "out")
    assert table.error[0].startswith("real is 99, but ")
    assert [path.name for path in (tmp_path / "out/runs" / table.key[0]).iterdir()] == ["run.json"]


def test_a_restarted_benchmark_executes_missing_runs_only(done: Path, tmp_path: Path) -> None:
    before = records(done / "out")
    table = run(write_benchmark(done, [{"rate": 0.2}, {}], [0]), done / "out")
    assert list(table.status) == ["done", "done"]
    after = records(done / "out")
    assert len(after) == 2
    assert after.items() >= before.items(), "a changed configuration is a new run, and finished runs are kept"
    table = run(write_benchmark(done, [{}], [0]), done / "out")
    assert list(table.key) == list(before), "the table has the runs of the file"
    assert records(done / "out") == after


def test_a_failed_run_is_kept_unless_failed_runs_are_repeated(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, [{"error": "no"}], [0])

    def run_inode(**options: Any) -> int:
        (key,) = run(path, tmp_path / "out", **options).key
        path_of_run: Path = tmp_path / "out/runs" / key / "run.json"
        return path_of_run.stat().st_ino

    first = run_inode()
    assert run_inode() == first
    assert run_inode(retry_failed=True) != first


def test_force_repeats_the_selected_finished_runs_only(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, [{}], [0, 1])
    words = ["--config", str(path), "--out", str(tmp_path / "out")]

    def files() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("runs/*/run.json")}

    command(*words)
    before, (first, second) = files(), (run.key for run in read_benchmark(path).runs)
    command(*words, "--only", first)
    assert files() == before
    metrics = records(tmp_path / "out")[first]["metrics"]
    command(*words, "--only", first, "--force")
    assert files()[first] != before[first]
    assert files()[second] == before[second]
    assert records(tmp_path / "out")[first]["metrics"] == metrics
    command(*words, "--force")
    assert not files().items() & before.items()


def test_a_repeated_run_whose_process_is_killed_is_not_mistaken_for_the_earlier_one(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, [{}], [0])
    run(path, tmp_path / "out")
    job = BenchmarkRun(read_benchmark(path).runs[0], ExecutionSettings(tmp_path / "out", str(path), 1))
    before = job.results.modified_ns(job.benchmark_run.key)
    assert before is not None
    assert process_row(job, 0, before)["status"] == "done"
    assert process_row(job, -9, before - 1)["status"] == "done", "it was killed after it had written its result"
    assert process_row(job, -9, before)["status"] == "failed"


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
def test_a_run_records_whether_others_may_run_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], gpus: int, shared: bool
) -> None:
    settings: list[ExecutionSettings] = []

    def runner(options: argparse.Namespace, generator: BenchmarkRuns) -> IdleRunner:
        settings.append(generator.settings)
        return IdleRunner()

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(benchmark, "_runner", runner)
    command("--config", str(write_benchmark(tmp_path, [{}], [0])), *words)
    assert settings[0].shared == shared


class IdleRunner:
    """A runner without runs."""

    def run(self) -> list[str]:
        """Return an empty table."""
        return []


def test_only_the_named_run_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_benchmark(tmp_path, [{}], [0, 1])
    key = read_benchmark(path).runs[1].key
    assert command("--config", str(path), "--out", str(tmp_path / "out"), "--only", key) == 0
    assert list(records(tmp_path / "out")) == [key]
    assert f"results: {tmp_path / 'out/results.csv'} (1 of 2 runs)" in capsys.readouterr().out
    with pytest.raises(InvalidInputError, match=r"--only 123: .*benchmark\.yaml has no run of this key"):
        command("--config", str(path), "--only", "123")
    capsys.readouterr()
    assert command("--config", str(path), "--out", str(tmp_path / "out"), "--list") == 0
    states = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert states == [[read_benchmark(path).runs[0].key, "missing"], [key, "done"]]


def test_the_command_ends_with_1_if_a_run_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_benchmark(tmp_path, [{"error": "no way"}], [0])
    assert command("--config", str(path), "--out", str(tmp_path / "out")) == 1
    assert "(1 of 1 runs, 1 failed: --retry-failed repeats them)" in capsys.readouterr().out
    assert (tmp_path / "out/benchmark.yaml").read_text() == path.read_text()


def test_the_results_are_in_a_folder_of_the_benchmarks_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command("--config", str(write_benchmark(tmp_path, [{"error": "no"}], [0])))
    assert (tmp_path / "results/tiny/results.csv").exists()


def test_ctrl_c_ends_with_one_line_and_keeps_finished_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_benchmark(tmp_path, [{}, {"error": "interrupt"}, {}], [0])
    content = yaml.safe_load(path.read_text())
    content["models"][2]["init_args"] = {"rate": 0.3}
    path.write_text(yaml.safe_dump(content))
    assert command("--config", str(path), "--out", str(tmp_path / "out")) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped: 1 of 3 runs are finished; the same command continues"
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
        model: Tiny,
        image_size: tuple[int, int],
        folder: Path,
        images: Sequence[tuple[torch.Tensor, bool]],
        measure: MeasureSpec,
    ) -> dict[str, Any]:
        assert model.model.mean.abs().sum() > 0
        assert image_size == (SIDE, SIDE)
        assert [image.shape for image, _ in images] == [(3, SIDE, SIDE)] * 8
        assert all(0 <= image.min() < image.max() <= 1 for image, _ in images)
        assert {is_defective for _, is_defective in images} == {False, True}
        assert measure == MeasureSpec(precisions=("FP32",))
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


def test_maps_and_model_are_not_kept_if_switched_off(tmp_path: Path) -> None:
    measure = {"latency": False, "keep": {"maps": False, "model": False}}
    table = run(write_benchmark(tmp_path, [{}], [0], measure=measure), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out/runs" / table.key[0]).iterdir()}
    assert names == {"run.json", "images.csv", "split.csv"}


@pytest.mark.parametrize("task", [None, 0, 3])
def test_on_a_cpu_metrics_do_not_depend_on_the_task_number(done: Path, tmp_path: Path, task: int | None) -> None:
    path = done / "benchmark.yaml"
    runs = read_benchmark(path).runs
    job = BenchmarkRun(runs[0], ExecutionSettings(tmp_path, str(path), torch.get_num_threads()))
    (tmp_path / "runs").mkdir()
    torch.rand(5)
    job.run(task)
    (record,) = records(tmp_path).values()
    assert record["metrics"] == records(done / "out")[record["key"]]["metrics"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--jobs", "2"], "--jobs is for --runner process or ray"),
        (["--runner", "process", "--address", "auto"], "--address is for --runner ray"),
        (["--gpus-per-job", "1"], "--gpus-per-job is for --runner ray"),
    ],
)
def test_an_option_of_another_runner_is_rejected(words: list[str], line: str) -> None:
    with pytest.raises(InvalidInputError, match=line):
        command("--config", "any.yaml", *words)


def test_without_ray_the_message_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInputError, match=r"install it with pip install 'anomalib-defect-plugins\[ray\]'"):
        RayRunner(cast(BenchmarkRuns, None))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("localhost:1", "Connection refused"),
        ("ray://localhost:1", "Connection refused"),
        ("somewhere", "not HOST:PORT, ray://HOST:PORT or auto"),
        ("localhost:high", "not HOST:PORT"),
    ],
)
def test_a_missing_cluster_is_one_line_and_ray_does_not_look_for_it(
    tmp_path: Path, address: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="pip install 'anomalib-defect-plugins[ray]'")
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would retry for minutes"))
    words = ["--config", str(write_benchmark(tmp_path, [{}], [0])), "--out", str(tmp_path / "out")]
    line = rf"^there is no Ray cluster at {address} \(.*{reason}.*\); start one, correct --address, or leave it out$"
    with pytest.raises(InvalidInputError, match=line):
        command(*words, "--runner", "ray", "--address", address)


def test_a_connection_to_a_silent_host_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(address: tuple[str, int], timeout: float) -> None:
        assert (address, timeout) == (("::1", 6379), 10)
        msg = "timed out"
        raise TimeoutError(msg)

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(InvalidInputError, match=r"no Ray cluster at \[::1\]:6379 \(timed out\)"):
        ray_cluster.start_ray(ModuleType("ray"), "[::1]:6379")


def test_the_reason_names_the_signal_that_killed_a_process() -> None:
    assert exit_reason(-9).startswith("killed by signal 9 (SIGKILL), as the system does when memory runs out")
    assert exit_reason(-11) == "killed by signal 11 (SIGSEGV)"
    assert exit_reason(3) == "its process ended with status 3"
