"""The folder of a benchmark's results. Every run in it is complete, even if the process is killed while writing.

::

    results/NAME/benchmark.yaml   configuration of the last benchmark
    results/NAME/results.csv      a row for each run, in the order of the configuration
    results/NAME/runs/KEY/        a run: run.json and the files that it keeps
    results/NAME/runs/.KEY-*.partial   a run in progress, or the remains of a killed process
"""

import contextlib
import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import is_partial, write_text
from anomalib_defect_plugins.results.record import FILE, TIMES, RunRecord, read_record, write_record
from anomalib_defect_plugins.results.run_spec import RunSpec

CONFIGURATION, TABLE, RUNS, TRACEBACK = "benchmark.yaml", "results.csv", "runs", "traceback.txt"

PARTIAL_SUFFIX = ".partial"
"""Suffix of the folder of an incomplete run."""

LOCK = ".lock"

LOCK_TIMEOUT_S = 5
"""Time to wait for the lock: children of a killed benchmark may hold it until they end."""

ResultRow = dict[str, Any]
"""A row of the table by column; all rows start with key, status, model, data, supervision and seed."""


class ResultsFolder:
    """A results folder.

    Args:
        root: The folder. It is created when something is written.

    Attributes:
        root: Its absolute path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for one benchmark, and remove what killed ones have left in it.

        Raises:
            InvalidInputError: If another process has locked the folder, it belongs to something else, or it is not
                writable.
        """
        self._check()
        with self._writing():
            (self.root / RUNS).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / LOCK)
            try:
                lock.acquire(timeout=LOCK_TIMEOUT_S)
            except Timeout as error:
                msg = f"{self.root} is in use by another benchmark; wait for it, or choose another folder (--out)"
                raise InvalidInputError(msg) from error
        try:
            self._remove_remains()
            yield
        finally:
            self._remove_remains()
            lock.release()

    def _remove_remains(self) -> None:
        self.remove_partial()
        for path in filter(is_partial, self.root.iterdir()):
            path.unlink(missing_ok=True)

    def remove_partial(self, key: str = "*") -> None:
        """Remove what is left of a run that was interrupted, or of all such runs."""
        for path in (self.root / RUNS).glob(f".{key}-*{PARTIAL_SUFFIX}"):
            shutil.rmtree(path, ignore_errors=True)

    def run_folder(self, key: str) -> Path:
        """Return the folder of a run."""
        return self.root / RUNS / key

    def records(self) -> dict[str, RunRecord]:
        """Read all runs, by key.

        Raises:
            InvalidInputError: If a run cannot be read.
        """
        keys = sorted(path.parent.name for path in (self.root / RUNS).glob(f"*/{FILE}"))
        records = {key: self.read(key) for key in keys if not key.startswith(".")}
        return {key: record for key, record in records.items() if record is not None}

    def read(self, key: str) -> RunRecord | None:
        """Read a run; ``None`` if it does not exist.

        Raises:
            InvalidInputError: If it cannot be read.
        """
        path = self.run_folder(key) / FILE
        try:
            return read_record(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            msg = f"{path} cannot be read ({error}); delete the folder {path.parent} to repeat the run"
            raise InvalidInputError(msg) from error

    def modified_ns(self, key: str) -> int | None:
        """Return when a run was written, in nanoseconds; ``None`` if it does not exist."""
        with contextlib.suppress(FileNotFoundError):
            return (self.run_folder(key) / FILE).stat().st_mtime_ns
        return None

    @contextlib.contextmanager
    def new_run(self, key: str) -> Iterator[tuple[Path, Path]]:
        """Yield an empty folder, which becomes the run's when the block ends without an error, and a scratch folder.

        An existing run of the same key is replaced.

        Raises:
            InvalidInputError: If the folder is not writable.
        """
        with self._writing():
            partial = Path(tempfile.mkdtemp(prefix=f".{key}-", suffix=PARTIAL_SUFFIX, dir=self.root / RUNS))
        try:
            # One level down, because only the owner can read the temporary folder itself.
            folder, scratch = partial / "run", partial / "scratch"
            folder.mkdir()
            scratch.mkdir()
            yield folder, scratch
            with self._writing():
                _sync(folder)
                self._replace(key, folder, partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _replace(self, key: str, folder: Path, partial: Path) -> None:
        target = self.run_folder(key)
        if target.exists():
            target.rename(partial / "former")
        folder.rename(target)
        _sync_folder(target.parent)

    def write_failed(self, record: RunRecord, traceback: str = "") -> None:
        """Write a failed run: its record, and the traceback unless the user can fix the error."""
        with self.new_run(record.key) as (folder, _):
            write_record(folder, record)
            if traceback:
                (folder / TRACEBACK).write_text(traceback, encoding="utf-8")

    def write_configuration(self, text: str) -> None:
        """Write the configuration."""
        self._write(CONFIGURATION, text)

    def write_table(self, runs: Sequence[RunSpec]) -> list[ResultRow]:
        """Write and return a row for each finished run of ``runs``, in their order."""
        records = ((run, self.read(run.key)) for run in runs)
        rows = [make_row(record, run) for run, record in records if record is not None]
        self._write(TABLE, _format_csv(rows))
        return rows

    def _write(self, name: str, text: str) -> None:
        with self._writing():
            write_text(self.root / name, text, sync=True)

    def _check(self) -> None:
        """Check that the folder is new, empty or a results folder."""
        if self.root.exists() and not self.root.is_dir():
            msg = f"{self.root} is a file; choose a folder (--out)"
            raise InvalidInputError(msg)
        names = [path.name for path in self.root.iterdir()] if self.root.is_dir() else []
        if names and RUNS not in names:
            msg = f"{self.root} holds something else, such as {names[0]}; choose an empty or a new folder (--out)"
            raise InvalidInputError(msg)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            msg = f"cannot write to {self.root} ({reason}); finished runs are kept: free space or allow writing, and "
            raise InvalidInputError(msg + "run the command again") from error


def make_row(record: RunRecord, run: RunSpec) -> ResultRow:
    """Build a row of the table. The labels are those of ``run``, which may have changed since the run was made."""
    row: ResultRow = {"key": record.key, "status": record.status}
    row |= {"model": run.model.name, "data": run.data.name, "supervision": run.supervision.name, "seed": run.seed}
    row |= {**record.metrics, **record.cost}
    for latency in record.latency:
        prefix = f"{latency.engine}_{latency.precision}_{latency.device}_batch{latency.batch}"
        row |= {f"{prefix}_{name}": getattr(latency, name) for name in TIMES}
    row |= {f"export_difference_{precision}": value for precision, value in record.export_difference.items()}
    row |= {
        f"export_{precision}_{name}": value
        for precision, values in record.export_changes.items()
        for name, value in values.items()
    }
    row |= {f"split_{name}": value for name, value in record.split.items()}
    return row | {"error": record.error}


def _format_csv(rows: Sequence[ResultRow]) -> str:
    # The error is the last column, whatever columns the first row has.
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "error"))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, [*columns, "error"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _sync(folder: Path) -> None:
    """Flush all files below a folder to the disk, before its name marks it as complete."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("r+b") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some systems cannot open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
