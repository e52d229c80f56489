"""Another threshold for a bundle: both graphs, the metadata and the model card, written as a copy."""

import shutil
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.deployment.metadata import replace_thresholds
from anomalib_defect_plugins.inference.bundle import GRAPH, ONNX, find_graph, read_metadata
from anomalib_defect_plugins.inference.choose_threshold import Choice, graph_thresholds, write_model
from anomalib_defect_plugins.inference.graph_thresholds import write_graph
from anomalib_defect_plugins.inference.scoring import ImageScorer


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
