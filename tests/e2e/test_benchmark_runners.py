"""Runs in processes and on Ray have the figures of runs one after the other."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_benchmark import write_benchmark

from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.benchmark.job import BenchmarkRuns, Setting
from anomalib_defect_plugins.benchmark.runners import BenchmarkRunner, ProcessRunner, RayRunner, SerialRunner

pytestmark = pytest.mark.slow

SEEDS = [0]


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let new processes find the tiny model; and take back the seeds that Lightning leaves in the environment."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "helpers"))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default, which other tests at the same time leave nothing
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two runs, the second of which kills its process unless one has been killed before."""
    return write_benchmark(tmp_path, [{}, {"rate": 0.2, "killed": str(tmp_path / "killed")}], SEEDS)


def run(kind: type[BenchmarkRunner], config: Path, out: str, again: bool = False, **options: Any) -> pd.DataFrame:
    setting = Setting(config.parent / out, str(config), torch.get_num_threads())
    return kind(BenchmarkRuns(read_benchmark(config), setting, retry_failed=again), **options).run()


def figures(config: Path, out: str) -> dict[str, dict[str, float]]:
    records = [json.loads(path.read_text()) for path in (config.parent / out).glob("runs/*/run.json")]
    return {record["key"]: record["figures"] for record in records if record["status"] == "done"}


def test_a_killed_process_is_a_failed_run_and_the_others_go_on(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = run(ProcessRunner, config, "process", jobs=2)
    assert list(table.status) == ["done", "failed"]
    assert table.error[1].startswith("killed by signal 9 (SIGKILL), as the system does when memory runs out")
    assert "killed by signal 9" in capfd.readouterr().err
    kept = figures(config, "process")
    run(SerialRunner, config, "process", again=True)
    assert figures(config, "process").items() >= kept.items()
    run(SerialRunner, config, "serial")
    assert len(figures(config, "serial")) == 2
    assert figures(config, "process") == figures(config, "serial")
    assert [path.name for path in (config.parent / "process/runs").iterdir() if path.name.startswith(".")] == []


def test_ray_starts_a_run_again_whose_worker_was_killed_and_the_figures_are_the_same(config: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'anomalib-defect-plugins[ray]'")
    table = run(RayRunner, config, "ray", jobs=2)
    assert list(table.status) == ["done", "done"]
    assert (config.parent / "killed").exists()
    run(SerialRunner, config, "serial")
    assert figures(config, "ray") == figures(config, "serial")
    assert [path.name for path in (config.parent / "ray/runs").iterdir() if path.name.startswith(".")] == []
