"""Bundles: the folder of an exported model with its graphs, metadata and model card. Standard library only.

::

    model.xml, model.bin    OpenVINO graph of images, shape (N, H, W, 3), uint8, RGB, of any size
    model.onnx              the same graph in single precision
    metadata.json           thresholds, hash, versions, data, and the comparison with PyTorch
    README.md               model card
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError

GRAPH, ONNX, METADATA, CARD = "model.xml", "model.onnx", "metadata.json", "README.md"

FORMAT = "bundle_format"
"""Key of the version of the metadata, which tells them from files of other programs."""


def find_graph(model: Path) -> Path:
    """Return the OpenVINO graph of a bundle, or a graph itself.

    Raises:
        InvalidInputError: If it is neither.
        MissingDataError: If a file does not exist.
    """
    if not model.exists():
        msg = f"{model} not found; use a folder that 'anomalib-defects export' has written, or an OpenVINO graph"
        raise MissingDataError(msg)
    graph = model / GRAPH if model.is_dir() else model
    if graph.suffix != ".xml":
        msg = f"{model} is not an OpenVINO graph; use the model.xml of 'anomalib export --export_type openvino', or a "
        raise InvalidInputError(msg + "folder that 'anomalib-defects export' has written")
    for path in (graph, graph.with_suffix(".bin")):
        if not path.is_file():
            msg = f"{path} not found; 'anomalib-defects export' writes model.xml and model.bin, and so does 'anomalib "
            raise MissingDataError(msg + "export --export_type openvino'")
    return graph


def read_metadata(model: Path) -> dict[str, Any]:
    """Read the metadata of a bundle; empty for a graph without any.

    Args:
        model: Bundle, or its OpenVINO graph.

    Raises:
        InvalidInputError: If they cannot be read, or are those of another graph.
    """
    graph = find_graph(model)
    path = graph.with_name(METADATA)
    if not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} is damaged ({type(error).__name__}); export the model again"
        raise InvalidInputError(msg) from error
    if not isinstance(metadata, dict) or FORMAT not in metadata:  # of another program
        return {}
    if metadata.get("hash") != hash_graph(graph):
        msg = f"{path} describes another graph than {graph.name} beside it; copy the whole bundle, or export it again"
        raise InvalidInputError(msg)
    return metadata


def hash_graph(graph: Path) -> str:
    """Return the SHA-256 of an OpenVINO graph, ``model.xml`` and ``model.bin``, as hexadecimal digits."""
    digest = sha256()
    for path in (graph, graph.with_suffix(".bin")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
