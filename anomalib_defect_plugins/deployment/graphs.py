"""Graphs that take images as cameras yield them: 8 bits, channels last, of any size."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.deployment.quiet import quiet

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule

INPUT = "image"
"""Name of the input of the graphs, shape (N, H, W, 3), uint8, RGB."""


def write_onnx(model: "AnomalibModule", path: Path, size: Size | None = None) -> None:
    """Export a model to an ONNX graph of 8-bit images, shape (N, H, W, 3), RGB.

    Args:
        model: Trained model in evaluation mode.
        path: File to write.
        size: Height and width of the images; any by default.

    Raises:
        ConfigurationError: If the model cannot be exported.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with quiet():
                exported = Path(model.to_onnx(scratch, input_size=size))
        except Exception as error:  # converters raise errors of many types
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[-1] if lines else type(error).__name__
            msg = f"{model.name} cannot be exported for images of {'any size' if size is None else size} ({reason}); "
            advice = "set the size of the images (--size)" if size is None else "choose another size"
            raise ConfigurationError(msg + advice) from error
        _take_bytes(exported, path)


def _take_bytes(source: Path, target: Path) -> None:
    """Put the conversion from bytes in front of a graph that takes images (N, 3, H, W), float in [0, 1]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(source)
    graph = model.graph
    (old,) = graph.input
    dims = [dim.dim_param or dim.dim_value for dim in old.type.tensor_type.shape.dim]
    new = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [dims[0], dims[2], dims[3], 3])
    # Multiplied, as torchvision does and the images of the training were, because a division would round differently.
    graph.initializer.append(numpy_helper.from_array(np.float32(1 / 255), "byte_scale"))
    front = [
        helper.make_node("Transpose", [INPUT], ["image_bytes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["image_bytes"], ["image_values"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["image_values", "byte_scale"], [old.name]),
    ]
    nodes = [*front, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(new)
    onnx.save(model, target)


def read_network(path: Path) -> openvino.Model:
    """Convert an ONNX graph to an OpenVINO graph in memory."""
    with quiet():
        return openvino.convert_model(path)
