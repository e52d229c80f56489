"""Scores of images from a checkpoint or an exported graph, before any threshold is applied to them."""

import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from anomalib_defect_plugins.core.checkpoint_keys import MODEL_KEY
from anomalib_defect_plugins.core.errors import LOAD_ERRORS, InvalidInputError, MissingDataError, UserError
from anomalib_defect_plugins.core.image_io import Size, read_image, to_bytes
from anomalib_defect_plugins.core.openvino_core import of_batch, openvino_core
from anomalib_defect_plugins.core.regions import region_score
from anomalib_defect_plugins.inference.bundle import find_graph

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule

GRAPHS = (".xml", ".onnx")
CHECKPOINTS = (".ckpt",)

Array = npt.NDArray[Any]


class Scored(NamedTuple):
    """Outputs of a model for an image.

    Args:
        score: Image score.
        anomaly_map: Anomaly map, shape (h, w), float32; ``None`` if the model has none.
        size: Height and width of the image.
    """

    score: float
    anomaly_map: npt.NDArray[np.float32] | None
    size: Size


class ImageScorer(ABC):
    """A model that scores images.

    Attributes:
        units: Units of its scores and maps, for display.
        thresholds: Present thresholds by kind, ``image`` and ``pixel``, in these units; NaN if there is none.
    """

    units: str
    thresholds: Mapping[str, float]

    @abstractmethod
    def infer(self, image: npt.NDArray[np.float32]) -> Mapping[str, Array | None]:
        """Return the outputs for an image, shape (1, 3, H, W), float32 in [0, 1]."""

    @abstractmethod
    def label(self, image: npt.NDArray[np.float32]) -> bool:
        """Whether the model itself, with its present threshold, calls an image of that kind defective."""

    def verdict(self, path: str) -> bool:
        """Whether the model itself, with its present threshold, calls an image file defective."""
        return self.label(read_image(path, self.size)[0][None])

    def __call__(self, path: str) -> Scored:
        """Score an image file.

        Raises:
            InvalidInputError: If the file cannot be read, or the model fails.
        """
        try:
            pixels, width, height = read_image(path, self.size)
            outputs = self.infer(pixels[None])
        except UserError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            msg = f"{path} cannot be scored ({reason[0]}); correct the file, or leave it out"
            raise InvalidInputError(msg) from error
        maps, scores = outputs.get("anomaly_map"), outputs.get("pred_score")
        plane = None if maps is None else maps.reshape(maps.shape[-2:]).astype(np.float32)
        if scores is None and plane is None:
            msg = "the model returns neither scores nor anomaly maps; use one that 'anomalib export' has written"
            raise InvalidInputError(msg)
        score = float(scores.reshape(-1)[0]) if scores is not None else float(cast(Array, plane).max())
        if not np.isfinite(score):
            msg = f"the model returns the score {score} for {path}; train it again with a lower learning rate"
            raise InvalidInputError(msg)
        return Scored(score, plane, (height, width))

    @property
    def size(self) -> Size | None:
        """Height and width that the model takes; ``None`` for any."""
        return None


class CheckpointScorer(ImageScorer):
    """A checkpoint, whose scores are those before the post-processor.

    Args:
        module: The model, in evaluation mode.
    """

    units = "raw scores of the model"

    def __init__(self, module: "AnomalibModule") -> None:
        self.module = module
        kinds = ("image", "pixel")
        self.thresholds = {
            kind: float(getattr(module.post_processor, f"{kind}_threshold", float("nan"))) for kind in kinds
        }

    def infer(self, image: npt.NDArray[np.float32]) -> Mapping[str, Array | None]:
        """Return the outputs for an image."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(image)
            batch = self.module.pre_processor(batch) if self.module.pre_processor else batch
            prediction = self.module.model(batch)
        outputs = {"pred_score": prediction.pred_score, "anomaly_map": prediction.anomaly_map}
        return {name: None if output is None else output.float().numpy() for name, output in outputs.items()}

    def label(self, image: npt.NDArray[np.float32]) -> bool:
        """Whether the model calls an image defective."""
        import torch

        with torch.inference_mode():
            return bool(self.module(torch.from_numpy(image)).pred_label.flatten()[0])


class GraphScorer(ImageScorer):
    """An exported graph, OpenVINO or ONNX, whose scores are those that it returns.

    Args:
        path: The graph.
        precision: Inference precision of OpenVINO; by default its choice for the processor, as in ``inspect``.
    """

    def __init__(self, path: Path, precision: str | None = None) -> None:

        from anomalib_defect_plugins.inference.graph_checks import (
            NORMALIZED_THRESHOLD,
            check_graph,
            is_normalized,
            read_note,
            takes_bytes,
        )

        network = openvino_core().read_model(path)
        self._size = check_graph(network, 0.0, 1, None)
        self.takes_bytes = takes_bytes(network)
        self.is_normalized = is_normalized(network)
        self.units = "scores of the graph" + (", in [0, 1]" if self.is_normalized else ", which are raw")
        own = NORMALIZED_THRESHOLD if self.is_normalized else float("nan")
        note = {} if self.is_normalized else read_note(network)
        self.thresholds = {
            kind: own if note.get(f"{kind}_threshold") is None else note[f"{kind}_threshold"]
            for kind in ("image", "pixel")
        }
        options = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
        network = of_batch(network, 1)
        self.graph = openvino_core().compile_model(network, "CPU", {"PERFORMANCE_HINT": "LATENCY", **options})
        self.names = {name: output for output in network.outputs for name in output.names}

    @property
    def size(self) -> Size | None:
        """Height and width that the graph takes, if fixed."""
        return self._size

    def infer(self, image: npt.NDArray[np.float32]) -> dict[str, Array]:
        """Return the outputs for an image."""
        request = self.graph.create_infer_request()
        pixels = np.stack([to_bytes(one) for one in image]) if self.takes_bytes else np.ascontiguousarray(image)
        request.infer({0: pixels})
        return {name: request.get_tensor(name).data.copy() for name in self.names}

    def label(self, image: npt.NDArray[np.float32]) -> bool:
        """Whether the graph calls an image defective."""
        return bool(self.infer(image)["pred_label"].reshape(-1)[0])


def load_scorer(model: Path, model_name: str | None = None, precision: str | None = None) -> ImageScorer:
    """Load a checkpoint or an exported graph.

    Args:
        model: ``.ckpt``, ``.xml`` or ``.onnx``, or a bundle.
        model_name: Name of the model of a checkpoint, such as ``Padim``; by default that in it or in its path.
        precision: Inference precision of a graph.

    Raises:
        MissingDataError: If the file does not exist.
        InvalidInputError: If it cannot be loaded.
    """
    model = find_graph(model) if model.is_dir() else model
    if model.suffix not in (*GRAPHS, *CHECKPOINTS):
        msg = f"{model} is not a model; use a checkpoint (.ckpt) or an exported graph (model.xml, model.onnx)"
        raise InvalidInputError(msg)
    if not model.is_file():
        msg = f"{model} not found; 'anomalib train' writes checkpoints, and 'anomalib export' graphs"
        raise MissingDataError(msg)
    try:
        return GraphScorer(model, precision) if model.suffix in GRAPHS else _checkpoint(model, model_name)
    except UserError:
        raise
    except LOAD_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        name = "" if model.suffix in GRAPHS else ", or another model with --model"
        msg = f"{model} cannot be loaded ({reason}); use another file{name}"
        raise InvalidInputError(msg) from error


def load_module(path: Path, name: str | None = None) -> "AnomalibModule":
    """Load the model of a checkpoint, in evaluation mode; arguments and errors as in :func:`load_scorer`."""
    scorer = load_scorer(path, name)
    if not isinstance(scorer, CheckpointScorer):
        msg = f"{path} is no checkpoint; use the .ckpt file of a training"
        raise InvalidInputError(msg)
    module = scorer.module
    if "pre_trained" in module.hparams:  # the value of the training, for descriptions of the model
        module.hparams["pre_trained"] = (read_stored(path, "hyper_parameters") or {}).get("pre_trained", True)
    return module


def _checkpoint(path: Path, name: str | None) -> CheckpointScorer:
    from anomalib_defect_plugins.inference.run_model import load_checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of packages that anomalib imports
        return CheckpointScorer(load_checkpoint(path, find_class(path, name)))


def _stored_name(path: Path) -> list[str]:
    """Return the name of the model that is stored in a checkpoint of this package's models."""
    name = read_stored(path, MODEL_KEY)
    return [name] if isinstance(name, str) else []


def read_stored(path: Path, key: str) -> Any:
    """Return a value that this package has added to a checkpoint; ``None`` if there is none."""
    import torch
    from anomalib.utils.serialization import anomalib_safe_globals

    with anomalib_safe_globals():
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content.get(key) if isinstance(content, Mapping) else None


def find_class(path: Path, name: str | None) -> "type[AnomalibModule]":
    """Return the class of the model in a checkpoint: the named one, the stored one, or one named in the path.

    anomalib writes checkpoints to ``results/Padim/MVTecAD/bottle/latest/weights/lightning/model.ckpt``.

    Raises:
        InvalidInputError: If there is no such model.
    """
    import anomalib.models
    from anomalib.models.components import AnomalibModule

    from anomalib_defect_plugins.plugins import connect

    connect()
    classes = {
        key.lower(): value
        for key, value in vars(anomalib.models).items()
        if isinstance(value, type) and issubclass(value, AnomalibModule)
    }
    candidates = [name.rpartition(".")[2]] if name else [*_stored_name(path), *reversed(path.resolve().parts[:-1])]
    for candidate in candidates:
        if found := classes.get(candidate.replace("_", "").lower()):
            return found
    if name:
        msg = f"there is no model {name}; 'anomalib-defects list' shows this package's, anomalib has more such as Padim"
    else:
        msg = f"the path {path} does not name the model of the checkpoint; pass it with --model, such as --model Padim"
    raise InvalidInputError(msg)


def score_images(
    scorer: ImageScorer, paths: Sequence[str], pixel: bool = False, min_area: int = 1
) -> tuple[npt.NDArray[np.float32], bool]:
    """Score images, with progress on standard error.

    Args:
        scorer: The model.
        paths: Image files.
        pixel: Whether the score of an image is the highest threshold at which a region of its map is a defect, instead
            of the model's own score.
        min_area: Minimum area of such a region, in pixels of the image.

    Returns:
        Scores, shape (N,), in single precision; and whether the model's own scores are the maxima of its maps.

    Raises:
        InvalidInputError: If an image cannot be scored, or the model has no maps.
    """
    scores, are_maxima = [], True
    for path in _with_progress(paths):
        scored = scorer(path)
        are_maxima &= scored.anomaly_map is not None and scored.score == float(scored.anomaly_map.max())
        scores.append(_region_score(scored, min_area) if pixel else scored.score)
    return np.array(scores, np.float32), are_maxima


def _region_score(scored: Scored, min_area: int) -> float:
    if scored.anomaly_map is None:
        msg = "the model has no anomaly maps, so that a threshold of pixels cannot be chosen; leave --pixel out"
        raise InvalidInputError(msg)
    return region_score(scored.anomaly_map, scored.size, min_area)


def _with_progress(paths: Sequence[str]) -> Iterable[str]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(paths, "scoring", console=console, transient=True, disable=not sys.stderr.isatty())
