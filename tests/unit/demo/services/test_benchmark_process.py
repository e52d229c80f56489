"""Making results from the demo: in a process of its own, once at a time, and it stops when it is told to."""

import os
import time
from pathlib import Path

import pytest
import yaml
from tiny_benchmark import write_benchmark

from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.demo.services.benchmark_process import CONFIGURATION, Maker, Progress

SMOKE = Path(__file__).parents[4] / "configs/benchmark/smoke.yaml"


def wait(maker: Maker, *states: str, ended: int = 0) -> Progress:
    """Wait until the making is in one of the states, and so many runs have ended."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        progress = maker.progress()
        if progress.state in states and len(progress.ended) >= ended:
            return progress
        time.sleep(0.2)
    pytest.fail(f"{maker.progress()}")


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process must find the models of the tests, and this package wherever it is."""
    folders = [
        str(Path(__file__).parents[3] / "helpers"),
        str(Path(__file__).parents[4]),
        os.environ.get("PYTHONPATH", ""),
    ]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))


def test_the_embedded_results_are_of_the_same_methods_as_the_smoke_benchmark() -> None:
    made, smoke = (read_benchmark(path) for path in (CONFIGURATION, SMOKE))
    assert {(run.model.name, run.supervision.name, run.data.name) for run in made.runs} == {
        (run.model.name, run.supervision.name, run.data.name) for run in smoke.runs
    }
    assert len(Maker(Path("nowhere")).progress().names) == len(made.runs) == 7


def test_before_it_begins_there_is_no_process_and_nothing_is_written(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "out")
    maker.stop()
    assert maker.progress().state == "idle"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_makes_all_runs_and_says_how_far_it_is(tmp_path: Path) -> None:
    maker = Maker(tmp_path / "out", write_benchmark(tmp_path, [{}, {"seconds": 1}], [0]))
    assert maker.progress().names == ["tiny 0", "tiny 1"]
    maker.start()
    first = maker.progress()
    assert (first.state, list(first.ended)) == ("running", [])
    process = maker._process
    maker.start()  # someone else asks for the same
    assert maker._process is process
    assert len(wait(maker, "running", ended=1).ended) == 1
    done = wait(maker, "done")
    assert [line.split(",")[0] for line in done.ended] == ["tiny 0", "tiny 1"]
    assert len(list((tmp_path / "out/runs").glob("[!.]*/run.json"))) == 2
    assert maker.progress().seconds == done.seconds > 0


@pytest.mark.slow
def test_stopped_it_keeps_what_is_done_and_goes_on_with_the_rest(tmp_path: Path) -> None:
    config = write_benchmark(tmp_path, [{}, {"seconds": 600}], [0])
    maker = Maker(tmp_path / "out", config)
    maker.start()
    wait(maker, "running", ended=1)
    maker.stop()
    assert maker.progress().state in {"stopping", "stopped"}
    assert len(wait(maker, "stopped").ended) == 1
    assert len(list((tmp_path / "out/runs").glob("*/run.json"))) == 1
    content = yaml.safe_load(config.read_text())
    content["models"][1]["init_args"] = {"rate": 0.2}
    config.write_text(yaml.safe_dump(content))
    maker.start()
    wait(maker, "done", ended=1)
    assert len(list((tmp_path / "out/runs").glob("*/run.json"))) == 2


@pytest.mark.slow
def test_what_cannot_be_made_says_why_in_one_line(tmp_path: Path) -> None:
    config = write_benchmark(tmp_path, [{}], [0], nonsense=True)
    maker = Maker(tmp_path / "out", config)
    maker.start()
    failed = wait(maker, "failed")
    assert "has no key 'nonsense'" in failed.error
    assert "\n" not in failed.error
