"""Runs the missing runs of a benchmark: one after the other, in processes, or on a Ray cluster.

All runners leave the same figures, for a run is told everything that these depend on: its seed and its threads too.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

import pandas as pd
import torch
from anomalib.pipelines.components.base import Runner
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from anomalib_defect_plugins.benchmark.job import BenchmarkRun, BenchmarkRuns
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.ray_cluster import import_ray, start_ray
from anomalib_defect_plugins.results.folder import Row, make_row

SHOWN = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_AUPRO", "pixel_IoU")
"""Figures in the line of a run that is done."""

AT_ONCE = 16
"""Runs that are shown while they go on; a cluster may have hundreds."""

RETRIES = 3
"""How often Ray starts a run again whose worker was killed."""


class BenchmarkRunner(Runner):
    """Base of the runners.

    Args:
        generator: Gives the runs that are missing.
    """

    generator: BenchmarkRuns

    def run(self, args: dict | None = None, prev_stage_results: Any = None) -> pd.DataFrame:
        """Make the runs that are missing; each is kept when it ends, and the table is written anew.

        Args:
            args: Not looked at.
            prev_stage_results: Not looked at.

        Returns:
            The table of all runs that are there.

        Raises:
            InvalidInputError: The folder is in use or cannot be written to; the runner cannot be had.
            KeyboardInterrupt: The user has stopped it. What is finished is kept.
        """
        results, runs = self.generator.results, self.generator.runs
        with results.in_use(), contextlib.closing(Lines(len(runs))) as lines:
            results.write_configuration(self.generator.benchmark.text)
            jobs = list(self.generator(args or {}, prev_stage_results))
            rows = results.write_table(runs)
            lines.done = len({row["key"] for row in rows} - {job.benchmark_run.key for job in jobs})
            with contextlib.closing(self._rows(jobs, lines) if jobs else _nothing()) as made:
                for row in made:
                    rows = results.write_table(runs)
                    lines.end(row)
        table = self.generator.job_class.collect(rows)
        self.generator.job_class.save(table)
        return table

    @abstractmethod
    def _rows(self, jobs: Sequence[BenchmarkRun], lines: "Lines") -> Iterator[Row]:
        """Make the runs, and give the row of each as soon as it has ended; tell ``lines`` when one begins."""


def _nothing() -> Iterator[Row]:
    yield from ()


class SerialRunner(BenchmarkRunner):
    """One run after the other, in this process."""

    def _rows(self, jobs: Sequence[BenchmarkRun], lines: "Lines") -> Iterator[Row]:
        gc.freeze()  # what is imported stays, and need not be looked through after each run
        try:
            for job in jobs:
                lines.begin(job)
                yield job.run()
                gc.collect()  # tensors of a run that failed hang on its traceback
        finally:
            gc.unfreeze()


class ProcessRunner(BenchmarkRunner):
    """Several runs at a time, each in a new process. A process that is killed is a failed run; the others go on.

    Args:
        generator: Gives the runs that are missing.
        jobs: How many at a time. They take turns with the GPUs; by default one a GPU, or one if there is none.
    """

    def __init__(self, generator: BenchmarkRuns, jobs: int | None = None) -> None:
        super().__init__(generator)
        self.jobs = jobs or torch.cuda.device_count() or 1

    def _rows(self, jobs: Sequence[BenchmarkRun], lines: "Lines") -> Iterator[Row]:
        context = multiprocessing.get_context("spawn")
        waiting, running = deque(jobs), {}
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    job, slot = waiting.popleft(), min(set(range(self.jobs)) - {it[2] for it in running.values()})
                    process = context.Process(target=_work, args=(job, slot))
                    before = job.results.stamp(job.benchmark_run.key)
                    process.start()
                    lines.begin(job)
                    running[process.sentinel] = process, job, slot, before
                for sentinel in wait(list(running)):
                    process, job, _, before = running.pop(sentinel)
                    process.join()
                    yield _outcome(job, process.exitcode, before)
        finally:
            for process, *_ in running.values():
                process.kill()  # nothing half done is ever taken for a run
                process.join()


def _work(job: BenchmarkRun, slot: int) -> None:
    """Make a run in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job.run(slot)


def _end_with_parent() -> None:
    """A run whose benchmark was killed must not go on beside the one that is started next."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _outcome(job: BenchmarkRun, exit_code: int, before: int | None) -> Row:
    """Give the row of a process that has ended; it failed unless it has left another record than was there before."""
    results, run = job.results, job.benchmark_run
    if exit_code and results.stamp(run.key) == before:
        results.clean(run.key)
        return make_row(job.fail(_reason(exit_code)), run)
    return make_row(results.read(run.key), run)


def _reason(exit_code: int) -> str:
    if exit_code > 0:
        return f"its process ended with status {exit_code}"
    reason = f"killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    if -exit_code == signal.SIGKILL:
        reason += ", as the system does when memory runs out: take smaller batches, or fewer --jobs"
    return reason


class RayRunner(BenchmarkRunner):
    """Runs on a Ray cluster, or on this host's Ray. A run whose worker is killed is started again.

    The results folder must be one that all hosts see under the same path.

    Args:
        generator: Gives the runs that are missing.
        address: Of the cluster; by default Ray is started on this host.
        jobs: How many runs at a time at most; by default as many as there are processors and GPUs for.
        gpus: GPUs of a run, or a share of one; by default one if the cluster has any and the trainer may use it.
        retries: How often a run whose worker was killed is started again.
    """

    def __init__(
        self,
        generator: BenchmarkRuns,
        address: str | None = None,
        jobs: int | None = None,
        gpus: float | None = None,
        retries: int = RETRIES,
    ) -> None:
        super().__init__(generator)
        self.address = address
        self.jobs = jobs
        self.gpus = gpus
        self.retries = retries
        self.ray = import_ray()

    def _rows(self, jobs: Sequence[BenchmarkRun], lines: "Lines") -> Iterator[Row]:
        self._connect()
        try:
            needed = {"num_cpus": self.generator.setting.threads, "num_gpus": self._gpus(jobs)}
            self._check(needed)
            task = self.ray.remote(max_retries=self.retries, **needed)(_make)
            waiting, running = deque(jobs), {}
            while waiting or running:
                while waiting and len(running) < (self.jobs or len(jobs)):
                    job = waiting.popleft()
                    running[task.remote(job)] = job
                    lines.begin(job)
                for reference in self.ray.wait(list(running))[0]:
                    yield self._outcome(running.pop(reference), reference)
        finally:
            self.ray.shutdown()

    def _connect(self) -> None:
        threads = self.generator.setting.threads
        # Threads of other libraries than PyTorch: Ray would set one, and sums may depend on it.
        options: dict[str, Any] = {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}}}
        if self.address is None:
            at_a_time = self.jobs or max(1, (os.cpu_count() or 1) // threads)
            options |= {"num_cpus": threads * at_a_time, "include_dashboard": False}
        start_ray(self.ray, self.address, **options)

    def _gpus(self, jobs: Sequence[BenchmarkRun]) -> float:
        if self.gpus is not None:
            return self.gpus
        wanted = any(job.benchmark_run.trainer.get("accelerator", "auto") in {"auto", "cuda", "gpu"} for job in jobs)
        return 1 if wanted and self.ray.cluster_resources().get("GPU") else 0

    def _check(self, needed: dict[str, float]) -> None:
        """Refuse what no host could ever run, for Ray would wait for one."""
        hosts = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        cpus, gpus = needed["num_cpus"], needed["num_gpus"]
        if not any(host.get("CPU", 0) >= cpus and host.get("GPU", 0) >= gpus for host in hosts):
            msg = f"no host of the cluster has {cpus} processors and {gpus:g} GPUs; lower --threads or --gpus-per-job"
            raise InvalidInputError(msg)

    def _outcome(self, job: BenchmarkRun, reference: Any) -> Row:
        try:
            row = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            return make_row(job.fail(reason), job.benchmark_run)
        if job.results.read(row["key"]) is None:
            msg = f"the run went to {job.setting.root} of another host; give a folder that all hosts see (--out)"
            raise InvalidInputError(msg)
        return row


def _make(job: BenchmarkRun) -> Row:
    return job.run()


class Lines:
    """What is shown on standard error: a line for each run that has ended and, on a terminal, those that go on.

    Args:
        total: How many runs there are.

    Attributes:
        done: How many of them are there.
    """

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, tuple[BenchmarkRun, TaskID]] = {}
        self.total, self.done = total, 0
        self._progress.start()

    def begin(self, job: BenchmarkRun) -> None:
        """Show that a run has begun."""
        run = job.benchmark_run
        shown = len(self._tasks) < AT_ONCE
        self._tasks[run.key] = job, self._progress.add_task(run.label, total=None, visible=shown)

    def end(self, row: Row) -> None:
        """Show what came out of a run."""
        job, task = self._tasks.pop(row["key"])
        seconds = self._progress.tasks[self._progress.task_ids.index(task)].elapsed or 0
        self._progress.remove_task(task)
        self.done += 1
        line = f"{self.done} of {self.total}: {job.benchmark_run.label}: {_summary(row)}, {seconds:.0f} s"
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Show no more."""
        self._progress.stop()


def _summary(row: Row) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    return ", ".join(f"{name} {row[name]:.3f}" for name in SHOWN if name in row) or "done"
