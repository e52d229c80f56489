"""Loads the models of runs: OpenVINO graphs, or checkpoints with weights only. Nothing is ever unpickled."""

import inspect
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from pickle import PickleError
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError, UserError
from anomalib_defect_plugins.results.record import Record, setting_title

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule

PRECISIONS = ("FP32", "FP16", "INT8")
"""Graphs in the order in which they are preferred: 8 bits may differ from what was trained."""

CHECKPOINT = "model.ckpt"

NORMALISED = 0.5
"""Threshold of scores and maps that anomalib's post-processor has scaled."""

BROKEN = (UserError, OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, EOFError, PickleError)
"""What reading a file raises that is no model, or one of another class."""

Outputs = Mapping[str, np.ndarray | None]


class Thresholds(NamedTuple):
    """What is defective above: scores of images, and values of maps."""

    image: float
    pixel: float


class Prediction(NamedTuple):
    """What a model says of an image.

    Args:
        score: Score of the image.
        anomaly_map: (h, w), float32; its size may be another than the image's. ``None`` if the model has none.
        seconds: What it took.
    """

    score: float
    anomaly_map: np.ndarray | None
    seconds: float


class LoadedModel(ABC):
    """A model that looks at images; several threads may use it.

    Args:
        engine: What runs it, for people.
        thresholds: In the units of its scores and maps.

    Attributes:
        engine: What runs it, for people.
        thresholds: In the units of its scores and maps; 0.5 where these are in [0, 1].
    """

    def __init__(self, engine: str, thresholds: Thresholds) -> None:
        self.engine = engine
        self.thresholds = thresholds

    @abstractmethod
    def _infer(self, images: np.ndarray) -> Outputs:
        """Give ``pred_score`` and ``anomaly_map`` for (1, 3, H, W), float32 in [0, 1]."""

    def __call__(self, image: np.ndarray) -> Prediction:
        """Look at an image.

        Args:
            image: (H, W, 3), uint8, of any size.

        Raises:
            InvalidInputError: The model fails, or gives a score that is not finite.
        """
        values = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        start = time.perf_counter()
        try:
            outputs = self._infer(values)
        except RuntimeError as error:
            msg = f"the model fails on an image of {image.shape[1]}x{image.shape[0]} pixels; give one of another size"
            raise InvalidInputError(msg) from error
        seconds = time.perf_counter() - start
        score = float(outputs["pred_score"].reshape(-1)[0])
        if not math.isfinite(score):
            msg = f"the model gives the score {score}; train it again with a lower learning rate"
            raise InvalidInputError(msg)
        heat = outputs.get("anomaly_map")
        return Prediction(score, None if heat is None else heat.reshape(heat.shape[-2:]).astype(np.float32), seconds)


class _Graph(LoadedModel):
    """An OpenVINO graph.

    Args:
        path: The ``model.xml``.
        thresholds: In the units of its outputs.
    """

    def __init__(self, path: Path, thresholds: Thresholds) -> None:
        import openvino

        from anomalib_defect_plugins.inference.openvino import compiled

        super().__init__(setting_title("openvino", path.parent.name), thresholds)
        network = openvino.Core().read_model(path)
        shape = network.inputs[0].partial_shape
        self._size = (shape[2].get_length(), shape[3].get_length()) if shape[2].is_static else None
        self._graph = compiled(network, "LATENCY")

    def _infer(self, images: np.ndarray) -> Outputs:
        request = self._graph.create_infer_request()
        request.infer({0: _resized(images, self._size)})
        names = ((name, output) for output in self._graph.outputs for name in output.names)
        return {name: request.get_tensor(output).data.copy() for name, output in names}


class TorchModel(LoadedModel):
    """A model in PyTorch.

    Args:
        module: The model, in evaluation mode.
        thresholds: In the units of its outputs.
    """

    def __init__(self, module: "AnomalibModule", thresholds: Thresholds) -> None:
        super().__init__("PyTorch", thresholds)
        self._module = module
        self._lock = threading.Lock()

    def _infer(self, images: np.ndarray) -> Outputs:
        import torch

        with self._lock, torch.inference_mode():
            given = self._module(torch.from_numpy(images))
        names = ("pred_score", "anomaly_map")
        return {name: None if (it := getattr(given, name)) is None else it.float().numpy() for name in names}


def model_files(folder: Path) -> list[Path]:
    """Give the files that the model of a run may be in, the one to take first; they need not exist."""
    return [*(folder / "openvino" / precision / "model.xml" for precision in PRECISIONS), folder / CHECKPOINT]


def load_model(record: Record) -> LoadedModel:
    """Load the model of a run: its OpenVINO graph if there is one, else its checkpoint.

    Raises:
        InvalidInputError: It cannot be loaded.
        MissingDataError: The run kept none.
    """
    path = next((path for path in model_files(record.folder) if path.is_file()), None)
    if path is None:
        msg = f"the run of {record.model.name} kept no model; run the benchmark with 'keep: {{model: true}}'"
        raise MissingDataError(msg)
    try:
        return _load_checkpoint(path, record) if path.name == CHECKPOINT else _Graph(path, _thresholds(record))
    except BROKEN as error:
        msg = f"the model of the run {record.key} ({record.model.name}) cannot be loaded; make the run again"
        raise InvalidInputError(msg) from error


def model_class(name: str) -> "type[AnomalibModule]":
    """Give the registered model of a name or an import path; nothing is imported that the name asks for.

    Raises:
        InvalidInputError: There is none.
    """
    import anomalib.models

    from anomalib_defect_plugins.plugins import connect

    connect()
    found = getattr(anomalib.models, name.rpartition(".")[2], None)
    if not (isinstance(found, type) and issubclass(found, anomalib.models.AnomalibModule)):
        msg = f"{name!r} is no registered model; install the plugin that brings it"
        raise InvalidInputError(msg)
    return found


def _load_checkpoint(path: Path, record: Record) -> LoadedModel:
    import torch

    cls = model_class(record.model.class_path)
    # Its weights are in the file, so those of a pre-trained backbone need not be downloaded.
    known = inspect.signature(cls.__init__).parameters
    more = {"pre_trained": False} if "pre_trained" in known else {}
    with torch.random.fork_rng(devices=[]):
        # A checkpoint of another command may name what is to make the object; it has no say in that.
        module = cls.load_from_checkpoint(
            path, map_location="cpu", weights_only=True, _instantiator=None, evaluator=False, visualizer=False, **more
        )
    return TorchModel(module.eval().requires_grad_(False), _thresholds(record))


def _thresholds(record: Record) -> Thresholds:
    """Give the thresholds of what the model gives out: scaled, unless its post-processor says otherwise."""
    if _scales(record.folder / CHECKPOINT):
        return Thresholds(NORMALISED, NORMALISED)
    return Thresholds(*(record.thresholds.get(name, NORMALISED) for name in Thresholds._fields))


def _scales(checkpoint: Path) -> bool:
    """Whether scores and maps come out in [0, 1]; where no checkpoint was kept, as is usual."""
    import torch
    from anomalib.utils.serialization import anomalib_safe_globals

    if not checkpoint.is_file():
        return True
    with anomalib_safe_globals():
        content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    enabled = content.get("anomalib_components_enabled", {}).get("post_processor", True)
    wanted = content.get("anomalib_post_processor_config", {}).get("enable_normalization", True)
    # Without validation images there is nothing to scale by.
    lowest = content["state_dict"].get("post_processor.image_min")
    return bool(enabled and wanted and lowest is not None and torch.isfinite(lowest))


def _resized(images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Bring (1, 3, H, W) to the size of a graph that takes but one, bilinear with antialiasing."""
    if size is None or images.shape[-2:] == size:
        return images
    import torch
    from torch.nn.functional import interpolate

    return interpolate(torch.from_numpy(images), size, mode="bilinear", antialias=True).numpy()
