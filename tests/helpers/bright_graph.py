"""An OpenVINO graph that needs no training: it measures the brightness of an image."""

from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops
from openvino.preprocess import PrePostProcessor


def bright_graph(
    *outputs: str,
    size: tuple[int, int] = (-1, -1),
    batch: int = -1,
    min_side: int = 1,
    scale: float = 1,
    threshold: float = 0.5,
) -> openvino.Model:
    """Build a graph like those that anomalib exports.

    Args:
        outputs: Outputs of the graph: ``pred_score`` (the maximum), ``pred_label`` (whether it is above the threshold)
            and ``anomaly_map`` (the mean over channels); by default all.
        size: Height and width of its images; by default any.
        batch: Batch size; by default any.
        min_side: Minimum side of an image; the graph fails on smaller ones.
        scale: Factor of scores and maps.
        threshold: The threshold; NaN as in a graph of a model that was not validated.
    """
    image = ops.parameter([batch, 3, *size], np.float32)
    maps = ops.reduce_mean(image, np.array([1]), keep_dims=True)
    window = ops.avg_pool(image, [1, 1], [0, 0], [0, 0], [min_side, min_side], False)
    zero = ops.multiply(ops.reduce_max(window, np.array([1, 2, 3]), keep_dims=False), np.float32(0))
    score = ops.add(ops.reduce_max(image, np.array([1, 2, 3]), keep_dims=False), zero)
    if scale != 1:
        maps, score = (ops.multiply(node, np.float32(scale)) for node in (maps, score))
    nodes = {"pred_score": score, "pred_label": ops.greater(score, np.float32(threshold)), "anomaly_map": maps}
    for name, node in nodes.items():
        node.output(0).set_names({name})
    return openvino.Model([nodes[name] for name in outputs or nodes], [image])


def byte_graph(**arguments: Any) -> openvino.Model:
    """Build a bright graph of images, shape (N, H, W, 3), uint8, as in a bundle, with the mask of bright pixels too."""
    network = bright_graph(**arguments)
    maps = next(output for output in network.outputs if "anomaly_map" in output.names)
    mask = ops.greater_equal(maps.get_node().input_value(0), np.float32(arguments.get("threshold", 0.5)))
    mask.output(0).set_names({"pred_mask"})
    network = openvino.Model(
        [*(each.get_node().input_value(0) for each in network.outputs), mask.output(0)], network.parameters
    )
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    return steps.build()
