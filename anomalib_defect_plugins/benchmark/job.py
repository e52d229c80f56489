"""One run of a benchmark as anomalib's ``Job``: trains, tests, measures, and writes what came out."""

import contextlib
import logging
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from anomalib.pipelines.components.base import Job, JobGenerator
from lightning import seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.benchmark.configuration import Benchmark
from anomalib_defect_plugins.benchmark.environment import PeakMemory, describe_environment
from anomalib_defect_plugins.benchmark.evaluation import Evaluation, Recorder, thresholds
from anomalib_defect_plugins.core.errors import error_line
from anomalib_defect_plugins.data.split_file import write_split
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.plugins.instantiate import build
from anomalib_defect_plugins.plugins.manager import shorten
from anomalib_defect_plugins.results.folder import Record, Results, Row, make_row, write_record
from anomalib_defect_plugins.results.run_spec import Run, resolved

T = TypeVar("T")

CHECKPOINT, SPLIT = "model.ckpt", "split.csv"

COMMAND = "anomalib-defects benchmark"

TRAINER = {
    "accelerator": "auto",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Arguments of the trainer, unless a configuration has others."""

SAMPLES = 32
"""Test images that exported graphs are quantised with and compared on, spread evenly over the test set."""


@dataclass(frozen=True)
class Setting:
    """How a run is made. Nothing in it changes figures, except threads in the last digits.

    Args:
        root: The results folder.
        config: The configuration file, as the user gave it.
        threads: Threads that PyTorch computes with; the same in every runner, since sums depend on it.
        runner: What starts the runs, for the record.
        shared: Whether other runs may be made on the same machine at the same time; then times say little.
        folder: Working folder that relative paths are meant from.
    """

    root: Path
    config: str
    threads: int
    runner: str = "serial"
    shared: bool = False
    folder: Path = field(default_factory=Path.cwd)

    def __post_init__(self) -> None:
        """Make the root absolute: other processes work elsewhere."""
        object.__setattr__(self, "root", self.folder / self.root)


class BenchmarkRun(Job):
    """A run.

    Args:
        run: What to train and to test.
        setting: How.
    """

    name = "benchmark"

    def __init__(self, run: Run, setting: Setting) -> None:
        self.benchmark_run = run
        self.setting = setting
        # Where the benchmark was started, for another host has other variables.
        self.model = resolved(run.model.specification)
        self.datamodule = resolved(run.datamodule)

    @property
    def results(self) -> Results:
        """The results folder."""
        return Results(self.setting.root)

    def run(self, task_id: int | None = None) -> Row:
        """Train, test, measure and write the run, whatever goes wrong in it.

        Args:
            task_id: Number of the process among those that run at a time, which share the GPUs.

        Returns:
            The row of the table. A run that failed has the status ``failed`` and an error of one line.

        Raises:
            InvalidInputError: Nothing can be written to the results folder.
            KeyboardInterrupt: The user wants to stop.
        """
        try:
            with _quiet(), _working_in(self.setting.folder):
                record = self._make(task_id)
        except SIGTERMException:
            raise
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # what Lightning makes of one
                raise KeyboardInterrupt from error
            record = self.fail(f"SystemExit: {error}", traceback.format_exc())
        except Exception as error:  # noqa: BLE001  (models and data may raise anything; the benchmark goes on)
            record = self._fail_with(error)
        return make_row(record, self.benchmark_run)

    def _fail_with(self, error: Exception) -> Record:
        line = error_line(error)
        if line is not None:
            return self.fail(line.removeprefix("error: "))
        return self.fail(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    def fail(self, reason: str, trace: str = "") -> Record:
        """Write the run as one that failed.

        Args:
            reason: Why; one line is made of it.
            trace: The traceback, if that is of use.
        """
        return self.results.write_failed(self.benchmark_run, self._record("failed", shorten(reason)), trace)

    def _record(self, status: str, error: str | None = None) -> Record:
        run, setting = self.benchmark_run, self.setting
        return {
            "key": run.key,
            "status": status,
            "error": error,
            "run": run.to_dict(),
            "environment": {
                **describe_environment(),
                "threads": setting.threads,
                "runner": setting.runner,
                "shared": setting.shared,
            },
            "command": f"{COMMAND} --config {shlex.quote(setting.config)} --only {run.key} --threads {setting.threads} "
            "--force",
        }

    def _make(self, task_id: int | None) -> Record:
        torch.set_num_threads(self.setting.threads)
        with self.results.new_run(self.benchmark_run.key) as (folder, waste):
            trial = Trial(self, waste, task_id)
            record = self._record("done") | trial.measure(folder)
            write_record(folder, record)
        return record

    @staticmethod
    def collect(results: list[Row]) -> pd.DataFrame:
        """Make a table of the rows."""
        return pd.DataFrame(results)

    @staticmethod
    def save(results: pd.DataFrame) -> None:
        """Save nothing: each run has written itself, and the runner has written the table."""


class BenchmarkRuns(JobGenerator):
    """Gives the runs that are missing.

    Args:
        benchmark: All runs, and the file that asks for them.
        setting: How they are made.
        retry_failed: Whether runs that failed are missing too.
        only: Keys of the runs to make; by default all.
        force: Whether runs are made again that are done.

    Attributes:
        benchmark: All runs, and the file.
        setting: How they are made.
        kept: Status of the runs that are not made again.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        setting: Setting,
        retry_failed: bool = False,
        only: Sequence[str] = (),
        force: bool = False,
    ) -> None:
        self.benchmark = benchmark
        self.setting = setting
        self.kept = set() if force else {"done"} if retry_failed else {"done", "failed"}
        self.only = only

    @property
    def job_class(self) -> type[Job]:
        """A run."""
        return BenchmarkRun

    @property
    def results(self) -> Results:
        """The results folder."""
        return Results(self.setting.root)

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, in order."""
        return self.benchmark.runs

    def missing(self) -> list[Run]:
        """Give the runs that are to be made."""
        there = {key for key, record in self.results.records().items() if record["status"] in self.kept}
        return [run for run in self.runs if run.key not in there and (not self.only or run.key in self.only)]

    def generate_jobs(self, args: dict | None = None, prev_stage_result: Any = None) -> Iterator[BenchmarkRun]:
        """Give the jobs; arguments, which anomalib hands over, are not looked at."""
        del args, prev_stage_result
        for run in self.missing():
            yield BenchmarkRun(run, self.setting)


class Trial:
    """Model and data of a run, and what is measured of them.

    Args:
        job: The run.
        waste: Folder for what is not kept.
        task_id: See ``BenchmarkRun.run``.
    """

    def __init__(self, job: BenchmarkRun, waste: Path, task_id: int | None) -> None:
        self.run = job.benchmark_run
        self.waste = waste
        seed_everything(self.run.seed, workers=True, verbose=False)
        self.data = build(AnomalibDataModule, job.datamodule, f"data {self.run.data.name}")
        self.data.prepare_data()
        # Again, for a data set that had to be built first must not change what is drawn next.
        seed_everything(self.run.seed, workers=True, verbose=False)
        self.model = build(AnomalibModule, job.model, f"model {self.run.model.name}")
        self.model.visualizer = None  # its pictures of all test images would count as time of the test
        self.recorder = Recorder(waste)
        arguments = {**TRAINER, **resolved(dict(self.run.trainer)), **_devices(self.run.trainer, task_id)}
        self.engine = Engine(callbacks=[self.recorder], default_root_dir=waste / "engine", **arguments)

    def measure(self, folder: Path) -> dict[str, Any]:
        """Train and test, and write everything but the record into the folder of the run; gives the record's parts."""
        keep, memory = self.run.measure.keep, PeakMemory()
        with memory.watch():
            train_seconds, _ = _timed(self.engine.fit, self.model, datamodule=self.data)
            test_seconds, found = _timed(self.engine.test, self.model, datamodule=self.data, verbose=False)
        evaluation = Evaluation(self.recorder)
        own = {name: value for name, value in found[0].items() if np.isfinite(value)}
        cost = {"train_seconds": train_seconds, "test_seconds": test_seconds}
        cost |= {"peak_host_bytes": memory.host_bytes, "peak_gpu_bytes": memory.gpu_bytes}
        cost |= {"parameters": sum(it.numel() for it in self.model.model.parameters()), "flops": None}
        self._write(folder, evaluation)
        parts = {
            # Where the names are the same, the figure from scores as the model gives them counts.
            "figures": own | evaluation.figures(),
            "cost": cost,
            "map_range": evaluation.map_range,
            "image_size": self.recorder.image_size,
            "thresholds": thresholds(self.model.post_processor),
            "split": self._split(folder),
        }
        profile = self._profile(folder if keep.model else self.waste) if self.run.measure.latency else {}
        return parts | profile | {"cost": cost | profile.get("cost", {})}

    def _write(self, folder: Path, evaluation: Evaluation) -> None:
        keep, samples = self.run.measure.keep, with_defect_types(self.data.test_data.samples)
        evaluation.write(folder, dict(zip(samples.image_path, samples.defect_type, strict=True)), keep.maps)
        if keep.model:
            self.engine.trainer.save_checkpoint(folder / CHECKPOINT, weights_only=True)

    def _split(self, folder: Path) -> dict[str, Any]:
        """Write the split, which ``WithDefects`` can repeat, and describe it."""
        tables = {name: with_defect_types(getattr(self.data, f"{name}_data").samples) for name in ("train", "test")}
        images = [path for table in tables.values() for path in table.image_path]
        write_split(folder / SPLIT, tables, images)
        rows = sorted((folder / SPLIT).read_text(encoding="utf-8").splitlines()[1:])
        counts = {name: len(table) for name, table in tables.items()}
        return {**counts, "hash": sha256("\n".join(rows).encode()).hexdigest()}

    def _profile(self, folder: Path) -> dict[str, Any]:
        from anomalib_defect_plugins.benchmark.profile import profile

        return profile(self.model, self.recorder.image_size, folder, self._samples(), self.run.measure)

    def _samples(self) -> Tensor:
        """Give some test images as the model gets them, (N, C, H, W), float in [0, 1]."""
        data = self.data.test_data
        chosen = np.linspace(0, len(data) - 1, min(SAMPLES, len(data))).round().astype(int)
        images = data.collate_fn([data[int(index)] for index in chosen]).image.as_subclass(Tensor)
        return resize(images, list(self.recorder.image_size), antialias=True).clamp(0, 1)


def _timed(work: Callable[..., T], *arguments: object, **named: object) -> tuple[float, T]:
    start = time.perf_counter()
    result = work(*arguments, **named)
    return time.perf_counter() - start, result


def _devices(trainer: Mapping[str, Any], task_id: int | None) -> dict[str, Any]:
    """Give each of several processes its GPU, in turn."""
    count = torch.cuda.device_count()
    if task_id is None or not count or trainer.get("accelerator", "auto") not in {"auto", "cuda", "gpu"}:
        return {}
    return {"devices": [task_id % count]}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what trainers and data modules say away from standard output and from the lines of the progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Read relative paths as the user wrote them; another host of a cluster may not have the folder."""
    before = Path.cwd()
    with contextlib.suppress(FileNotFoundError):
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
