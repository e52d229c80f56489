"""A benchmark that is killed repeatedly ends like one that never was.

Run as a program, this file does the killing: ``test_benchmark_killed.py CONFIG OUT KILLS``. It imports everything once
and forks the benchmarks, so that kills interrupt runs and not imports.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

KILLS = 10
RUNS = 8


def fork(config: Path, out: Path) -> int:
    """Start the benchmark in a new process, and return its id."""
    from anomalib_defect_plugins.benchmark.configuration import read_benchmark
    from anomalib_defect_plugins.benchmark.job import BenchmarkRuns, ExecutionSettings
    from anomalib_defect_plugins.benchmark.runners import SerialRunner

    child = os.fork()
    if not child:
        SerialRunner(BenchmarkRuns(read_benchmark(config), ExecutionSettings(out, str(config), 1))).run()
        os._exit(0)
    return child


def finished(out: Path) -> dict[str, list[int]]:
    """Return inode and time stamp of every finished run, which differ if it is written again."""
    stats = {path.parent.name: path.stat() for path in out.glob("runs/[!.]*/run.json")}
    return {key: [stat.st_ino, stat.st_mtime_ns] for key, stat in stats.items()}


def kill(config: Path, out: Path, kills: int) -> None:
    """Run the benchmark to its end in ``whole``; kill it at random moments in ``killed`` before it may end."""
    import anomalib_defect_plugins.benchmark.runners  # noqa: F401 - imported once for all forks

    start = time.monotonic()
    os.waitpid(fork(config, out / "whole"), 0)
    run_seconds = (time.monotonic() - start) / RUNS
    rng = random.Random(1)
    seen: list[dict[str, list[int]]] = []
    for number in range(kills):
        before = len(finished(out / "killed"))
        child = fork(config, out / "killed")
        # Counted from the start of a run, because start-up time depends on the machine; every fourth run may end first.
        while not list((out / "killed").glob("runs/.*.partial")) or (
            number % 4 == 3 and len(finished(out / "killed")) == before
        ):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.8 * run_seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.append(finished(out / "killed"))
    os.waitpid(fork(config, out / "killed"), 0)
    seen.append(finished(out / "killed"))
    print(json.dumps(seen))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``whole``, ``killed``, and ``seen.json``: the finished runs after each kill and at the end."""
    from tiny_benchmark import write_benchmark

    folder = tmp_path_factory.mktemp("killed")
    config = write_benchmark(folder, [{}, {"rate": 0.2}], list(range(RUNS // 2)))
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", __file__, str(config), str(folder), str(KILLS)]
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    (folder / "seen.json").write_text(done.stdout.splitlines()[-1])
    return folder


def test_a_benchmark_killed_ten_times_ends_with_the_metrics_of_an_undisturbed_one(folder: Path) -> None:
    tables = []
    for name in ("whole", "killed"):
        rows = list(csv.DictReader((folder / name / "results.csv").open()))
        varying = {"train_seconds", "test_seconds", "peak_host_bytes"}
        tables.append([{column: value for column, value in row.items() if column not in varying} for row in rows])
    assert len(tables[0]) == RUNS
    assert {row["status"] for row in tables[0]} == {"done"}
    assert tables[0] == tables[1]


def test_maps_and_masks_of_a_killed_benchmark_are_those_of_an_undisturbed_one(folder: Path) -> None:
    images = [
        {path.relative_to(folder / name): path.read_bytes() for path in (folder / name).glob("runs/*/ma*/*.png")}
        for name in ("whole", "killed")
    ]
    assert len(images[0]) == RUNS * (8 + 4)
    assert images[0] == images[1]


def test_no_finished_run_is_repeated(folder: Path) -> None:
    seen = json.loads((folder / "seen.json").read_text())
    for before, after in pairwise(seen):
        assert before.items() <= after.items()
    assert len(seen[-1]) == RUNS
    assert 0 < len(seen[KILLS - 1]) < RUNS, "the kills came too early or too late to prove anything"


def test_no_incomplete_run_is_left(folder: Path) -> None:
    assert [path.name for path in (folder / "killed/runs").iterdir() if path.name.startswith(".")] == []


if __name__ == "__main__":
    kill(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
