"""Runners of a benchmark: its missing runs one after the other, in processes, or on a Ray cluster.

The metrics do not depend on the runner, because a run gets everything that they depend on, seed and threads included.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Generator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, cast

import pandas as pd
import torch
from anomalib.pipelines.components.base import Runner
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from anomalib_defect_plugins.benchmark.job import BenchmarkRun, BenchmarkRuns
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.ray_cluster import import_ray, start_ray
from anomalib_defect_plugins.core.stop_signals import TERMINATED, handle_stop_signals, keep_handler
from anomalib_defect_plugins.results.folder import ResultRow, make_row

SUMMARY_METRICS = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_AUPRO", "pixel_IoU")
"""Metrics in the progress line of a finished run."""

MAX_DISPLAYED_RUNS = 16
"""Maximum runs displayed while in progress; a cluster may have hundreds."""

END_TIMEOUT_S = 5.0
"""Time for the processes of a stopped benchmark to clean up."""

MAX_RETRIES = 3
"""How often Ray restarts a run whose worker was killed."""

GPU_ACCELERATORS = {"auto", "cuda", "gpu"}
"""Values of Lightning's ``accelerator`` that may use a GPU."""


class BenchmarkRunner(Runner):
    """Base class of the runners.

    Args:
        generator: Generator of the missing runs.
    """

    generator: BenchmarkRuns

    def run(self, args: dict[str, Any] | None = None, prev_stage_results: Any = None) -> pd.DataFrame:
        """Execute the missing runs. Each is kept when it ends, and the table is updated.

        Args:
            args: Unused.
            prev_stage_results: Unused.

        Returns:
            Table of all runs that have ended.

        Raises:
            InvalidInputError: If the results folder is in use or not writable, or the runner is not available.
            KeyboardInterrupt: If the user stops the benchmark; ended runs are kept.
            Terminated: If SIGTERM stops it; ended runs are kept.
        """
        results, runs = self.generator.results, self.generator.runs
        with results.lock(), contextlib.closing(ProgressDisplay(len(runs))) as display:
            results.write_configuration(self.generator.benchmark.text)
            jobs = list(self.generator.generate_jobs(args, prev_stage_results))
            rows = results.write_table(runs)
            display.done = len({row["key"] for row in rows} - {job.benchmark_run.key for job in jobs})
            if jobs:
                with contextlib.closing(self._execute(jobs, display)) as new_rows:
                    for row in new_rows:
                        rows = results.write_table(runs)
                        display.end(row)
        table = self.generator.job_class.collect(rows)
        self.generator.job_class.save(table)
        return table

    @abstractmethod
    def _execute(self, jobs: Sequence[BenchmarkRun], display: "ProgressDisplay") -> Generator[ResultRow, None, None]:
        """Execute runs, yield the row of each when it ends, and call ``display.begin`` when one begins."""


class SerialRunner(BenchmarkRunner):
    """Executes one run after the other in this process."""

    def _execute(self, jobs: Sequence[BenchmarkRun], display: "ProgressDisplay") -> Generator[ResultRow, None, None]:
        gc.freeze()  # keeps the collections below from traversing imported modules
        try:
            for job in jobs:
                display.begin(job)
                yield job.run()
                gc.collect()  # the traceback of a failed run keeps its tensors alive
        finally:
            gc.unfreeze()


class _RunProcess(NamedTuple):
    """A run in a process.

    Args:
        process: The process.
        job: The run.
        slot: Index among the parallel processes.
        modified_ns: Time stamp of an earlier result of the run, if there is one.
    """

    process: BaseProcess
    job: BenchmarkRun
    slot: int
    modified_ns: int | None


class ProcessRunner(BenchmarkRunner):
    """Executes several runs at a time, each in a new process. A killed process is a failed run; the others continue.

    Args:
        generator: Generator of the missing runs.
        jobs: Number of parallel runs, which are distributed over the GPUs; by default one per GPU, or one.
    """

    def __init__(self, generator: BenchmarkRuns, jobs: int | None = None) -> None:
        super().__init__(generator)
        self.jobs = jobs or torch.cuda.device_count() or 1

    def _execute(self, jobs: Sequence[BenchmarkRun], display: "ProgressDisplay") -> Generator[ResultRow, None, None]:
        waiting = deque(jobs)
        running: dict[int, _RunProcess] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    free_slots = set(range(self.jobs)) - {run.slot for run in running.values()}
                    run = _start_process(waiting.popleft(), min(free_slots))
                    running[run.process.sentinel] = run
                    display.begin(run.job)
                for sentinel in cast(list[int], wait(list(running))):
                    run = running.pop(sentinel)
                    run.process.join()
                    if run.process.exitcode in {TERMINATED, -signal.SIGTERM}:
                        time.sleep(1)  # for this process to receive a signal that was sent to both
                    yield process_row(run.job, run.process.exitcode or 0, run.modified_ns)
        finally:
            _end([run.process for run in running.values()])


def _end(processes: Sequence[BaseProcess]) -> None:
    """End processes and their children; an incomplete run is never mistaken for a finished one."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + END_TIMEOUT_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


def _start_process(job: BenchmarkRun, slot: int) -> _RunProcess:
    process = multiprocessing.get_context("spawn").Process(target=_run_in_process, args=(job, slot))
    modified_ns = job.results.modified_ns(job.benchmark_run.key)
    process.start()
    return _RunProcess(process, job, slot, modified_ns)


def _run_in_process(job: BenchmarkRun, slot: int) -> None:
    handle_stop_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too, and ends this process
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    job.run(slot)


def _exit_with_parent() -> None:
    """End this process with its parent, so that it does not run beside a restarted benchmark."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def process_row(job: BenchmarkRun, exit_code: int, modified_ns: int | None) -> ResultRow:
    """Return the row of a run whose process has ended; without a new result, the run has failed.

    Args:
        job: The run.
        exit_code: Exit code of the process, or minus the signal that killed it.
        modified_ns: Time stamp of the run's result before the process was started; ``None`` without one.
    """
    results, run = job.results, job.benchmark_run
    is_lost = exit_code and results.modified_ns(run.key) == modified_ns
    record = None if is_lost else results.read(run.key)
    if record is None:
        results.remove_partial(run.key)
        record = job.fail(exit_reason(exit_code))
    return make_row(record, run)


def exit_reason(exit_code: int) -> str:
    """Return why a process ended, in one line.

    Args:
        exit_code: Exit code of the process, or minus the signal that killed it.
    """
    if exit_code >= 0:
        return f"its process ended with status {exit_code}"
    reason = f"killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    if -exit_code == signal.SIGKILL:
        reason += ", as the system does when memory runs out: use smaller batches, or fewer --jobs"
    return reason


class RayRunner(BenchmarkRunner):
    """Executes runs on a Ray cluster, or with Ray on this host. A run whose worker is killed is restarted.

    All hosts must see the results folder under the same path.

    Args:
        generator: Generator of the missing runs.
        address: Address of the cluster; by default Ray is started on this host.
        jobs: Maximum parallel runs; by default as many as processors and GPUs allow.
        gpus: GPUs per run, possibly a fraction; by default 1 if the cluster has GPUs and the trainer may use one.
        retries: How often a run whose worker was killed is restarted.
    """

    def __init__(
        self,
        generator: BenchmarkRuns,
        address: str | None = None,
        jobs: int | None = None,
        gpus: float | None = None,
        retries: int = MAX_RETRIES,
    ) -> None:
        super().__init__(generator)
        self.address = address
        self.jobs = jobs
        self.gpus = gpus
        self.retries = retries
        self.ray = import_ray()

    def _execute(self, jobs: Sequence[BenchmarkRun], display: "ProgressDisplay") -> Generator[ResultRow, None, None]:
        self._connect()
        try:
            cpus, gpus = self.generator.settings.threads, self._gpus_per_run(jobs)
            self._check_resources(cpus, gpus)
            task = self.ray.remote(max_retries=self.retries, num_cpus=cpus, num_gpus=gpus)(_run_on_worker)
            waiting = deque(jobs)
            running: dict[Any, BenchmarkRun] = {}
            while waiting or running:
                while waiting and len(running) < (self.jobs or len(jobs)):
                    job = waiting.popleft()
                    running[task.remote(job)] = job
                    display.begin(job)
                for reference in self.ray.wait(list(running))[0]:
                    yield self._row(running.pop(reference), reference)
        finally:
            self.ray.shutdown()

    def _connect(self) -> None:
        threads = self.generator.settings.threads
        # For libraries other than PyTorch: Ray would set one thread, and sums may depend on the number.
        options: dict[str, Any] = {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}}}
        if self.address is None:
            parallel_runs = self.jobs or max(1, (os.cpu_count() or 1) // threads)
            options |= {"num_cpus": threads * parallel_runs, "include_dashboard": False}
        with keep_handler():
            start_ray(self.ray, self.address, **options)

    def _gpus_per_run(self, jobs: Sequence[BenchmarkRun]) -> float:
        if self.gpus is not None:
            return self.gpus
        may_use_gpu = any(job.benchmark_run.trainer.get("accelerator", "auto") in GPU_ACCELERATORS for job in jobs)
        return 1 if may_use_gpu and self.ray.cluster_resources().get("GPU") else 0

    def _check_resources(self, cpus: int, gpus: float) -> None:
        """Check that some host can execute a run, because Ray would wait for one that can."""
        hosts = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(host.get("CPU", 0) >= cpus and host.get("GPU", 0) >= gpus for host in hosts):
            msg = f"no host of the cluster has {cpus} processors and {gpus:g} GPUs; lower --threads or --gpus-per-job"
            raise InvalidInputError(msg)

    def _row(self, job: BenchmarkRun, reference: Any) -> ResultRow:
        try:
            row: ResultRow = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            return make_row(job.fail(reason), job.benchmark_run)
        if job.results.read(row["key"]) is None:
            root = job.settings.root
            msg = f"the run was written to {root} on another host; choose a folder that all hosts share (--out)"
            raise InvalidInputError(msg)
        return row


def _run_on_worker(job: BenchmarkRun) -> ResultRow:
    return job.run()


class ProgressDisplay:
    """Progress on standard error: a line for each run that has ended and, on a terminal, for those in progress.

    Args:
        total: Number of runs.

    Attributes:
        done: Number of runs that have ended.
    """

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, tuple[BenchmarkRun, TaskID]] = {}
        self.total, self.done = total, 0
        self._progress.start()

    def begin(self, job: BenchmarkRun) -> None:
        """Display that a run has begun."""
        run = job.benchmark_run
        visible = len(self._tasks) < MAX_DISPLAYED_RUNS
        self._tasks[run.key] = job, self._progress.add_task(run.label, total=None, visible=visible)

    def end(self, row: ResultRow) -> None:
        """Display the results of a run."""
        job, task = self._tasks.pop(row["key"])
        seconds = self._progress.tasks[self._progress.task_ids.index(task)].elapsed or 0
        self._progress.remove_task(task)
        self.done += 1
        line = f"{self.done} of {self.total}: {job.benchmark_run.label}: {_summary(row)}, {seconds:.0f} s"
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop the display."""
        self._progress.stop()


def _summary(row: ResultRow) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    return ", ".join(f"{name} {row[name]:.3f}" for name in SUMMARY_METRICS if name in row) or "done"
