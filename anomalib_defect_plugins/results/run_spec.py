"""Specification of one run of a benchmark: plain values, and a key that identifies the run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomalib_defect_plugins.core.errors import InvalidInputError

PRECISIONS = ("FP32", "FP16", "INT8")
"""Precisions of exported OpenVINO graphs."""

COMPONENTS = ("model", "data", "supervision")
"""Fields of :class:`RunSpec` that hold a :class:`ComponentSpec`."""


@dataclass(frozen=True)
class ComponentSpec:
    """A model, data module or kind of supervision: its class and arguments as configured.

    Args:
        name: Label in tables and plots. It does not influence the run.
        class_path: Name or import path of the class; ``None`` for a supervision that uses the data unchanged.
        init_args: Arguments of the class, as plain values.
    """

    name: str
    class_path: str | None
    init_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def specification(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``, which define the object."""
        return {"class_path": self.class_path, "init_args": dict(self.init_args)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "ComponentSpec":
        """Read the component of a ``run.json``; without a name, the class is its label.

        Raises:
            ValueError: If it has neither a name nor a class.
        """
        class_path = content.get("class_path")
        name = content.get("name") or str(class_path or "").rpartition(".")[2]
        if not name:
            msg = "a component of the run has neither a name nor a class_path"
            raise ValueError(msg)
        return cls(str(name), None if class_path is None else str(class_path), dict(content.get("init_args") or {}))


@dataclass(frozen=True)
class KeepSpec:
    """Files that a run keeps besides its metrics.

    Args:
        maps: Anomaly maps and masks of the test images.
        model: The checkpoint, and the exported graphs where latency is measured.
    """

    maps: bool = True
    model: bool = True


@dataclass(frozen=True)
class MeasureSpec:
    """Measurements besides the metrics of the test.

    Args:
        latency: Whether to measure latency, throughput, FLOPs and the output difference of exported graphs.
        precisions: Precisions of the OpenVINO graphs, of ``PRECISIONS``.
        keep: Files to keep.
        seconds: Maximum time for each measurement of latency or throughput; exceeded only for a minimum of calls.
    """

    latency: bool = True
    precisions: tuple[str, ...] = PRECISIONS
    keep: KeepSpec = KeepSpec()
    seconds: float = 3.0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "MeasureSpec":
        """Read the measurements of a ``run.json``."""
        keep = content.get("keep") or {}
        return cls(
            latency=bool(content.get("latency", True)),
            precisions=tuple(map(str, content.get("precisions", PRECISIONS))),
            keep=KeepSpec(bool(keep.get("maps", True)), bool(keep.get("model", True))),
            seconds=float(content.get("seconds", cls.seconds)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        values = {**asdict(self), "precisions": list(self.precisions)}
        if self.seconds == MeasureSpec.seconds:
            del values["seconds"]  # keeps the keys of runs from before it could be chosen
        return values


@dataclass(frozen=True)
class RunSpec:
    """One training and one test.

    Args:
        model: Model.
        data: Data module.
        supervision: Data module that wraps ``data``, if any.
        seed: Seed of all random number generators.
        trainer: Arguments of Lightning's trainer.
        measure: Measurements besides the metrics.
    """

    model: ComponentSpec
    data: ComponentSpec
    supervision: ComponentSpec
    seed: int
    trainer: Mapping[str, Any]
    measure: MeasureSpec

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "RunSpec":
        """Read the specification in a ``run.json``.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: If it is not a specification.
        """
        return cls(
            model=ComponentSpec.from_dict(content["model"]),
            data=ComponentSpec.from_dict(content["data"]),
            supervision=ComponentSpec.from_dict(content["supervision"]),
            seed=int(content["seed"]),
            trainer=dict(content.get("trainer") or {}),
            measure=MeasureSpec.from_dict(content.get("measure") or {}),
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        values = {**asdict(self), "measure": self.measure.to_dict()}
        return dict(json.loads(json.dumps(values, default=str)))

    @property
    def key(self) -> str:
        """Hash that identifies the run, 16 hexadecimal digits; labels and the order of arguments do not matter."""
        components = {name: getattr(self, name).specification for name in COMPONENTS}
        content = json.dumps({**self.to_dict(), **components}, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """Label of the run in messages."""
        return f"{self.model.name}, {self.data.name}, {self.supervision.name}, seed {self.seed}"

    @property
    def datamodule(self) -> dict[str, Any]:
        """``class_path`` and ``init_args`` of the training data: the data module, wrapped by its supervision."""
        if self.supervision.class_path is None:
            return self.data.specification
        arguments = {**self.supervision.init_args, "base": self.data.specification}
        return {"class_path": self.supervision.class_path, "init_args": arguments}


def resolve_variables(specification: Any, seed: int) -> Any:
    """Replace every ``${...}`` in a specification by its value.

    Args:
        specification: Plain values.
        seed: Seed of the run, the value of ``${seed}``.

    Raises:
        InvalidInputError: If an environment variable without a default is not set.
    """
    try:
        content = OmegaConf.create({"content": specification, "seed": seed})
        container: Any = OmegaConf.to_container(content, resolve=True)
        return container["content"]
    except OmegaConfBaseException as error:
        msg = f"{str(error).splitlines()[0]}; set it, or write ${{oc.env:NAME,default}}"
        raise InvalidInputError(msg) from error
