"""One run of a benchmark as anomalib's ``Job``: trains, tests, measures, and writes the results."""

import contextlib
import logging
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.utils import ValSplitMode
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from anomalib.pipelines.components.base import Job, JobGenerator
from lightning import seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.benchmark.configuration import Benchmark
from anomalib_defect_plugins.benchmark.environment import PeakMemory, describe_environment
from anomalib_defect_plugins.benchmark.evaluation import Evaluation
from anomalib_defect_plugins.benchmark.progress_file import ProgressFile
from anomalib_defect_plugins.benchmark.recorder import Recorder, read_thresholds
from anomalib_defect_plugins.core.errors import error_line
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.stop_signals import Terminated
from anomalib_defect_plugins.data.original_masks import OriginalMasks
from anomalib_defect_plugins.data.split_file import write_split
from anomalib_defect_plugins.data.summary import datasets_of
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.plugins.instantiate import build
from anomalib_defect_plugins.plugins.manager import shorten
from anomalib_defect_plugins.results.folder import ResultRow, ResultsFolder, make_row
from anomalib_defect_plugins.results.record import LatencyRow, RunRecord, write_record
from anomalib_defect_plugins.results.run_spec import RunSpec, resolve_variables

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
"""Default arguments of the trainer."""

MAX_COMPARED_IMAGES = 100
"""Maximum number of test images, spread evenly over the test set, to compare exported graphs on."""


@dataclass(frozen=True)
class ExecutionSettings:
    """How runs are executed. Nothing here changes metrics, except ``threads`` in the last digits.

    Args:
        root: The results folder.
        config: Path of the configuration file, as the user passed it.
        threads: Threads of PyTorch. All runners use the same number, since sums depend on it.
        runner: Name of the runner, for the record.
        shared: Whether other runs may use the same machine at the same time, which makes times unreliable.
        folder: Working folder that relative paths refer to.
        progress: File for the progress of the current run, if any.
    """

    root: Path
    config: str
    threads: int
    runner: str = "serial"
    shared: bool = False
    folder: Path = field(default_factory=Path.cwd)
    progress: Path | None = None

    def __post_init__(self) -> None:
        """Make the root absolute, since other processes have another working folder."""
        object.__setattr__(self, "root", self.folder / self.root)


class BenchmarkRun(Job):
    """A run.

    Args:
        run: Specification of the run.
        settings: How to execute it.
    """

    name = "benchmark"

    def __init__(self, run: RunSpec, settings: ExecutionSettings) -> None:
        self.benchmark_run = run
        self.settings = settings
        # Resolved here, because another host has other environment variables.
        self.model = resolve_variables(run.model.specification, run.seed)
        self.datamodule = resolve_variables(run.datamodule, run.seed)

    @property
    def results(self) -> ResultsFolder:
        """The results folder."""
        return ResultsFolder(self.settings.root)

    def run(self, task_id: int | None = None) -> ResultRow:
        """Train, test, measure and write the run; errors of models and data are part of the results.

        Args:
            task_id: Index of the process among those that run at the same time and share the GPUs.

        Returns:
            The row of the table. A failed run has the status ``failed`` and an error of one line.

        Raises:
            InvalidInputError: If the results folder is not writable.
            KeyboardInterrupt: If the user stops the benchmark.
            Terminated: If SIGTERM stops it.
        """
        try:
            with _quiet(), _working_in(self.settings.folder):
                record = self._execute(task_id)
        except Terminated:
            raise
        except SIGTERMException as error:
            raise Terminated from error
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # Lightning replaces one by a SystemExit
                raise KeyboardInterrupt from error
            record = self.fail(f"SystemExit: {error}", traceback.format_exc())
        except Exception as error:  # noqa: BLE001  (models and data may raise anything; the benchmark continues)
            record = self._fail_with(error)
        return make_row(record, self.benchmark_run)

    def _fail_with(self, error: Exception) -> RunRecord:
        line = error_line(error)
        if line is not None:
            return self.fail(line.removeprefix("error: "))
        return self.fail(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    def fail(self, reason: str, trace: str = "") -> RunRecord:
        """Write the run as failed.

        Args:
            reason: Why it failed; shortened to one line.
            trace: Traceback, unless the user can fix the error.
        """
        record = self._record(shorten(reason))
        self.results.write_failed(record, trace)
        return record

    def _record(self, error: str | None = None) -> RunRecord:
        run, settings = self.benchmark_run, self.settings
        environment = {
            **describe_environment(),
            "threads": settings.threads,
            "runner": settings.runner,
            "shared": settings.shared,
        }
        command = f"{COMMAND} --config {shlex.quote(settings.config)} --only {run.key} --threads {settings.threads}"
        return RunRecord(self.results.run_folder(run.key), run, error, environment, f"{command} --force")

    def _execute(self, task_id: int | None) -> RunRecord:
        torch.set_num_threads(self.settings.threads)
        with self.results.new_run(self.benchmark_run.key) as (folder, scratch):
            execution = RunExecution(self, scratch, task_id)
            record = replace(self._record(), **execution.measure(folder))
            write_record(folder, record)
        return record

    @staticmethod
    def collect(results: list[ResultRow]) -> pd.DataFrame:
        """Convert the rows to a table."""
        return pd.DataFrame(results)

    @staticmethod
    def save(results: pd.DataFrame) -> None:
        """Do nothing: each run has written its files, and the runner has written the table."""


class BenchmarkRuns(JobGenerator):
    """Generates the missing runs of a benchmark.

    Args:
        benchmark: All runs and their configuration file.
        settings: How to execute them.
        retry_failed: Whether failed runs are missing too.
        only: Keys of the runs to execute; all by default.
        force: Whether to repeat finished runs.

    Attributes:
        benchmark: All runs and their configuration file.
        settings: How to execute them.
        kept: Status of the runs that are not repeated.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        settings: ExecutionSettings,
        retry_failed: bool = False,
        only: Sequence[str] = (),
        force: bool = False,
    ) -> None:
        self.benchmark = benchmark
        self.settings = settings
        self.kept = set() if force else {"done"} if retry_failed else {"done", "failed"}
        self.only = only

    @property
    def job_class(self) -> type[Job]:
        """Class of the jobs."""
        return BenchmarkRun

    @property
    def results(self) -> ResultsFolder:
        """The results folder."""
        return ResultsFolder(self.settings.root)

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        """All runs, in order."""
        return self.benchmark.runs

    def missing(self) -> list[RunSpec]:
        """Return the runs to execute."""
        kept = {key for key, record in self.results.records().items() if record.status in self.kept}
        return [run for run in self.runs if run.key not in kept and (not self.only or run.key in self.only)]

    def generate_jobs(
        self, args: dict[str, Any] | None = None, prev_stage_result: Any = None
    ) -> Generator[BenchmarkRun, None, None]:
        """Yield the jobs; anomalib's arguments are not used."""
        del args, prev_stage_result
        for run in self.missing():
            yield BenchmarkRun(run, self.settings)


class RunExecution:
    """Model, data and trainer of a run, and the measurements of them.

    Args:
        job: The run.
        scratch: Folder for temporary files.
        task_id: See :meth:`BenchmarkRun.run`.
    """

    def __init__(self, job: BenchmarkRun, scratch: Path, task_id: int | None) -> None:
        self.run = job.benchmark_run
        self.scratch = scratch
        seed_everything(self.run.seed, workers=True, verbose=False)
        self.data = build(AnomalibDataModule, job.datamodule, f"data {self.run.data.name}")
        self.data.prepare_data()
        # Repeated, because building a data set for the first time must not change the random numbers that follow.
        seed_everything(self.run.seed, workers=True, verbose=False)
        self.model = build(AnomalibModule, job.model, f"model {self.run.model.name}")
        self.model.visualizer = None  # drawing all test images would count as test time
        self.recorder = Recorder(scratch)
        trainer = resolve_variables(dict(self.run.trainer), self.run.seed)
        arguments = {**TRAINER, **trainer, **_devices(self.run.trainer, task_id)}
        progress = [] if job.settings.progress is None else [ProgressFile(job.settings.progress)]
        self.engine = Engine(callbacks=[self.recorder, *progress], default_root_dir=scratch / "engine", **arguments)

    def measure(self, folder: Path) -> dict[str, Any]:
        """Train and test, and write the files of the run except its record.

        Args:
            folder: Folder of the run.

        Returns:
            Measurements by field of :class:`RunRecord`.
        """
        keep, memory = self.run.measure.keep, PeakMemory()
        with memory.watch():
            train_seconds, _ = _timed(self.engine.fit, self.model, datamodule=self.data)
            test_seconds, logged = _timed(self.engine.test, self.model, datamodule=self.data, verbose=False)
        masks = OriginalMasks(self.data, getattr(self.model.pre_processor, "transform", None))
        evaluation = Evaluation(self.recorder, masks)
        cost: dict[str, float | None] = {"train_seconds": train_seconds, "test_seconds": test_seconds}
        cost |= {"peak_host_bytes": memory.host_bytes, "peak_gpu_bytes": memory.gpu_bytes}
        cost |= {"parameters": sum(parameter.numel() for parameter in self.model.model.parameters()), "flops": None}
        self._write(folder, evaluation)
        measurements = {
            "metrics": evaluation.metrics(logged[0]),
            "map_range": evaluation.map_range,
            "image_size": self.recorder.image_size,
            "resolution": masks.resolution,
            "thresholds": read_thresholds(self.model.post_processor),
            "split": self._split(folder),
        }
        profile: dict[str, Any] = {}
        if self.run.measure.latency and self.recorder.image_size is not None:
            profile = self._profile(folder if keep.model else self.scratch, self.recorder.image_size)
        return measurements | profile | {"cost": cost | profile.get("cost", {})}

    def _write(self, folder: Path, evaluation: Evaluation) -> None:
        keep, samples = self.run.measure.keep, with_defect_types(self.data.test_data.samples)
        evaluation.write(folder, dict(zip(samples.image_path, samples.defect_type, strict=True)), keep.maps)
        if keep.model:
            self.engine.trainer.save_checkpoint(folder / CHECKPOINT, weights_only=True)

    def _split(self, folder: Path) -> dict[str, Any]:
        """Write the split, which ``WithDefects`` can read again, and return its counts, hash and use by thresholds."""
        datasets = datasets_of(self.data)
        names: list[str] = [name for name in ("train", "val", "test") if name in datasets]
        tables = {name: with_defect_types(datasets[name].samples) for name in names}
        is_generated = self.data.val_split_mode == ValSplitMode.SYNTHETIC
        if "val" in tables and (is_generated or set(tables["val"].image_path) == set(tables["test"].image_path)):
            del tables["val"]
        images = [path for table in tables.values() for path in table.image_path]
        write_split(folder / SPLIT, tables, images)
        lines = (folder / SPLIT).read_text(encoding="utf-8").splitlines()[1:]
        # As in results of older versions, without validation images.
        rows = sorted(line for line in lines if not line.startswith("val,"))
        counts = {name: len(tables[name]) for name in ("train", "test")}
        digest = sha256("\n".join(rows).encode()).hexdigest()
        use = {"hash": digest, "validation": str(ValSplitMode(self.data.val_split_mode).value)}
        without_labels = getattr(self.model.post_processor, "threshold_origin", None)
        return {**counts, **use, **({} if without_labels is None else {"threshold": without_labels})}

    def _profile(self, folder: Path, image_size: Size) -> dict[str, Any]:
        from anomalib_defect_plugins.benchmark.profile import profile

        measured = profile(
            self.model, image_size, folder, _ComparedImages(self.data.test_data, image_size), self.run.measure
        )
        return measured | {"latency": tuple(map(LatencyRow.from_dict, measured["latency"]))}


class _ComparedImages(Sequence[tuple[Tensor, bool]]):
    """Test images as the model receives them, shape (C, H, W), float in [0, 1], and whether they are defective.

    They are read when they are needed.
    """

    def __init__(self, data: AnomalibDataset, image_size: Size) -> None:
        self._data, self._size = data, image_size
        count = min(MAX_COMPARED_IMAGES, len(data))
        self._indices = np.linspace(0, len(data) - 1, count).round().astype(int).tolist()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        item = self._data[self._indices[index]]
        image = resize(item.image, list(self._size), antialias=True)
        return image.as_subclass(Tensor).clamp(0, 1), bool(item.gt_label)


def _timed(function: Callable[..., T], *arguments: object, **named: object) -> tuple[float, T]:
    start = time.perf_counter()
    result = function(*arguments, **named)
    return time.perf_counter() - start, result


def _devices(trainer: Mapping[str, Any], task_id: int | None) -> dict[str, Any]:
    """Assign a GPU to each of several processes, in turn."""
    count = torch.cuda.device_count()
    if task_id is None or not count or trainer.get("accelerator", "auto") not in {"auto", "cuda", "gpu"}:
        return {}
    return {"devices": [task_id % count]}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep output of trainers and data modules off standard output and the progress lines."""
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
    """Change the working folder, unless it does not exist on this host of a cluster."""
    before = Path.cwd()
    with contextlib.suppress(FileNotFoundError):
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
