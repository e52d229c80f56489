"""Outputs of exported graphs compared with those of PyTorch on the same images: differences, verdicts and ranking."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import torch
from anomalib.models.components import AnomalibModule
from torch import Tensor

from anomalib_defect_plugins.inference.openvino import compile_full_precision
from anomalib_defect_plugins.metrics.ranking import rank

LabelledImages = Sequence[tuple[Tensor, bool]]
"""Images, shape (3, H, W), float in [0, 1], and whether they are defective."""


@dataclass
class ExportComparison:
    """Comparison of a graph with PyTorch.

    Args:
        difference: Maximum difference of scores and maps; ``None`` if the graph fails or an output is not finite.
        score_difference: Maximum difference of scores.
        changed_verdicts: Number of images with another label; ``None`` if the model predicts no labels.
        labels: Whether each image is defective.
        expected: Scores of PyTorch.
        found: Scores of the graph.
    """

    difference: float | None = 0.0
    score_difference: float = 0.0
    changed_verdicts: int | None = 0
    labels: list[bool] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)
    found: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float | None]:
        """Return ``images``, ``score_difference``, ``changed_verdicts``, ``image_AUROC`` and ``torch_image_AUROC``.

        Returns:
            The numbers, ``None`` where they are not defined; empty if the graph fails or an output is not finite.
        """
        if self.difference is None or not self.labels:
            return {}
        return {
            "images": len(self.labels),
            "score_difference": self.score_difference,
            "changed_verdicts": self.changed_verdicts,
            "image_AUROC": self._auroc(self.found),
            "torch_image_AUROC": self._auroc(self.expected),
        }

    def _auroc(self, scores: Sequence[float]) -> float | None:
        values, labels = np.array(scores), np.array(self.labels)
        ranking = rank(values[labels], [values[~labels]]) if len(values) == len(labels) else None
        return None if ranking is None else float(ranking.auroc)


def compare_exports(
    model: AnomalibModule, networks: Mapping[str, openvino.Model], images: LabelledImages
) -> dict[str, ExportComparison]:
    """Compare graphs with PyTorch, computed in single precision.

    Args:
        model: Model in evaluation mode.
        networks: Graphs by precision.
        images: Images to compare them on.
    """
    comparisons = {precision: ExportComparison() for precision in networks}
    graphs = {precision: _compile(network, images[0][0]) for precision, network in networks.items()}
    for image, is_defective in images:
        with torch.inference_mode():
            prediction = model(image[None].to(model.device))
        references = {
            name: value.float().cpu().numpy()
            for name in ("pred_score", "anomaly_map", "pred_label")
            if (value := getattr(prediction, name)) is not None
        }
        for precision, comparison in comparisons.items():
            if comparison.difference is not None:
                _compare(comparison, graphs[precision], image, is_defective, references)
    return comparisons


def _compile(network: openvino.Model, image: Tensor) -> openvino.CompiledModel | None:
    try:
        network = network.clone()
        network.reshape({0: [1, *image.shape]})
        return compile_full_precision(network, "LATENCY")
    except RuntimeError:  # the latency entries hold the reason
        return None


def _compare(
    comparison: ExportComparison,
    graph: openvino.CompiledModel | None,
    image: Tensor,
    is_defective: bool,
    references: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Add an image to a comparison."""
    try:
        results = {} if graph is None else graph({0: image[None].numpy()})
    except RuntimeError:
        results = {}
    outputs = {name: value for output, value in results.items() for name in output.names}
    comparison.labels.append(is_defective)
    differences = {
        name: float(np.abs(outputs[name].reshape(reference.shape).astype(np.float32) - reference).max())
        if name in outputs
        else math.nan
        for name, reference in references.items()
    }
    label = differences.pop("pred_label", math.nan)
    if not outputs or not all(map(math.isfinite, differences.values())):
        comparison.difference = None
        return
    comparison.difference = max(comparison.difference or 0.0, *differences.values(), 0.0)
    if "pred_score" in differences:
        comparison.score_difference = max(comparison.score_difference, differences["pred_score"])
        comparison.expected.append(float(references["pred_score"].ravel()[0]))
        comparison.found.append(float(outputs["pred_score"].ravel()[0]))
    if comparison.changed_verdicts is not None:
        comparison.changed_verdicts = None if math.isnan(label) else comparison.changed_verdicts + (label > 0)
