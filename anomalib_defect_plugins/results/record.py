"""``run.json`` of a run: its specification, how it ended, and what was measured."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from anomalib_defect_plugins.results.run_spec import COMPONENTS, RunSpec

FILE = "run.json"

RENAMED = {"figures": "metrics"}
"""Keys of older files, and their present names."""

TIMES = ("median_ms", "p95_ms", "p99_ms", "images_per_second")
"""Fields of :class:`LatencyRow` that hold a measured time or rate."""

ENGINES = {"torch": "PyTorch", "openvino": "OpenVINO"}
"""Titles of the engines."""

LatencySetting = tuple[str, str, str, int]
"""Engine, precision, device and batch size of a latency measurement."""

Numbers = Mapping[str, float | None]
"""Numbers by name; ``None`` where the value is unknown."""


@dataclass(frozen=True)
class LatencyRow:
    """A latency measurement.

    Args:
        engine: ``torch`` or ``openvino``.
        precision: ``FP32``, ``FP16`` or ``INT8``.
        device: ``CPU`` or the type of the accelerator.
        batch: Images per call.
        median_ms: Median time of a call in milliseconds; ``None``, as the other values, if it could not be measured.
        p95_ms: 95th percentile of the time of a call.
        p99_ms: 99th percentile of the time of a call.
        images_per_second: Throughput.
        repeats: Number of timed calls.
        reason: Why there is no measurement.
    """

    engine: str
    precision: str
    device: str
    batch: int
    median_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    images_per_second: float | None = None
    repeats: int | None = None
    reason: str | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "LatencyRow":
        """Read a row of the benchmark or of a ``run.json``.

        Raises:
            KeyError, TypeError, ValueError: If it is not such a row.
        """
        times: dict[str, float] = {}
        if content.get("median_ms") is not None:
            times = {name: float(content[name]) for name in TIMES}
        return cls(
            engine=str(content["engine"]),
            precision=str(content["precision"]),
            device=str(content.get("device", "CPU")),
            batch=int(content["batch"]),
            repeats=content.get("repeats"),
            reason=content.get("reason"),
            **times,
        )

    @property
    def setting(self) -> LatencySetting:
        """Engine, precision, device and batch size."""
        return self.engine, self.precision, self.device, self.batch

    @property
    def is_measured(self) -> bool:
        """Whether the row has times."""
        return self.median_ms is not None


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Args:
        folder: Folder of its files; the name is the key of the run.
        run: Specification of the run.
        error: Why it failed, in one line; ``None`` if it is done. A failed run has no measurements.
        environment: Versions and hardware by name.
        command: Command that repeats the run.
        metrics: Metrics of the test by name.
        cost: Seconds, bytes and counts by name.
        map_range: Lowest and highest value of the anomaly maps, which the kept maps have as 0 and 255; ``None``
            without maps.
        image_size: Height and width of the images that the model received in the test.
        resolution: Size at which anomaly maps were compared with masks: ``original``, that of the images in the data
            set, or ``model``, that of ``image_size``, as in results of older versions.
        thresholds: Thresholds of scores (``image``) and maps (``pixel``), in units of these.
        split: Counts of images by subset, and ``hash`` of the split; mode of the ``validation`` split; and what the
            ``threshold`` comes from if it needs no labels.
        latency: Latency by engine, precision, device and batch size.
        export_difference: Maximum output difference of an exported model, by precision.
        export_changes: What it means for decisions, by precision: number of ``images`` compared, ``score_difference``,
            ``changed_verdicts``, and ``image_AUROC`` of the graph and ``torch_image_AUROC`` on these images.
    """

    folder: Path
    run: RunSpec
    error: str | None
    environment: Mapping[str, Any]
    command: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Numbers = field(default_factory=dict)
    map_range: tuple[float, float] | None = None
    image_size: tuple[int, int] | None = None
    resolution: str = "model"
    thresholds: Numbers = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    latency: tuple[LatencyRow, ...] = ()
    export_difference: Numbers = field(default_factory=dict)
    export_changes: Mapping[str, Numbers] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Key of the run."""
        return self.folder.name

    @property
    def status(self) -> str:
        """``done`` or ``failed``."""
        return "done" if self.error is None else "failed"

    @property
    def measured_latency(self) -> tuple[LatencyRow, ...]:
        """Rows of :attr:`latency` that have times."""
        return tuple(row for row in self.latency if row.is_measured)

    @property
    def unmeasured(self) -> dict[LatencySetting, str]:
        """Reasons why times are missing, by setting."""
        return {row.setting: str(row.reason) for row in self.latency if not row.is_measured}

    @property
    def shared(self) -> bool:
        """Whether other runs may have used the same machine at the time, which slows all of them down."""
        return bool(self.environment.get("shared", self.environment.get("runner", "serial") != "serial"))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], folder: Path) -> "RunRecord":
        """Read the content of a ``run.json``, older versions included.

        Args:
            content: The content.
            folder: Folder of the run.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: If it is not a run.
        """
        content = {RENAMED.get(name, name): value for name, value in content.items()}
        run = RunSpec.from_dict(content["run"])
        metrics = _numbers(content.get("metrics"))
        return cls(
            folder=folder,
            run=run,
            error=_read_error(content),
            environment=dict(content.get("environment") or {}),
            command=str(content.get("command") or ""),
            metrics={name: value for name, value in metrics.items() if value is not None},
            cost=_numbers(content.get("cost")),
            map_range=_read_map_range(content.get("map_range")),
            image_size=_read_image_size(content.get("image_size")),
            resolution=str(content.get("resolution") or "model"),
            thresholds=_numbers(content.get("thresholds")),
            split=dict(content.get("split") or {}),
            latency=tuple(LatencyRow.from_dict(row) for row in content.get("latency") or ()),
            export_difference=_numbers(content.get("export_difference")),
            export_changes={
                str(name): _numbers(values) for name, values in dict(content.get("export_changes") or {}).items()
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to the content of a ``run.json``."""
        content: dict[str, Any] = {"key": self.key, "status": self.status, "error": self.error}
        content |= {"run": self.run.to_dict(), "environment": dict(self.environment), "command": self.command}
        if self.error is None:
            measured = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in content}
            del measured["folder"]
            content |= {**measured, "latency": [asdict(row) for row in self.latency]}
        return content


def read_record(path: Path, labels: Mapping[str, str] | None = None) -> RunRecord:
    """Read a ``run.json``.

    Args:
        path: The file.
        labels: Labels of ``model``, ``data`` and ``supervision`` that replace those in the file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it does not hold a run.
    """
    text = path.read_text(encoding="utf-8")
    try:
        record = RunRecord.from_dict(json.loads(text), path.parent)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"{type(error).__name__}: {error}"
        raise ValueError(msg) from error
    return replace(record, run=_relabel(record.run, labels or {}))


def write_record(folder: Path, record: RunRecord) -> None:
    """Write ``run.json`` into a folder, which may be a temporary one.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(record.to_dict(), indent=1, allow_nan=False)
    (folder / FILE).write_text(text, encoding="utf-8")


def setting_title(engine: str, precision: str) -> str:
    """Format engine and precision: ``OpenVINO FP32``."""
    return f"{ENGINES.get(engine, engine)} {precision}"


def _read_error(content: Mapping[str, Any]) -> str | None:
    if content["status"] not in {"done", "failed"}:
        msg = f"status is {content['status']!r}"
        raise ValueError(msg)
    return str(content.get("error") or "no reason given") if content["status"] == "failed" else None


def _numbers(content: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Read numbers by name; null and what is not finite become ``None``."""
    return {str(name): _number(value) for name, value in dict(content or {}).items()}


def _number(value: Any) -> float | None:
    if value is None or not math.isfinite(float(value)):
        return None
    return value if isinstance(value, int | float) else float(value)


def _read_map_range(content: Any) -> tuple[float, float] | None:
    if content is None:
        return None
    low, high = content
    return float(low), float(high)


def _read_image_size(content: Any) -> tuple[int, int] | None:
    if content is None:
        return None
    height, width = content
    return int(height), int(width)


def _relabel(run: RunSpec, labels: Mapping[str, str]) -> RunSpec:
    components = {name: replace(getattr(run, name), name=labels[name]) for name in COMPONENTS if name in labels}
    return replace(run, **components)
