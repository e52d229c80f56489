"""Runs in processes and on Ray have the same metrics as runs one after the other."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_benchmark import write_benchmark

from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.benchmark.job import BenchmarkRuns, ExecutionSettings
from anomalib_defect_plugins.benchmark.runners import BenchmarkRunner, ProcessRunner, RayRunner, SerialRunner

pytestmark = pytest.mark.slow

SEEDS = [0]


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let new processes import the tiny model, and restore the seeds that Lightning sets in the environment."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "helpers"))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default, which starves beside parallel tests
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two runs, the second of which kills its process unless one has been killed before."""
    return write_benchmark(tmp_path, [{}, {"rate": 0.2, "killed": str(tmp_path / "killed")}], SEEDS)


def run(kind: type[BenchmarkRunner], config: Path, out: str, again: bool = False, **options: Any) -> pd.DataFrame:
    settings = ExecutionSettings(config.parent / out, str(config), torch.get_num_threads())
    return kind(BenchmarkRuns(read_benchmark(config), settings, retry_failed=again), **options).run()


def metrics(config: Path, out: str) -> dict[str, dict[str, float]]:
    records = [json.loads(path.read_text()) for path in (config.parent / out).glob("runs/*/run.json")]
    return {record["key"]: record["metrics"] for record in records if record["status"] == "done"}


def test_a_killed_process_is_a_failed_run_and_the_others_continue(
    config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = run(ProcessRunner, config, "process", jobs=2)
    assert list(table.status) == ["done", "failed"]
    assert table.error[1].startswith("killed by signal 9 (SIGKILL), as the system does when memory runs out")
    assert "killed by signal 9" in capfd.readouterr().err
    kept = metrics(config, "process")
    run(SerialRunner, config, "process", again=True)
    assert metrics(config, "process").items() >= kept.items()
    run(SerialRunner, config, "serial")
    assert len(metrics(config, "serial")) == 2
    assert metrics(config, "process") == metrics(config, "serial")
    assert [path.name for path in (config.parent / "process/runs").iterdir() if path.name.startswith(".")] == []


def test_ray_restarts_a_run_whose_worker_was_killed_and_the_metrics_are_the_same(config: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'anomalib-defect-plugins[ray]'")
    table = run(RayRunner, config, "ray", jobs=2)
    assert list(table.status) == ["done", "done"]
    assert (config.parent / "killed").exists()
    run(SerialRunner, config, "serial")
    assert metrics(config, "ray") == metrics(config, "serial")
    assert [path.name for path in (config.parent / "ray/runs").iterdir() if path.name.startswith(".")] == []
