"""Computing the embedded results: one process, its progress, stopping and resuming."""

import os
import time
from pathlib import Path

import pytest
import yaml
from tiny_benchmark import write_benchmark

from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.demo.services.benchmark_process import CONFIGURATION, BenchmarkProcess, BenchmarkProgress

SMOKE = Path(__file__).parents[4] / "configs/benchmark/smoke.yaml"


def wait(process: BenchmarkProcess, *states: str, ended: int = 0) -> BenchmarkProgress:
    """Wait for one of the states and for ``ended`` runs."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        progress = process.progress()
        if progress.state in states and len(progress.ended) >= ended:
            return progress
        time.sleep(0.2)
    pytest.fail(f"{process.progress()}")


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the models of the tests and this package importable in the process."""
    folders = [
        str(Path(__file__).parents[3] / "helpers"),
        str(Path(__file__).parents[4]),
        os.environ.get("PYTHONPATH", ""),
    ]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))


def test_the_embedded_results_have_the_methods_of_the_smoke_benchmark_that_learn_within_a_minute() -> None:
    made, smoke = (read_benchmark(path) for path in (CONFIGURATION, SMOKE))
    assert {(run.model.name, run.supervision.name, run.data.name) for run in made.runs} < {
        (run.model.name, run.supervision.name, run.data.name) for run in smoke.runs
    }
    assert len(BenchmarkProcess(Path("nowhere")).progress().names) == len(made.runs) == 4


def test_before_the_start_there_is_no_process_and_nothing_is_written(tmp_path: Path) -> None:
    process = BenchmarkProcess(tmp_path / "out")
    process.stop()
    assert process.progress().state == "idle"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_progress_is_reported_and_a_stopped_process_keeps_finished_runs_and_is_resumed(tmp_path: Path) -> None:
    config = write_benchmark(tmp_path, [{}, {"seconds": 600}], [0])
    process = BenchmarkProcess(tmp_path / "out", config)
    assert process.progress().names == ["tiny 0", "tiny 1"]
    process.start()
    first = process.progress()
    assert (first.state, list(first.ended)) == ("running", [])
    popen = process._process
    process.start()  # another user
    assert process._process is popen
    ended = wait(process, "running", ended=1).ended
    assert [line.split(",")[0] for line in ended] == ["tiny 0"]
    process.stop()
    assert process.progress().state in {"stopping", "stopped"}
    assert len(wait(process, "stopped").ended) == 1
    assert len(list((tmp_path / "out/runs").glob("*/run.json"))) == 1
    content = yaml.safe_load(config.read_text())
    content["models"][1]["init_args"] = {"rate": 0.2}
    config.write_text(yaml.safe_dump(content))
    process.start()
    done = wait(process, "done", ended=1)
    assert len(list((tmp_path / "out/runs").glob("[!.]*/run.json"))) == 2
    assert process.progress().seconds == done.seconds > 0


@pytest.mark.slow
def test_a_failure_is_reported_in_one_line(tmp_path: Path) -> None:
    config = write_benchmark(tmp_path, [{}], [0], nonsense=True)
    process = BenchmarkProcess(tmp_path / "out", config)
    process.start()
    failed = wait(process, "failed")
    assert "has no key 'nonsense'" in failed.error
    assert "\n" not in failed.error
