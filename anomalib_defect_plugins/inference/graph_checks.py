"""Checks of exported OpenVINO graphs before they inspect images."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino

from anomalib_defect_plugins.core.checkpoint_keys import OPERATING_POINT_KEY
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.inference.bundle import find_graph

NORMALIZED_THRESHOLD = 0.5
"""Threshold of scores and maps that a graph has normalised."""


def check_graph(network: openvino.Model, threshold: float | None, batch: int, maps: Path | None) -> Size | None:
    """Check that a graph fits the settings.

    Args:
        network: The graph.
        threshold: Threshold of scores; ``None`` for the graph's own.
        batch: Batch size.
        maps: Folder for anomaly maps, if they are kept.

    Returns:
        Height and width of the images that it takes, or ``None`` if it takes any.

    Raises:
        InvalidInputError: If it does not take images, or batches of this size, or lacks an output or a threshold.
    """
    shape = network.inputs[0].partial_shape
    in_bytes = takes_bytes(network)
    is_image = shape.rank.is_static and shape.compatible(openvino.PartialShape([-1, 3, -1, -1]))
    if len(network.inputs) != 1 or not (is_image or in_bytes):
        msg = "the model does not take images (N, 3, H, W); use the model.xml that 'anomalib export' has written"
        raise InvalidInputError(msg)
    if shape[0].is_static and shape[0].get_length() != batch:
        msg = f"the model takes {counted(shape[0].get_length(), 'image')} at once, not {batch}; use --batch {shape[0]}"
        raise InvalidInputError(msg)
    _check_outputs(network, threshold, maps)
    height, width = (shape[1], shape[2]) if in_bytes else (shape[2], shape[3])
    return (height.get_length(), width.get_length()) if height.is_static and width.is_static else None


def takes_bytes(network: openvino.Model) -> bool:
    """Whether a graph takes images, shape (N, H, W, 3), uint8, as those of a bundle do."""
    image = network.inputs[0]
    is_last = image.partial_shape.compatible(openvino.PartialShape([-1, -1, -1, 3]))
    return bool(image.element_type == openvino.Type.u8 and image.partial_shape.rank.is_static and is_last)


def has_threshold(network: openvino.Model) -> bool:
    """Whether a graph has labels, and they are computed with a threshold.

    anomalib 2.7 exports models without thresholds with NaN as the threshold, which labels raw scores above 0.5.
    """
    return bool(read_note(network)) or is_normalized(network)


def read_note(network: openvino.Model) -> dict[str, Any]:
    """Return the record of the operating point in a graph, OpenVINO or ONNX; empty if there is none."""
    for keys in ([OPERATING_POINT_KEY], ["framework", OPERATING_POINT_KEY]):
        if network.has_rt_info(keys):
            return dict(json.loads(network.get_rt_info(keys).astype(str)))
    return {}


class RegionRule(NamedTuple):
    """What makes an image defective, if defects have a minimum area.

    Args:
        threshold: Threshold of the anomaly map.
        min_area: Minimum area of a region at or above it, in pixels of the image.
    """

    threshold: float
    min_area: int


def region_rule(network: openvino.Model) -> RegionRule | None:
    """Return the rule of a graph whose operating point has a minimum area, which the graph itself cannot apply."""
    note = read_note(network)
    if note.get("min_area", 1) <= 1:
        return None
    return RegionRule(NORMALIZED_THRESHOLD if note["normalized"] else note["pixel_threshold"], note["min_area"])


def threshold_line(model: Path, threshold: float | None) -> str:
    """Describe where the threshold of a graph comes from, and what was measured with it, in one line.

    Args:
        model: The graph, or a bundle.
        threshold: Threshold that is used instead of the graph's own.
    """
    if threshold is not None:
        return f"threshold: {threshold:g}, given (--threshold); its error rates are not known"
    note = read_note(openvino_core().read_model(find_graph(model)))
    if not note:
        return "threshold: the model's own; its error rates are not recorded, 'anomalib-defects threshold' states them"
    rates = [f"{name.replace('_', ' ')} {_rate(note[name])}" for name in ("misses", "false_alarms") if note.get(name)]
    return (
        f"threshold: {note['rule']}, from {note['good']} good and {counted(note['bad'], 'defective image')} "
        f"({note['threshold_origin']}); {', '.join(rates)}"
    )


def _rate(rate: dict[str, float]) -> str:
    return f"{rate['count']} of {rate['total']} ({100 * rate['low']:.3g} to {100 * rate['high']:.3g} %)"


def is_normalized(network: openvino.Model) -> bool:
    """Whether a graph was exported with thresholds, and normalises scores and maps to [0, 1] by them."""
    if note := read_note(network):
        return bool(note["normalized"])
    labels = [output for output in network.outputs if "pred_label" in output.names]
    return bool(labels) and not any(_is_nan(node) for node in _sources(labels[0].get_node()))


def _check_outputs(network: openvino.Model, threshold: float | None, maps: Path | None) -> None:
    remedies = {"pred_score": "use"}
    if threshold is None:
        remedies["pred_label"] = "set --threshold, or use"
    if maps:
        remedies["anomaly_map"] = "leave --maps and --pictures out, or use"
    names = {name for output in network.outputs for name in output.names}
    for name, remedy in remedies.items():
        if name not in names:
            msg = f"the model has no output {name}; {remedy} one that 'anomalib export' has written with it"
            raise InvalidInputError(msg)
    if threshold is None and not has_threshold(network):
        msg = "the model has no threshold, because it was not validated after training, and returns raw scores; pass "
        raise InvalidInputError(msg + "--threshold with the score from which an image is defective")


def _sources(node: openvino.Node) -> Iterator[openvino.Node]:
    """Iterate over a node and all nodes that it depends on."""
    waiting, seen = [node], {node.get_friendly_name()}
    while waiting:
        current = waiting.pop()
        yield current
        for value in current.input_values():
            source = value.get_node()
            if source.get_friendly_name() not in seen:
                seen.add(source.get_friendly_name())
                waiting.append(source)


def _is_nan(node: openvino.Node) -> bool:
    """Whether a node is a constant that contains NaN only."""
    if node.get_type_name() != "Constant" or not node.get_element_type().is_real():
        return False
    return node.get_output_size() == 1 and bool(np.isnan(node.data.astype(np.float32)).all())
