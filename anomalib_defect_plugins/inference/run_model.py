"""Loading of the models of benchmark runs: OpenVINO graphs, or checkpoints with weights only, never pickled objects."""

import inspect
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_defect_plugins.core.errors import LOAD_ERRORS, InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.openvino_core import of_batch, openvino_core
from anomalib_defect_plugins.results.record import RunRecord, setting_title

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule

PREFERRED_PRECISIONS = ("FP32", "FP16", "INT8")
"""Precisions of graphs in order of preference: 8 bits may differ from the trained model."""

CHECKPOINT = "model.ckpt"

NORMALIZED_THRESHOLD = 0.5
"""Threshold of scores and maps that anomalib's post-processor has normalized."""

Outputs = Mapping[str, npt.NDArray[Any] | None]
"""Outputs of a model by name."""


class Thresholds(NamedTuple):
    """Thresholds from which an image or a pixel is defective.

    Args:
        image: Threshold of image scores; NaN if there is none.
        pixel: Threshold of anomaly maps; NaN if there is none.
    """

    image: float
    pixel: float


class Prediction(NamedTuple):
    """Prediction for one image.

    Args:
        score: Image score.
        anomaly_map: Anomaly map, shape (h, w), float32, possibly of another size than the image; ``None`` if the model
            has none.
        seconds: Inference time.
    """

    score: float
    anomaly_map: npt.NDArray[np.float32] | None
    seconds: float


class LoadedModel(ABC):
    """A model for prediction, which several threads may use.

    Args:
        engine: Name of the inference engine, for display.
        thresholds: Thresholds in the units of the scores and maps.

    Attributes:
        engine: Name of the inference engine, for display.
        thresholds: Thresholds in the units of the scores and maps; 0.5 where these are normalized to [0, 1], and NaN
            if the model was not validated.
    """

    def __init__(self, engine: str, thresholds: Thresholds) -> None:
        self.engine = engine
        self.thresholds = thresholds

    @abstractmethod
    def _infer(self, images: npt.NDArray[np.float32]) -> Outputs:
        """Return ``pred_score`` and ``anomaly_map`` for an image, shape (1, 3, H, W), float32 in [0, 1]."""

    def __call__(self, image: npt.NDArray[np.uint8]) -> Prediction:
        """Predict one image.

        Args:
            image: Image of any size, shape (H, W, 3), uint8.

        Raises:
            InvalidInputError: If the model fails, or its score is not finite.
        """
        values = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        start = time.perf_counter()
        try:
            outputs = self._infer(values)
        except RuntimeError as error:
            msg = (
                f"the model fails on an image of {image.shape[1]}x{image.shape[0]} pixels; use an image of another size"
            )
            raise InvalidInputError(msg) from error
        seconds = time.perf_counter() - start
        return Prediction(_score(outputs), _anomaly_map(outputs), seconds)


def _score(outputs: Outputs) -> float:
    scores = outputs["pred_score"]
    score = math.nan if scores is None else float(scores.reshape(-1)[0])
    if not math.isfinite(score):
        msg = f"the model returns the score {score}; train it again with a lower learning rate"
        raise InvalidInputError(msg)
    return score


def _anomaly_map(outputs: Outputs) -> npt.NDArray[np.float32] | None:
    anomaly_map = outputs.get("anomaly_map")
    return None if anomaly_map is None else anomaly_map.reshape(anomaly_map.shape[-2:]).astype(np.float32)


class GraphModel(LoadedModel):
    """An OpenVINO graph.

    Args:
        path: The graph, ``model.xml``.
        thresholds: Thresholds in the units of its outputs.
    """

    def __init__(self, path: Path, thresholds: Thresholds) -> None:

        from anomalib_defect_plugins.inference.openvino import compile_full_precision

        precision = path.parent.name if path.parent.name in PREFERRED_PRECISIONS else "FP32"
        super().__init__(setting_title("openvino", precision), thresholds)
        network = openvino_core().read_model(path)
        shape = network.inputs[0].partial_shape
        self._size = (shape[2].get_length(), shape[3].get_length()) if shape[2].is_static else None
        self._graph = compile_full_precision(of_batch(network, 1), "LATENCY")

    def _infer(self, images: npt.NDArray[np.float32]) -> Outputs:
        request = self._graph.create_infer_request()
        request.infer({0: _resize(images, self._size)})
        names = ((name, output) for output in self._graph.outputs for name in output.names)
        return {name: request.get_tensor(output).data.copy() for name, output in names}


class TorchModel(LoadedModel):
    """A model in PyTorch.

    Args:
        module: The model, in evaluation mode.
        thresholds: Thresholds in the units of its outputs.
    """

    def __init__(self, module: "AnomalibModule", thresholds: Thresholds) -> None:
        super().__init__("PyTorch", thresholds)
        self._module = module
        self._lock = threading.Lock()

    def _infer(self, images: npt.NDArray[np.float32]) -> Outputs:
        import torch

        with self._lock, torch.inference_mode():
            prediction = self._module(torch.from_numpy(images))
        outputs = {"pred_score": prediction.pred_score, "anomaly_map": prediction.anomaly_map}
        return {name: None if output is None else output.float().numpy() for name, output in outputs.items()}


def model_files(folder: Path) -> list[Path]:
    """Return the possible files of a run's model, in order of preference; they may not exist."""
    graphs = (folder / "openvino" / precision / "model.xml" for precision in PREFERRED_PRECISIONS)
    return [*graphs, folder / CHECKPOINT]


def load_model(record: RunRecord) -> LoadedModel:
    """Load the model of a run: an OpenVINO graph if there is one, else the checkpoint.

    Raises:
        InvalidInputError: If it cannot be loaded.
        MissingDataError: If the run has kept no model.
    """
    path = next((path for path in model_files(record.folder) if path.is_file()), None)
    if path is None:
        msg = f"the run of {record.run.model.name} kept no model; run the benchmark with 'keep: {{model: true}}'"
        raise MissingDataError(msg)
    try:
        return _load_checkpoint(path, record) if path.name == CHECKPOINT else GraphModel(path, _thresholds(record))
    except LOAD_ERRORS as error:
        msg = f"the model of the run {record.key} ({record.run.model.name}) cannot be loaded; repeat the run"
        raise InvalidInputError(msg) from error


def model_class(name: str) -> "type[AnomalibModule]":
    """Return a registered model by its name or import path, without importing what the path names.

    Raises:
        InvalidInputError: If the model is not registered.
    """
    import anomalib.models
    from anomalib.models.components import AnomalibModule

    from anomalib_defect_plugins.plugins import connect

    connect()
    candidate = getattr(anomalib.models, name.rpartition(".")[2], None)
    if not (isinstance(candidate, type) and issubclass(candidate, AnomalibModule)):
        msg = f"{name!r} is not a registered model; install the plugin that provides it"
        raise InvalidInputError(msg)
    return candidate


def load_checkpoint(path: Path, cls: "type[AnomalibModule]") -> "AnomalibModule":
    """Load a checkpoint on the CPU, in evaluation mode, with weights only and never pickled objects.

    Raises:
        Exception: Any of ``LOAD_ERRORS`` if the checkpoint is damaged or one of another model.
    """
    import torch

    options: dict[str, Any] = {"evaluator": False, "visualizer": False}
    if "pre_trained" in inspect.signature(cls.__init__).parameters:
        options["pre_trained"] = False  # the weights are in the checkpoint and need not be downloaded
    with torch.random.fork_rng(devices=[]):
        # _instantiator: a checkpoint must not choose the function that creates the model.
        module = cls.load_from_checkpoint(path, map_location="cpu", weights_only=True, _instantiator=None, **options)
    return module.eval().requires_grad_(False)


def _load_checkpoint(path: Path, record: RunRecord) -> LoadedModel:
    module = load_checkpoint(path, model_class(record.run.model.class_path or ""))
    return TorchModel(module, _thresholds(record))


def _thresholds(record: RunRecord) -> Thresholds:
    """Return the thresholds in the units of the model's outputs."""
    own = [record.thresholds.get(name) for name in Thresholds._fields]
    if any(value is not None for value in own) and _is_normalized(record.folder / CHECKPOINT):
        return Thresholds(NORMALIZED_THRESHOLD, NORMALIZED_THRESHOLD)
    return Thresholds(*(math.nan if value is None else value for value in own))


def _is_normalized(checkpoint: Path) -> bool:
    """Whether scores and maps are in [0, 1]; the default of anomalib is assumed if no checkpoint was kept."""
    import torch
    from anomalib.utils.serialization import anomalib_safe_globals

    if not checkpoint.is_file():
        return True
    with anomalib_safe_globals():
        content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    has_post_processor = content.get("anomalib_components_enabled", {}).get("post_processor", True)
    normalizes = content.get("anomalib_post_processor_config", {}).get("enable_normalization", True)
    # Without validation images the range of scores is unknown.
    minimum = content["state_dict"].get("post_processor.image_min")
    return bool(has_post_processor and normalizes and minimum is not None and torch.isfinite(minimum))


def _resize(images: npt.NDArray[np.float32], size: Size | None) -> npt.NDArray[np.float32]:
    """Resize images, shape (1, 3, H, W), to the size of a fixed-size graph, bilinear with antialiasing."""
    if size is None or images.shape[-2:] == size:
        return images
    import torch
    from torch.nn.functional import interpolate

    resized: npt.NDArray[np.float32] = interpolate(
        torch.from_numpy(images), size, mode="bilinear", antialias=True
    ).numpy()
    return resized
