"""Trainings on parts: one after another, stopped by their owner only, and continued by the next server."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.services import training_jobs
from anomalib_defect_plugins.demo.services.training_jobs import MAX_WAITING, JobStatus, TrainingJobs


class FakeProcess:
    """A benchmark that runs until a test ends it."""

    all: ClassVar[list["FakeProcess"]] = []

    def __init__(self, out: Path, configuration: Path) -> None:
        self.out, self.text, self.state, self.error = out, configuration.read_text(), "idle", ""
        self.all.append(self)

    def start(self, owner: str) -> None:
        self.owner, self.state = owner, "running"

    def stop(self) -> None:
        self.state = "stopped"

    close = stop

    def progress(self) -> Any:
        return SimpleNamespace(state=self.state, error=self.error, seconds=3.0, run=None)


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeProcess.all = []
    monkeypatch.setattr(training_jobs, "BenchmarkProcess", FakeProcess)
    monkeypatch.setattr(training_jobs, "POLL_INTERVAL_S", 0.01)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "timeout"
        time.sleep(0.01)


def state(jobs: TrainingJobs, owner: str) -> str:
    status = jobs.latest(owner)
    assert isinstance(status, JobStatus)
    return status.job.state


def test_trainings_of_two_users_run_one_after_another_and_are_not_mixed(tmp_path: Path) -> None:
    jobs = TrainingJobs(tmp_path)
    jobs.submit("first", "ada", "a: 1")
    wait_for(lambda: state(jobs, "ada") == "running")
    jobs.submit("second", "bob", "b: 2")
    status = jobs.latest("bob")
    assert status is not None
    assert (status.job.state, status.ahead) == ("waiting", 1)
    assert jobs.latest("eve") is None
    assert jobs.latest("") is None
    FakeProcess.all[0].state = "done"
    wait_for(lambda: state(jobs, "bob") == "running")
    assert state(jobs, "ada") == "done"
    assert [(process.out.name, process.text, process.owner) for process in FakeProcess.all] == [
        ("first", "a: 1", "ada"),
        ("second", "b: 2", "bob"),
    ]
    FakeProcess.all[1].state, FakeProcess.all[1].error = "failed", "error: no space"
    wait_for(lambda: state(jobs, "bob") == "failed")
    failed = jobs.latest("bob")
    assert failed is not None
    assert failed.job.error == "error: no space"


def test_only_the_owner_stops_a_training(tmp_path: Path) -> None:
    jobs = TrainingJobs(tmp_path)
    job = jobs.submit("mine", "ada", "")
    wait_for(lambda: state(jobs, "ada") == "running")
    jobs.stop(job.key, "eve")
    jobs.stop("unknown", "ada")
    assert state(jobs, "ada") == "running"
    jobs.stop(job.key, "ada")
    wait_for(lambda: FakeProcess.all[0].state == "stopped")
    assert state(jobs, "ada") == "stopped"


def test_the_next_server_continues_what_was_not_finished(tmp_path: Path) -> None:
    jobs = TrainingJobs(tmp_path)
    jobs.submit("first", "ada", "")
    jobs.submit("second", "bob", "")
    wait_for(lambda: state(jobs, "ada") == "running")
    jobs.close()
    (tmp_path / training_jobs.JOBS / "damaged.json").write_text("{")
    following = TrainingJobs(tmp_path)
    wait_for(lambda: state(following, "ada") == "running")
    assert state(following, "bob") == "waiting"
    assert FakeProcess.all[-1].out.name == "first"
    following.close()


def test_a_training_waits_until_the_process_of_a_killed_server_has_ended(tmp_path: Path) -> None:
    jobs = TrainingJobs(tmp_path)
    jobs.submit("mine", "ada", "")
    wait_for(lambda: state(jobs, "ada") == "running")
    FakeProcess.all[0].error = "error: mine is in use by another benchmark; wait for it"
    FakeProcess.all[0].state = "failed"
    wait_for(lambda: len(FakeProcess.all) == 2 and state(jobs, "ada") == "running")
    FakeProcess.all[1].state = "done"
    wait_for(lambda: state(jobs, "ada") == "done")


def test_too_many_trainings_are_refused(tmp_path: Path) -> None:
    jobs = TrainingJobs(tmp_path)
    for number in range(MAX_WAITING):
        jobs.submit(f"m{number}", "ada", "")
    with pytest.raises(InvalidInputError, match="8 trainings are waiting already"):
        jobs.submit("more", "ada", "")
    jobs.close()


def test_a_training_that_ends_with_the_server_is_not_recorded_as_stopped(tmp_path: Path) -> None:
    jobs = TrainingJobs(tmp_path)
    job = jobs.submit("mine", "ada", "")
    wait_for(lambda: state(jobs, "ada") == "running")
    worker = jobs._worker
    assert worker is not None
    FakeProcess.all[0].close()
    worker.join(60)
    assert json.loads((tmp_path / training_jobs.JOBS / f"{job.key}.json").read_text())["state"] == "running"
