"""A benchmark that is told to end does so within a batch, in every phase: finished runs stay, nothing else does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_benchmark import write_benchmark

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-W", "ignore", "-m", "anomalib_defect_plugins.cli", "benchmark"]


@pytest.mark.parametrize(
    ("holds", "runner", "signals", "status"),
    [
        pytest.param("training_step", "process", [signal.SIGTERM], 143, marks=pytest.mark.long),
        ("test_step", "serial", [signal.SIGTERM, signal.SIGTERM], 143),
    ],
)
def test_a_benchmark_ends_when_told(tmp_path: Path, holds: str, runner: str, signals: list[int], status: int) -> None:
    config = write_benchmark(tmp_path, [{}, {"holds": holds}], [0])
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers"), "OMP_NUM_THREADS": "1"}
    words = [*COMMAND, "--config", config.name, "--out", "out", "--runner", runner, "--threads", "1"]
    with subprocess.Popen(
        words, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not (tmp_path / "held").exists():
            assert process.poll() is None
            time.sleep(0.05)
        for number in signals:
            os.killpg(process.pid, number)
            time.sleep(0.1)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == status
    assert messages.splitlines()[-1] == "stopped: 1 of 2 runs are finished; the same command continues"
    assert "Traceback" not in messages
    assert not members(process.pid)
    (run,) = (tmp_path / "out/runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"benchmark.yaml", "results.csv", "runs", ".lock"}


def members(group: int) -> list[int]:
    """Return the processes of a group that are left, except those that have ended and were not waited for."""
    found = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in found.splitlines())
    return [int(pid) for pid, pgid, state in rows if int(pgid) == group and not state.startswith("Z")]
