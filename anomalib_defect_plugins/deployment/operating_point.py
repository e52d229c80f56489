"""Operating points of bundles: that of the checkpoint, and another one, which is written into a copy."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_defect_plugins.core.checkpoint_keys import OPERATING_POINT_KEY
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.deployment.metadata import replace_thresholds
from anomalib_defect_plugins.inference.bundle import GRAPH, ONNX, find_graph, read_metadata
from anomalib_defect_plugins.inference.choose_threshold import Choice, graph_thresholds, write_model
from anomalib_defect_plugins.inference.graph_thresholds import GraphThresholds, write_graph
from anomalib_defect_plugins.inference.scoring import ImageScorer, read_stored

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule


def write_bundle(
    bundle: Path, out: Path, scorer: ImageScorer, choice: Choice, are_maxima: bool, precision: str | None = None
) -> str:
    """Write a bundle with another threshold; other arguments, result and errors as of ``write_model``.

    Args:
        bundle: The bundle, or its OpenVINO graph.
        out: Folder to create.
        scorer: Its graph, loaded.
        choice: The threshold.
        are_maxima: Whether the score of an image is the maximum of its map.
        precision: Inference precision.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} exists; a bundle is written as a copy: choose a new folder (--write)"
        raise InvalidInputError(msg)
    bundle, metadata = find_graph(bundle).parent, read_metadata(bundle)
    with new_folder(out, "--write") as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
        line = write_model(folder / GRAPH, folder / GRAPH, scorer, choice, are_maxima, precision)
        if (folder / ONNX).is_file():
            write_graph(folder / ONNX, folder / ONNX, graph_thresholds(choice), choice.record())
        if metadata:
            replace_thresholds(folder, metadata, choice.record())
        return line.replace(str(folder / GRAPH), str(out))


def keep_operating_point(checkpoint: Path, model: "AnomalibModule", bundle: Path) -> Mapping[str, Any]:
    """Copy the operating point that ``anomalib-defects threshold`` has written into a checkpoint to exported graphs.

    The graphs already compute with its threshold; they get the record, by which ``inspect`` states error rates and
    applies a minimum area. They do not get it if their verdicts follow from another threshold than the recorded one.

    Args:
        checkpoint: The checkpoint.
        model: The model that was loaded from it.
        bundle: Folder with the graphs.

    Returns:
        The record; empty if there is none, or the model has another threshold by now.
    """
    record: Mapping[str, Any] = read_stored(checkpoint, OPERATING_POINT_KEY) or {}
    kinds = [kind for kind in ("image", "pixel") if f"{kind}_threshold" in record]
    if not kinds or not all(_has_threshold(model, kind, record) for kind in kinds):
        return {}
    if _has_threshold(model, "image", record) or record["min_area"] > 1:
        for path in filter(Path.is_file, (bundle / GRAPH, bundle / ONNX)):
            write_graph(path, path, GraphThresholds(), record)
    return record


def _has_threshold(model: "AnomalibModule", kind: str, record: Mapping[str, Any]) -> bool:
    threshold = getattr(model.post_processor, f"{kind}_threshold", None)
    return threshold is not None and np.float32(threshold.item()) == np.float32(record["threshold"])
