"""The folder of a benchmark's results: each run is there as a whole or not at all, whenever the process is killed.

::

    results/NAME/benchmark.yaml   the configuration that it was last run with
    results/NAME/results.csv      a row for each run, in the configuration's order
    results/NAME/runs/KEY/        a run: run.json and what else was kept of it
    results/NAME/runs/.KEY-*.partial   a run in progress, or what a killed process has left of one
"""

import contextlib
import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from anomalib_defect_plugins.core.errors import InvalidInputError

if TYPE_CHECKING:
    from anomalib_defect_plugins.results.run_spec import Run

CONFIGURATION, TABLE, RUNS, RECORD, TRACEBACK = "benchmark.yaml", "results.csv", "runs", "run.json", "traceback.txt"

PARTIAL = ".partial"
"""End of the name of a folder that is no run yet, or none any more."""

LOCK = ".lock"

PATIENCE = 5
"""Seconds that children of a killed benchmark are given to end, since they may hold its lock."""

Record = dict[str, Any]
"""What ``run.json`` holds."""

Row = dict[str, Any]
"""A row of the table by column; all rows begin with key, status, model, data, supervision and seed."""


class Results:
    """The results folder.

    Args:
        root: The folder; it is made when something is written.

    Attributes:
        root: Its absolute path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep every other process from running a benchmark into the folder, and take away what killed ones left.

        Raises:
            InvalidInputError: Another process does already, the folder holds something else, or cannot be written to.
        """
        self._check()
        with self._writing():
            (self.root / RUNS).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / LOCK)
            try:
                lock.acquire(timeout=PATIENCE)
            except Timeout as error:
                msg = f"{self.root} is in use by another benchmark; wait for it, or give another folder (--out)"
                raise InvalidInputError(msg) from error
        try:
            self.clean()
            yield
        finally:
            self.clean()
            lock.release()

    def clean(self, key: str = "*") -> None:
        """Take away what is left of runs that never ended."""
        for path in (self.root / RUNS).glob(f".{key}-*{PARTIAL}"):
            shutil.rmtree(path, ignore_errors=True)

    def records(self) -> dict[str, Record]:
        """Read all whole runs, by their keys.

        Raises:
            InvalidInputError: A run cannot be read.
        """
        found = sorted(path.parent.name for path in (self.root / RUNS).glob(f"*/{RECORD}"))
        return {key: self.read(key) for key in found if not key.startswith(".")}

    def read(self, key: str) -> Record | None:
        """Read a run; ``None`` if there is none.

        Raises:
            InvalidInputError: It cannot be read.
        """
        path = self.root / RUNS / key / RECORD
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            msg = f"{path} cannot be read ({error}); delete the folder {path.parent}, and the run is made again"
            raise InvalidInputError(msg) from error
        return record

    def stamp(self, key: str) -> int | None:
        """Give what tells a run from one that replaces it; ``None`` if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return (self.root / RUNS / key / RECORD).stat().st_mtime_ns
        return None

    @contextlib.contextmanager
    def new_run(self, key: str) -> Iterator[tuple[Path, Path]]:
        """Give a folder to fill, which becomes the run's when the block ends without an error, and one for waste.

        A run that is already there is replaced.

        Raises:
            InvalidInputError: Nothing can be written there.
        """
        with self._writing():
            partial = Path(tempfile.mkdtemp(prefix=f".{key}-", suffix=PARTIAL, dir=self.root / RUNS))
        try:
            # One level down, because the temporary folder itself is readable by its owner only.
            folder, waste = partial / "run", partial / "waste"
            folder.mkdir()
            waste.mkdir()
            yield folder, waste
            with self._writing():
                _flush(folder)
                self._replace(key, folder, partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _replace(self, key: str, folder: Path, partial: Path) -> None:
        target = self.root / RUNS / key
        if target.exists():
            target.rename(partial / "former")
        folder.rename(target)
        _flush_folder(target.parent)

    def write_failed(self, run: "Run", record: Record, traceback: str = "") -> Record:
        """Keep a run that failed: its record, and the traceback of an error that no user can mend."""
        with self.new_run(run.key) as (folder, _):
            write_record(folder, record)
            if traceback:
                (folder / TRACEBACK).write_text(traceback, encoding="utf-8")
        return record

    def write_configuration(self, text: str) -> None:
        """Keep the configuration, atomically."""
        self._write(CONFIGURATION, text)

    def write_table(self, runs: Sequence["Run"]) -> list[Row]:
        """Write a row for each of ``runs`` that is there, in their order, atomically; gives the rows."""
        found = ((run, self.read(run.key)) for run in runs)
        rows = [make_row(record, run) for run, record in found if record is not None]
        self._write(TABLE, _csv(rows))
        return rows

    def _write(self, name: str, text: str) -> None:
        part = self.root / f".{name}.part"
        with self._writing():
            with part.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.root / name)

    def _check(self) -> None:
        """Refuse a folder of something else."""
        if self.root.exists() and not self.root.is_dir():
            msg = f"{self.root} is a file; give a folder (--out)"
            raise InvalidInputError(msg)
        found = [path.name for path in self.root.iterdir()] if self.root.is_dir() else []
        if found and RUNS not in found:
            msg = f"{self.root} holds something else, such as {found[0]}; give an empty or a new folder (--out)"
            raise InvalidInputError(msg)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            msg = f"cannot write to {self.root} ({reason}); what is finished is kept: make room, or allow writing, and "
            raise InvalidInputError(msg + "run it again") from error


def write_record(folder: Path, record: Record) -> None:
    """Write ``run.json`` into the folder of a run."""
    (folder / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")


def make_row(record: Record, run: "Run") -> Row:
    """Make a row of the table; the labels are those of ``run``, which may have changed since."""
    row = {"key": record["key"], "status": record["status"]}
    row |= {name: getattr(run, name).name for name in ("model", "data", "supervision")}
    row |= {"seed": run.seed, **record.get("figures", {}), **record.get("cost", {})}
    for entry in record.get("latency", []):
        measured = f"{entry['engine']}_{entry['precision']}_{entry['device']}_batch{entry['batch']}"
        names = ("median_ms", "p95_ms", "p99_ms", "images_per_second")
        row |= {f"{measured}_{name}": entry[name] for name in names if name in entry}
    for precision, difference in record.get("export_difference", {}).items():
        row[f"export_difference_{precision}"] = difference
    row |= {f"split_{name}": value for name, value in record.get("split", {}).items()}
    return row | {"error": record["error"]}


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    rows = list(rows)
    # The error stands last, whatever columns the first row has.
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "error"))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, [*columns, "error"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _flush(folder: Path) -> None:
    """Have everything below a folder on the disk before its name says that it is whole."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("r+b") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(parent))


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some systems do not open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
