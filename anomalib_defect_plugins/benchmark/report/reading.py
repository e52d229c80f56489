"""Reads a results folder as far as a report needs it: JSON, CSV and text, never a model."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Setting = tuple[str, str, str, int]
"""What a time was measured with: engine, precision, device, batch."""

TIMES = ("median_ms", "p95_ms", "p99_ms", "images_per_second")

PARTS = ("model", "data", "supervision")


@dataclass(frozen=True)
class Spec:
    """A model, data module or kind of supervision of a run.

    Args:
        name: Its label.
        class_path: Its class.
        init_args: What it was made with.
    """

    name: str
    class_path: str
    init_args: Mapping[str, Any]


@dataclass(frozen=True)
class Latency:
    """How fast a model was.

    Args:
        engine: What ran it: ``torch`` or ``openvino``.
        precision: Number format: ``FP32``, ``FP16`` or ``INT8``.
        device: ``CPU`` or a GPU.
        batch: Images a call.
        median_ms: Median over the calls, in milliseconds.
        p95_ms: Percentile 95.
        p99_ms: Percentile 99.
        images_per_second: Throughput.
        shared: Whether other runs may have been made on the same machine meanwhile.
    """

    engine: str
    precision: str
    device: str
    batch: int
    median_ms: float
    p95_ms: float
    p99_ms: float
    images_per_second: float
    shared: bool = False

    @property
    def setting(self) -> Setting:
        """What it was measured with."""
        return self.engine, self.precision, self.device, self.batch


@dataclass(frozen=True)
class Record:
    """One run, as its ``run.json`` tells it.

    Args:
        key: Its name: the hash of its configuration.
        folder: Where its files are.
        error: Why it failed; ``None`` if it is done.
        model: The model.
        data: The data.
        supervision: The supervision.
        seed: The seed.
        settings: Everything else that was configured: ``trainer`` and ``measure``.
        figures: Metrics by name; those that are not numbers are left out.
        cost: Seconds, bytes and counts by name; those that are not known are left out.
        latency: Times by engine, precision and batch.
        unmeasured: Why there is no time, by what should have been measured.
        export_difference: Greatest difference of an exported model's output, by precision.
        thresholds: Of the scores (``image``) and of the maps (``pixel``).
        split: Counts by name, and ``hash``.
        environment: Versions and hardware by name.
        command: What repeats the run.
    """

    key: str
    folder: Path
    error: str | None
    model: Spec
    data: Spec
    supervision: Spec
    seed: int
    settings: Mapping[str, Any]
    figures: Mapping[str, float]
    cost: Mapping[str, float]
    latency: tuple[Latency, ...]
    unmeasured: Mapping[Setting, str]
    export_difference: Mapping[str, float]
    thresholds: Mapping[str, float]
    split: Mapping[str, Any]
    environment: Mapping[str, Any]
    command: str


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
        from anomalib_defect_plugins.errors import MissingDataError

        msg = f"there is no results folder {folder}; 'anomalib-defects benchmark --config FILE.yaml' makes one"
        raise MissingDataError(msg)
    present = sorted(path.name for path in (folder / "runs").glob("*") if path.is_dir() and path.name[0] != ".")
    listed = _listed(folder / "results.csv")
    labels = {key: {} for key in present} if listed is None else listed
    if not labels:
        from anomalib_defect_plugins.errors import InvalidInputError

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


def read_record(path: Path, labels: Mapping[str, str]) -> Record:
    """Read a ``run.json``.

    Args:
        path: The file.
        labels: What its model, data and supervision are called; by default what they were called when it was written.

    Raises:
        OSError: It cannot be read.
        AttributeError, KeyError, TypeError, ValueError: It does not hold a run.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    run = content["run"]
    if content["status"] not in {"done", "failed"}:
        msg = f"status is {content['status']!r}"
        raise ValueError(msg)
    times, environment = content.get("latency") or (), dict(content.get("environment") or {})
    error = (content.get("error") or "no reason given") if content["status"] == "failed" else None
    return Record(
        key=path.parent.name,
        folder=path.parent,
        error=None if error is None else str(error),
        **{name: _spec({**run[name], **({"name": labels[name]} if name in labels else {})}) for name in PARTS},
        seed=int(run["seed"]),
        settings={name: run.get(name) or {} for name in ("trainer", "measure")},
        figures=_numbers(content.get("figures")),
        cost=_numbers(content.get("cost")),
        latency=tuple(_latency(item, environment) for item in times if item.get("median_ms") is not None),
        unmeasured={_setting(item): str(item.get("reason")) for item in times if item.get("median_ms") is None},
        export_difference=_numbers(content.get("export_difference")),
        thresholds=_numbers(content.get("thresholds")),
        split=dict(content.get("split") or {}),
        environment=environment,
        command=str(content.get("command") or ""),
    )


def _spec(item: Mapping[str, Any]) -> Spec:
    class_path = str(item.get("class_path") or "")
    name = str(item.get("name") or class_path.rpartition(".")[2])
    if not name:
        msg = "a part of the run has neither a name nor a class_path"
        raise ValueError(msg)
    return Spec(name, class_path, dict(item.get("init_args") or {}))


def _numbers(items: Mapping[str, Any] | None) -> dict[str, float]:
    """Give what is known; what is missing or not finite has no place in a mean."""
    known = {str(name): float(value) for name, value in dict(items or {}).items() if value is not None}
    return {name: value for name, value in known.items() if math.isfinite(value)}


def _latency(item: Mapping[str, Any], environment: Mapping[str, Any]) -> Latency:
    return Latency(*_setting(item), *(float(item[name]) for name in TIMES), was_shared(environment))


def was_shared(environment: Mapping[str, Any]) -> bool:
    """Whether other runs may have been made on the same machine at the time of a run."""
    return bool(environment.get("shared", environment.get("runner", "serial") != "serial"))


def _setting(item: Mapping[str, Any]) -> Setting:
    return str(item["engine"]), str(item["precision"]), str(item.get("device", "CPU")), int(item["batch"])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
