"""Reads a whole results folder for the report and the demo: JSON, CSV and text, never a model."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.results.folder import CONFIGURATION, RUNS, TABLE
from anomalib_defect_plugins.results.record import FILE, RunRecord, read_record
from anomalib_defect_plugins.results.run_spec import COMPONENTS


@dataclass(frozen=True)
class BenchmarkResults:
    """Content of a results folder.

    Args:
        name: Name of the benchmark.
        folder: The results folder.
        configuration: Text of ``benchmark.yaml``; empty if the file is missing.
        done: Runs with metrics, in the order of the configuration.
        failed: Runs that ended with an error.
        left_out: A line for each unreadable run: file and reason.
        other: Number of finished runs that ``results.csv`` does not list.
    """

    name: str
    folder: Path
    configuration: str
    done: tuple[RunRecord, ...]
    failed: tuple[RunRecord, ...]
    left_out: tuple[str, ...]
    other: int


def read_results(folder: Path) -> BenchmarkResults:
    """Read a results folder.

    ``results.csv`` defines which runs are read, their order and their present labels. A finished run that it does not
    list belongs to an earlier configuration, or finished just before an interruption; such runs are only counted.
    Without ``results.csv``, all runs are read.

    Args:
        folder: Folder that ``anomalib-defects benchmark`` has written to.

    Raises:
        MissingDataError: If the folder does not exist.
        InvalidInputError: If it has no runs.
    """
    if not folder.is_dir():
        msg = f"there is no results folder {folder}; 'anomalib-defects benchmark --config FILE.yaml' creates one"
        raise MissingDataError(msg)
    present = sorted(path.name for path in (folder / RUNS).glob("*") if path.is_dir() and path.name[0] != ".")
    listed = _read_labels(folder / TABLE)
    labels = {key: {} for key in present} if listed is None else listed
    if not labels:
        msg = f"{folder} has no finished run; choose the folder that 'anomalib-defects benchmark' wrote to"
        raise InvalidInputError(msg)
    records, left_out = _read_records(folder, labels)
    return BenchmarkResults(
        name=folder.resolve().name,
        folder=folder,
        configuration=_read_text(folder / CONFIGURATION),
        done=tuple(record for record in records if record.error is None),
        failed=tuple(record for record in records if record.error is not None),
        left_out=tuple(left_out),
        other=len(set(present) - set(labels)),
    )


def _read_labels(path: Path) -> dict[str, dict[str, str]] | None:
    """Read the labels of each run in ``results.csv`` by key; ``None`` if the file is missing or has no keys."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error):
        return None
    # A key is the name of a folder: nothing in the file may lead out of the results folder.
    rows = [row for row in rows if (row.get("key") or "").isalnum()]
    return {row["key"]: {name: row[name] for name in COMPONENTS if row.get(name)} for row in rows} or None


def _read_records(folder: Path, labels: Mapping[str, Mapping[str, str]]) -> tuple[list[RunRecord], list[str]]:
    records, left_out = [], []
    for key, names in labels.items():
        path = folder / RUNS / key / FILE
        try:
            records.append(read_record(path, names))
        except FileNotFoundError:
            left_out.append(f"{path}: the file is missing; start the benchmark again")
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            left_out.append(f"{path}: not a run ({reason}); delete its folder and start the benchmark again")
    return records, left_out


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
