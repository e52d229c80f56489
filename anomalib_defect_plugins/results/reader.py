"""Reads a results folder as far as a report needs it: JSON, CSV and text, never a model."""

from anomalib_defect_plugins.results.record import Record
from anomalib_defect_plugins.results.record import read_record
from anomalib_defect_plugins.results.record import PARTS

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any











@dataclass(frozen=True)
class Results:
    """What a results folder holds.

    Args:
        name: The benchmark's name.
        folder: The results folder.
        configuration: Text of ``benchmark.yaml``; empty if there is none.
        done: Runs with figures, in the configuration's order.
        failed: Runs that ended with an error.
        left_out: A line for each run that cannot be read: file and reason.
        other: How many finished runs ``results.csv`` does not list.
    """

    name: str
    folder: Path
    configuration: str
    done: tuple[Record, ...]
    failed: tuple[Record, ...]
    left_out: tuple[str, ...]
    other: int


def read_results(folder: Path) -> Results:
    """Read a results folder.

    ``results.csv`` says which runs there are, in which order, and how they are called now. A finished run that it does
    not list is of a former configuration, or was finished just before an interruption; such runs are counted, not read.
    Without a ``results.csv`` every run is read.

    Args:
        folder: What ``anomalib-defects benchmark`` writes to.

    Raises:
        MissingDataError: There is no such folder.
        InvalidInputError: It is no results folder, or holds no run.
    """
    # Our errors import Lightning and so torch, which a report does not need.
    if not folder.is_dir():
        from anomalib_defect_plugins.core.errors import MissingDataError

        msg = f"there is no results folder {folder}; 'anomalib-defects benchmark --config FILE.yaml' makes one"
        raise MissingDataError(msg)
    present = sorted(path.name for path in (folder / "runs").glob("*") if path.is_dir() and path.name[0] != ".")
    listed = _listed(folder / "results.csv")
    labels = {key: {} for key in present} if listed is None else listed
    if not labels:
        from anomalib_defect_plugins.core.errors import InvalidInputError

        msg = f"{folder} has no finished run; give the folder that 'anomalib-defects benchmark' wrote to"
        raise InvalidInputError(msg)
    records, left_out = _read_all(folder, labels)
    return Results(
        name=folder.resolve().name,
        folder=folder,
        configuration=_text(folder / "benchmark.yaml"),
        done=tuple(record for record in records if record.error is None),
        failed=tuple(record for record in records if record.error is not None),
        left_out=tuple(left_out),
        other=len(set(present) - set(labels)),
    )


def _listed(path: Path) -> dict[str, dict[str, str]] | None:
    """Give the labels of each run in ``results.csv`` by key; ``None`` if it is not there or has no keys."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error):
        return None
    # A key is a folder's name: nothing else in the file may lead out of the results folder.
    rows = [row for row in rows if (row.get("key") or "").isalnum()]
    return {row["key"]: {name: row[name] for name in PARTS if row.get(name)} for row in rows} or None


def _read_all(folder: Path, labels: Mapping[str, Mapping[str, str]]) -> tuple[list[Record], list[str]]:
    records, left_out = [], []
    for key, names in labels.items():
        path = folder / "runs" / key / "run.json"
        try:
            records.append(read_record(path, names))
        except FileNotFoundError:
            left_out.append(f"{path}: the file is missing; start the benchmark again")
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            left_out.append(f"{path}: not a run ({reason}); delete its folder and start the benchmark again")
    return records, left_out














def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
