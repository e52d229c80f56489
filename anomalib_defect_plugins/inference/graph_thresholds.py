"""Thresholds of exported graphs, OpenVINO and ONNX, replaced without the model that they were exported from.

An exported graph computes with thresholds and ranges that are merged into other constants, so that they cannot be
found in it. Its outputs can be compared with new thresholds all the same::

    pred_label = pred_score >= threshold
    pred_mask = anomaly_map >= threshold

Scores and maps of a graph that normalises them are then scaled linearly on either side, so that 0.5 is the threshold
again, and their order is preserved. Those of a graph without thresholds stay raw.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import openvino
from openvino import opset13 as ops

from anomalib_defect_plugins.core.checkpoint_keys import OPERATING_POINT_KEY
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import atomic_path
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.inference.graph_checks import is_normalized

if TYPE_CHECKING:
    import onnx

BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0)))

MAX_ONNX_BYTES = 2**31 - 2**20
"""Maximum size of an ONNX graph in one file."""

VERDICTS = {"pred_score": "pred_label", "anomaly_map": "pred_mask"}
"""Outputs that are compared with a threshold, and the outputs with the result."""


@dataclass(frozen=True)
class GraphThresholds:
    """New thresholds of a graph.

    Args:
        image: Score from which an image is defective, in the present units of ``pred_score``; ``None`` keeps the
            verdicts.
        pixel: Value of the anomaly map from which a pixel is defective, in its present units; ``None`` keeps the masks.
            With it, and without ``image``, the score of an image is its highest pixel.
    """

    image: float | None = None
    pixel: float | None = None


class Scale(NamedTuple):
    """Factors and offsets of the linear map of [0, 1] that moves a threshold to 0.5.

    Args:
        below: Factor of values below the threshold.
        above: Factor of values above it.
        offset: Value that is added above it.
    """

    below: float
    above: float
    offset: float


def write_graph(model: Path, out: Path, thresholds: GraphThresholds, note: Mapping[str, Any]) -> None:
    """Write a graph with other thresholds.

    Args:
        model: Graph as anomalib exports it, ``.xml`` or ``.onnx``.
        out: The graph to write, of the same format; may be ``model``.
        thresholds: The thresholds; without any, only the record is written.
        note: Record of the operating point, as JSON values, which is written into the metadata.

    Raises:
        InvalidInputError: If the format differs, the thresholds do not fit the graph, or a file cannot be written.
    """
    if out.suffix != model.suffix:
        msg = f"{out} has another format than {model}; use {out.with_suffix(model.suffix)}"
        raise InvalidInputError(msg)
    write = _write_onnx if model.suffix == ".onnx" else _write_openvino
    normalized = is_normalized(openvino_core().read_model(model))
    text = json.dumps({**note, "normalized": normalized})
    try:
        write(model, out, thresholds, normalized, text)
    except OSError as error:
        msg = f"cannot write {out} ({error.strerror or error}); choose another file (--write)"
        raise InvalidInputError(msg) from error


def _write_openvino(model: Path, out: Path, thresholds: GraphThresholds, normalized: bool, note: str) -> None:
    network = openvino_core().read_model(model)
    set_graph_thresholds(network, thresholds, normalized)
    network.set_rt_info(note, [OPERATING_POINT_KEY])
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as folder:
        partial = Path(folder) / out.name
        # Constants in half precision would round the thresholds; those that the graph has stay as they are.
        openvino.save_model(network, partial, compress_to_fp16=False)
        os.replace(partial.with_suffix(".bin"), out.with_suffix(".bin"))
        os.replace(partial, out)


def set_graph_thresholds(network: openvino.Model, thresholds: GraphThresholds, normalized: bool) -> None:
    """Replace the thresholds of an OpenVINO graph in memory.

    Args:
        network: The graph.
        thresholds: The thresholds.
        normalized: Whether its scores and maps are in [0, 1], and are to be scaled.

    Raises:
        InvalidInputError: If the graph lacks an output, or a threshold is at an end of the range that it clips to.
    """
    outputs = {name: output for output in network.outputs for name in output.names}
    sources = {name: output.get_node().input_value(0) for name, output in outputs.items()}
    values: dict[str, tuple[openvino.Output, float]] = {}
    for name, threshold in _changes(thresholds, sources).items():
        source = sources[name]
        if name == "pred_score" and thresholds.image is None:
            maps = sources["anomaly_map"]
            axes = np.arange(1, len(maps.partial_shape))
            source = ops.reduce_max(maps, axes, keep_dims=False).output(0)
        values[name] = source, threshold
    for name, (source, threshold) in values.items():
        verdict = ops.greater_equal(source, _constant(threshold))
        _replace_output(network, outputs, VERDICTS[name], verdict.output(0))
        scaled = _scaled(source, threshold, verdict) if normalized else source
        _replace_output(network, outputs, name, scaled)
    network.validate_nodes_and_infer_types()


def _changes(thresholds: GraphThresholds, outputs: Mapping[str, Any]) -> dict[str, float]:
    """Return the threshold of each output that changes."""
    image = thresholds.image if thresholds.image is not None else thresholds.pixel
    changes = {"pred_score": image, "anomaly_map": thresholds.pixel}
    needed = {name: float(value) for name, value in changes.items() if value is not None}
    for name in needed:
        if name not in outputs:
            msg = f"the model has no output {name}; use one that 'anomalib export' has written with it"
            raise InvalidInputError(msg)
    return needed


def _constant(value: float) -> openvino.Output:
    return ops.constant(np.float32(value)).output(0)


def scale_to_half(threshold: float) -> Scale:
    """Return how values in [0, 1] are scaled so that a threshold becomes 0.5.

    Raises:
        InvalidInputError: If the threshold is at or beyond an end of the range, to which the graph clips all others.
    """
    if not 0 < threshold < 1:
        msg = (
            f"the threshold {threshold:g} is at an end of the range [0, 1] that the graph clips scores to; choose the "
            "threshold with the checkpoint of the model, and export it again"
        )
        raise InvalidInputError(msg)
    above = 0.5 / (1 - threshold)
    return Scale(0.5 / threshold, above, 1 - above)


def _scaled(values: openvino.Output, threshold: float, verdict: openvino.Node) -> openvino.Output:
    """Scale values in [0, 1] so that a threshold becomes 0.5 and they reach it exactly if their verdict is true."""
    scale = scale_to_half(threshold)
    below = ops.minimum(ops.multiply(values, _constant(scale.below)), _constant(BELOW_HALF))
    # Clamped, because rounding may leave a value at the threshold below 0.5.
    above = ops.maximum(ops.add(ops.multiply(values, _constant(scale.above)), _constant(scale.offset)), _constant(0.5))
    return ops.select(verdict, above, below).output(0)


def _replace_output(
    network: openvino.Model, outputs: Mapping[str, openvino.Output], name: str, value: openvino.Output
) -> None:
    """Connect an output of the graph to another value, or add it."""
    if name in outputs:
        result = outputs[name].get_node()
        former = result.input_value(0)
        former.get_tensor().set_names(former.get_tensor().names - {name})
        result.input(0).replace_source_output(value)
    else:
        network.add_results([ops.result(value)])
    value.get_tensor().set_names(value.get_tensor().names | {name})


def _write_onnx(model: Path, out: Path, thresholds: GraphThresholds, normalized: bool, note: str) -> None:
    import onnx

    content = onnx.load(model)
    if content.ByteSize() > MAX_ONNX_BYTES:
        msg = f"{model} has more than 2 GiB, the maximum of an ONNX file; write the threshold into an OpenVINO graph"
        raise InvalidInputError(msg)
    _set_onnx_thresholds(content.graph, thresholds, normalized)
    properties = {item.key: item.value for item in content.metadata_props}
    onnx.helper.set_model_props(content, {**properties, OPERATING_POINT_KEY: note})
    onnx.checker.check_model(content)
    with atomic_path(out, sync=True) as partial:
        onnx.save(content, partial)


def _set_onnx_thresholds(graph: "onnx.GraphProto", thresholds: GraphThresholds, normalized: bool) -> None:
    names = [output.name for output in graph.output]
    changes = _changes(thresholds, dict.fromkeys(names))
    suffix = f"_of_{len(graph.node)}_nodes"  # unique if thresholds are replaced again
    sources = {name: _rename(graph, name, name + suffix) for name in changes}
    add = _onnx_adder(graph, suffix)
    if thresholds.image is None and "anomaly_map" in sources:
        shape = next(output.type.tensor_type.shape for output in graph.output if output.name == "anomaly_map")
        axes = add("axes", np.arange(1, len(shape.dim)))
        sources["pred_score"] = add("ReduceMax", sources["anomaly_map"], axes, keepdims=0)
    for name, threshold in changes.items():
        verdict = VERDICTS[name]
        _rename(graph, verdict, verdict + suffix)
        if verdict not in names:
            _add_bool_output(graph, name, verdict)
        source = sources[name]
        add("GreaterOrEqual", source, add("threshold", np.float32(threshold)), output=verdict)
        if not normalized:
            add("Identity", source, output=name)
            continue
        scale = scale_to_half(threshold)
        below = add(
            "Min", add("Mul", source, add("below", np.float32(scale.below))), add("end", np.float32(BELOW_HALF))
        )
        moved = add("Mul", source, add("above", np.float32(scale.above)))
        above = add("Max", add("Add", moved, add("offset", np.float32(scale.offset))), add("half", np.float32(0.5)))
        add("Where", verdict, above, below, output=name)


def _onnx_adder(graph: "onnx.GraphProto", suffix: str) -> Callable[..., str]:
    """Return a function that appends a node, or a constant, and returns the name of its output."""
    import onnx

    def add(kind: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
        name = output or f"{kind}_{len(graph.node)}_{len(graph.initializer)}{suffix}"
        if isinstance(inputs[0], str):
            graph.node.append(onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        else:
            graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(inputs[0]), name))
        return name

    return add


def _rename(graph: "onnx.GraphProto", name: str, new: str) -> str:
    """Rename a value inside the graph, so that its name is free for another one."""
    for node in graph.node:
        for values in (node.input, node.output):
            for index, value in enumerate(values):
                if value == name:
                    values[index] = new
    return new


def _add_bool_output(graph: "onnx.GraphProto", like: str, name: str) -> None:
    import onnx

    output = onnx.ValueInfoProto()
    output.CopyFrom(next(output for output in graph.output if output.name == like))
    output.name = name
    output.type.tensor_type.elem_type = onnx.TensorProto.BOOL
    graph.output.append(output)
