"""What one run of a benchmark is: plain values, and a key that tells it from every other."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anomalib_defect_plugins.core.errors import InvalidInputError

PRECISIONS = ("FP32", "FP16", "INT8")
"""Precisions that an OpenVINO graph can be written in."""


@dataclass(frozen=True)
class Part:
    """A class and its arguments, as the file has them.

    Args:
        name: Label, which says nothing about what runs.
        class_path: Name or import path of the class; ``None`` of a supervision that takes the data as it is.
        init_args: Its arguments, plain values.
    """

    name: str
    class_path: str | None
    init_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def specification(self) -> dict[str, Any]:
        """What says which object it is: ``class_path`` and ``init_args``."""
        return {"class_path": self.class_path, "init_args": dict(self.init_args)}


@dataclass(frozen=True)
class Keep:
    """What a run leaves on the disk besides its figures.

    Args:
        maps: Anomaly maps and masks of the test images.
        model: The checkpoint, and the exported graphs where latency is measured.
    """

    maps: bool = True
    model: bool = True


@dataclass(frozen=True)
class Measure:
    """What is measured besides the figures of the test.

    Args:
        latency: Whether latency, throughput, FLOPs and the difference of exported graphs are measured.
        precisions: Precisions of the OpenVINO graphs, of ``PRECISIONS``.
        keep: What is kept.
        seconds: Time for each figure of latency or throughput, at most; more only for a few calls.
    """

    latency: bool = True
    precisions: tuple[str, ...] = PRECISIONS
    keep: Keep = Keep()
    seconds: float = 3.0


@dataclass(frozen=True)
class Run:
    """One training and one test.

    Args:
        model: The model.
        data: The data module.
        supervision: The data module that wraps it, if any.
        seed: Seed of everything random.
        trainer: Arguments of Lightning's trainer.
        measure: What is measured.
    """

    model: Part
    data: Part
    supervision: Part
    seed: int
    trainer: Mapping[str, Any]
    measure: Measure

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON values."""
        values = json.loads(json.dumps(asdict(self), default=str))
        if self.measure.seconds == Measure.seconds:
            del values["measure"]["seconds"]  # runs that were made before it could be chosen keep their keys
        return values

    @property
    def key(self) -> str:
        """16 hexadecimal digits that tell it from every other run; labels and the order of arguments do not matter."""
        parts = {name: getattr(self, name).specification for name in ("model", "data", "supervision")}
        content = json.dumps({**self.to_dict(), **parts}, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """Name it for people."""
        return f"{self.model.name}, {self.data.name}, {self.supervision.name}, seed {self.seed}"

    @property
    def datamodule(self) -> dict[str, Any]:
        """``class_path`` and ``init_args`` of the data module that it trains on: the data, wrapped where it is."""
        if self.supervision.class_path is None:
            return self.data.specification
        arguments = {**self.supervision.init_args, "base": self.data.specification}
        return {"class_path": self.supervision.class_path, "init_args": arguments}


def resolved(specification: Any) -> Any:
    """Put values in the place of ``${...}``.

    Raises:
        InvalidInputError: An environment variable that is named without a default is not set.
    """
    try:
        return OmegaConf.to_container(OmegaConf.create({"it": specification}), resolve=True)["it"]
    except OmegaConfBaseException as error:
        msg = f"{str(error).splitlines()[0]}; set it, or write ${{oc.env:NAME,default}}"
        raise InvalidInputError(msg) from error
