"""Trainings on users' parts: a queue of benchmarks that runs one after another and survives the end of the server."""

import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from anomalib_defect_plugins.benchmark.progress_file import RunProgress
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import write_text
from anomalib_defect_plugins.demo.services.benchmark_process import BenchmarkProcess

JOBS = ".jobs"
"""Subfolder of the results for the jobs; hidden, since it holds no results."""

MAX_WAITING = 8
"""Maximum number of unfinished jobs."""

POLL_INTERVAL_S = 0.5
"""Interval at which the end of a training is noticed."""

IN_USE = "is in use by another benchmark"
"""Part of the error if the process of a server that was killed still trains."""

UNFINISHED = {"waiting", "running"}


@dataclass(frozen=True)
class Job:
    """A training, as its file describes it.

    Args:
        key: Random key, the name of its file.
        name: Name of the model and of its results folder.
        owner: Token of the user.
        state: ``waiting``, ``running``, ``done``, ``stopped`` or ``failed``.
        created: Time of submission, in seconds since 1970.
        seconds: Time that it has taken.
        error: Reason of a failure.
    """

    key: str
    name: str
    owner: str
    state: str
    created: float
    seconds: float = 0
    error: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state not in UNFINISHED


@dataclass(frozen=True)
class JobStatus:
    """A training for display.

    Args:
        job: The training.
        ahead: Number of unfinished trainings before it.
        run: Progress of the run, if it is running.
        seconds: Time that it has taken.
    """

    job: Job
    ahead: int = 0
    run: RunProgress | None = None
    seconds: float = 0


class TrainingJobs:
    """The trainings of all users. Those that a server has not finished are continued by the next one.

    Args:
        root: Results folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / JOBS
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._process: BenchmarkProcess | None = None
        self._running = ""
        self._jobs = {job.key: job for path in sorted(self.folder.glob("*.json")) if (job := _read(path)) is not None}
        for job in self._jobs.values():
            if job.state == "running":
                self._jobs[job.key] = replace(job, state="waiting")
        self._start_worker()

    def submit(self, name: str, owner: str, configuration: str) -> Job:
        """Queue a training.

        Args:
            name: Name of the model and of its results folder.
            owner: Token of the user.
            configuration: Configuration of the benchmark.

        Raises:
            InvalidInputError: If too many trainings are waiting, or the folder is not writable.
        """
        with self._lock:
            if sum(not job.is_over for job in self._jobs.values()) >= MAX_WAITING:
                msg = f"{MAX_WAITING} trainings are waiting already; come back in some minutes"
                raise InvalidInputError(msg)
            job = Job(secrets.token_hex(8), name, owner, "waiting", time.time())
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text(self._configuration(job), configuration)
            except OSError as error:
                msg = f"cannot write to the results ({error.strerror}); make the folder writable, or free space"
                raise InvalidInputError(msg) from error
            self._put(job)
        self._start_worker()
        return job

    def stop(self, key: str, owner: str) -> None:
        """Stop a training of a user; those of others are left alone."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.owner != owner or job.is_over:
                return
            self._put(replace(job, state="stopped"))
            process = self._process if self._running == key else None
        if process is not None:
            process.stop()

    def latest(self, owner: str) -> JobStatus | None:
        """Return the latest training of a user, by which a page that is loaded again finds it."""
        with self._lock:
            jobs = list(self._jobs.values())
            running, process = self._running, self._process
        own = [job for job in jobs if owner and job.owner == owner]
        if not own:
            return None
        job = max(own, key=lambda job: job.created)
        ahead = sum(not other.is_over and other.created < job.created for other in jobs)
        if job.state != "running" or job.key != running or process is None:
            return JobStatus(job, ahead, seconds=job.seconds)
        progress = process.progress()
        return JobStatus(job, ahead, progress.run, progress.seconds)

    def close(self) -> None:
        """Stop the process of the running training; the next server continues it."""
        with self._lock:
            process, self._process, self._worker = self._process, None, None
        if process is not None:
            process.close()

    def _configuration(self, job: Job) -> Path:
        return self.folder / f"{job.key}.yaml"

    def _put(self, job: Job) -> None:
        self._jobs[job.key] = job
        write_text(self.folder / f"{job.key}.json", json.dumps(asdict(job), indent=1) + "\n")

    def _start_worker(self) -> None:
        with self._lock:
            if self._worker is None and any(not job.is_over for job in self._jobs.values()):
                # A daemon, so that the server can stop during a training.
                self._worker = threading.Thread(target=self._work, name="training-jobs", daemon=True)
                self._worker.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                waiting = sorted((job for job in self._jobs.values() if not job.is_over), key=lambda job: job.created)
                if not waiting or self._worker is not threading.current_thread():
                    if self._worker is threading.current_thread():
                        self._worker = None
                    return
                job = replace(waiting[0], state="running")
                self._put(job)
                self._running = job.key
                process = self._process = BenchmarkProcess(self.root / job.name, self._configuration(job))
            if not self._run(job, process):
                return

    def _run(self, job: Job, process: BenchmarkProcess) -> bool:
        """Run a training, and return whether the server goes on; its file stays as it is if the server ends."""
        process.start(job.owner)
        while process.progress().state in {"running", "stopping"}:
            time.sleep(POLL_INTERVAL_S)
        progress = process.progress()
        with self._lock:
            is_ended_by_server = progress.state == "stopped" and self._jobs[job.key].state == "running"
            if self._process is not process or is_ended_by_server:
                return False
            state, error = ("failed", progress.error) if progress.state == "failed" else (progress.state, "")
            if IN_USE in error:
                state, error = "waiting", ""
            self._put(replace(job, state=state, seconds=progress.seconds, error=error))
            self._running, self._process = "", None
        return True


def _read(path: Path) -> Job | None:
    try:
        content: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
        return Job(**content)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError):
        return None
