"""An OpenVINO graph that needs no training: how bright an image is."""

import numpy as np
import openvino
from openvino import opset13 as ops


def bright_graph(
    *outputs: str, size: tuple[int, int] = (-1, -1), batch: int = -1, least_side: int = 1
) -> openvino.Model:
    """Make a graph as anomalib exports them.

    Args:
        outputs: Those that it has, of ``pred_score`` (the brightest value), ``pred_label`` (whether that is above 0.5)
            and ``anomaly_map`` (the mean over channels); by default all.
        size: Height and width of its images; by default any.
        batch: Images at once; by default any number.
        least_side: It fails on images with a shorter side.
    """
    image = ops.parameter([batch, 3, *size], np.float32)
    maps = ops.reduce_mean(image, np.array([1]), keep_dims=True)
    window = ops.avg_pool(image, [1, 1], [0, 0], [0, 0], [least_side, least_side], False)
    nothing = ops.multiply(ops.reduce_max(window, np.array([1, 2, 3]), keep_dims=False), np.float32(0))
    score = ops.add(ops.reduce_max(image, np.array([1, 2, 3]), keep_dims=False), nothing)
    nodes = {"pred_score": score, "pred_label": ops.greater(score, np.float32(0.5)), "anomaly_map": maps}
    for name, node in nodes.items():
        node.output(0).set_names({name})
    return openvino.Model([nodes[name] for name in outputs or nodes], [image])
