"""Comparison of an exported graph with its model in PyTorch: scores, verdicts, maps and AUROC."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import openvino
from sklearn.metrics import roc_auc_score

from anomalib_defect_plugins.inference.openvino import compile_full_precision

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule

Picture = npt.NDArray[np.uint8]
"""Image, shape (H, W, 3), uint8, RGB."""

Outputs = Mapping[str, npt.NDArray[Any]]
"""Outputs of a graph for one image by name."""

SAME_SCORE = 1e-3
"""Scores that differ no more are the same, so that both verdicts are right for an image at the threshold.

Thresholds are often the score of an image, and rounding decides on which side of it that is.
"""

MAX_MAPS = 40
"""Maximum images whose maps are compared; scores and verdicts are compared for all."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for several images.

    Args:
        scores: Scores, shape (N,).
        verdicts: Whether each is defective, shape (N,); ``None`` if the model has no threshold.
        maps: Anomaly maps of the first ``MAX_MAPS`` images; empty if the model has none.
    """

    scores: npt.NDArray[np.float32]
    verdicts: npt.NDArray[np.bool_] | None
    maps: Sequence[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Bounds:
    """How far the predictions of a graph may be from those in PyTorch.

    Args:
        auroc_drop: Maximum decrease of the AUROC of images.
        changed_verdicts: Maximum share of images with another verdict, in [0, 1].
        difference: Maximum difference of scores and maps of a graph in single precision.
    """

    auroc_drop: float = 0.01
    changed_verdicts: float = 0.02
    difference: float = SAME_SCORE


@dataclass(frozen=True)
class Agreement:
    """How far the predictions of a graph are from those in PyTorch.

    Args:
        precision: Precision of the graph.
        images: Number of images.
        score_difference: Maximum difference of scores.
        map_difference: Maximum difference of maps; ``None`` without maps.
        changed_verdicts: Number of images with another verdict and score; ``None`` if the model has no threshold.
        auroc: AUROC of the images; ``None`` if they are not normal ones and defective ones with labels.
        torch_auroc: The same in PyTorch.
    """

    precision: str
    images: int
    score_difference: float
    map_difference: float | None
    changed_verdicts: int | None
    auroc: float | None
    torch_auroc: float | None

    @property
    def auroc_drop(self) -> float:
        """Decrease of the AUROC; 0 if there is none."""
        return 0.0 if self.auroc is None or self.torch_auroc is None else self.torch_auroc - self.auroc

    def excess(self, bounds: Bounds) -> float:
        """Return the highest of the deviations from PyTorch, as a multiple of its bound."""
        changed = (self.changed_verdicts or 0) / self.images
        ratios = [_ratio(self.auroc_drop, bounds.auroc_drop), _ratio(changed, bounds.changed_verdicts)]
        if self.precision == "FP32":
            ratios.append(_ratio(max(self.score_difference, self.map_difference or 0.0), bounds.difference))
        return max(ratios)

    def keeps(self, bounds: Bounds) -> bool:
        """Whether the bounds are kept, by finite predictions."""
        return bool(np.isfinite(self.score_difference)) and self.excess(bounds) <= 1

    def describe(self) -> str:
        """Return the deviations as part of a sentence."""
        parts = []
        if self.auroc is not None:
            parts.append(f"AUROC {self.auroc:.3f} after {self.torch_auroc:.3f}")
        if self.changed_verdicts is not None:
            parts.append(f"{self.changed_verdicts} of {self.images} verdicts changed")
        return ", ".join([*parts, f"scores differ by up to {self.score_difference:.2g}"])


def _ratio(value: float, bound: float) -> float:
    if not np.isfinite(value):
        return float("inf")
    return max(value, 0.0) / bound if bound > 0 else (0.0 if value <= 0 else float("inf"))


def predict_torch(model: "AnomalibModule", images: Sequence[Picture]) -> Predictions:
    """Predict images one by one with a model in evaluation mode."""
    import torch

    def outputs(image: Picture) -> Outputs:
        # Multiplied, as the image reader does.
        values = torch.from_numpy(image.transpose(2, 0, 1)[None] * np.float32(1 / 255))
        with torch.inference_mode():
            prediction = model(values.to(model.device))
        tensors = prediction._asdict().items()
        return {name: value.float().cpu().numpy() for name, value in tensors if value is not None}

    return predict(outputs, images)


def predict_graph(network: openvino.Model, images: Sequence[Picture]) -> Predictions:
    """Predict images one by one with a graph of 8-bit images, in single precision."""
    return predict(as_function(compile_full_precision(network, "LATENCY")), images)


def as_function(graph: openvino.CompiledModel) -> Callable[[Picture], Outputs]:
    """Return a compiled graph of 8-bit images as a function of one image."""
    return lambda image: {name: value for output, value in graph(image[None]).items() for name in output.names}


def predict(model: Callable[[Picture], Outputs], images: Sequence[Picture], maps: int = MAX_MAPS) -> Predictions:
    """Predict images one by one.

    Args:
        model: Function of an image that returns the outputs.
        images: The images.
        maps: Number of images whose maps are kept.
    """
    scores, verdicts = [], []
    kept: list[npt.NDArray[np.float32]] = []
    for image in images:
        outputs = model(image)
        scores.append(float(np.ravel(outputs["pred_score"])[0]))
        if "pred_label" in outputs:
            verdicts.append(bool(np.ravel(outputs["pred_label"])[0]))
        if "anomaly_map" in outputs and len(kept) < maps:
            kept.append(outputs["anomaly_map"].reshape(outputs["anomaly_map"].shape[-2:]).astype(np.float32))
    has_verdicts = len(verdicts) == len(scores)
    return Predictions(np.array(scores, np.float32), np.array(verdicts, bool) if has_verdicts else None, kept)


def compare(precision: str, graph: Predictions, torch: Predictions, labels: npt.NDArray[np.bool_]) -> Agreement:
    """Compare the predictions of a graph with those in PyTorch.

    Args:
        precision: Precision of the graph.
        graph: Predictions of the graph.
        torch: Predictions in PyTorch of the same images.
        labels: Whether each image is defective, shape (N,).
    """
    deviations = np.abs(graph.scores - torch.scores)
    differences = [np.abs(one - other).max() for one, other in zip(graph.maps, torch.maps, strict=False)]
    changed = None
    if graph.verdicts is not None and torch.verdicts is not None:
        is_same = deviations <= SAME_SCORE * min(1.0, float(np.abs(torch.scores).max()))
        changed = int(((graph.verdicts != torch.verdicts) & ~is_same).sum())
    return Agreement(
        precision=precision,
        images=len(labels),
        score_difference=float(deviations.max()),
        map_difference=float(np.max(differences)) if differences else None,
        changed_verdicts=changed,
        auroc=_auroc(graph.scores, labels),
        torch_auroc=_auroc(torch.scores, labels),
    )


def _auroc(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_]) -> float | None:
    if labels.all() or not labels.any() or not np.isfinite(scores).all():
        return None
    return float(roc_auc_score(labels, scores))
