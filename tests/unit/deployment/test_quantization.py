"""8-bit graphs: the calibration images, and graphs that take any number of images."""

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import pytest
from openvino import opset13 as ops

from anomalib_defect_plugins.core.openvino_core import of_batch
from anomalib_defect_plugins.deployment.agreement import as_function
from anomalib_defect_plugins.deployment.quantization import calibration_images, quantize
from anomalib_defect_plugins.inference.openvino import compile_full_precision

IMAGES = list(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8))


def normed_graph() -> openvino.Model:
    """Return a convolution and a group norm, as exported, of any number of 8-bit images of 32x32."""
    image = ops.parameter([-1, 32, 32, 3], np.uint8, name="image")
    values = ops.multiply(ops.transpose(ops.convert(image, "f32"), np.array([0, 3, 1, 2])), np.float32(1 / 255))
    filters = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    x = ops.convolution(values, filters, [1, 1], [1, 1], [1, 1], [1, 1])

    def mean_of_group(node: openvino.Node) -> openvino.Node:
        means = ops.reshape(ops.reduce_mean(node, np.array([2, 3])), np.array([0, 1, -1]), special_zero=True)
        mean = ops.reduce_mean(means, np.array([2]), keep_dims=True)
        return ops.reshape(ops.broadcast(mean, ops.shape_of(means)), np.array([0, -1, 1, 1]), special_zero=True)

    mean = mean_of_group(x)
    variance = mean_of_group(ops.power(ops.subtract(x, mean), np.float32(2)))
    scale = ops.divide(np.ones((8, 1, 1), np.float32), ops.sqrt(ops.add(variance, np.float32(1e-5))))
    normed = ops.subtract(ops.multiply(x, scale), ops.multiply(mean, scale))
    result = ops.reduce_sum(ops.relu(normed), np.array([1]), keep_dims=True)
    result.output(0).set_names({"anomaly_map"})
    return openvino.Model([result], [image])


def predict(network: openvino.Model) -> npt.NDArray[np.float32]:
    graph = as_function(compile_full_precision(network, "LATENCY"))
    return np.stack([graph(image)["anomaly_map"] for image in IMAGES])


@pytest.fixture
def nncf() -> Any:
    return pytest.importorskip("nncf", reason="8-bit quantisation needs nncf")


@pytest.mark.usefixtures("nncf")
def test_the_map_behind_a_group_norm_is_that_of_single_precision() -> None:
    network = normed_graph()
    expected, found = predict(network), predict(quantize(network, IMAGES))
    assert np.abs(found - expected).max() < 0.1 * expected.std()
    assert network.inputs[0].partial_shape[0].is_dynamic  # the graph itself is as it was


def test_a_graph_of_any_number_of_images_is_fixed_to_one() -> None:
    network = normed_graph()
    assert [size.get_length() for size in of_batch(network, 4).inputs[0].partial_shape] == [4, 32, 32, 3]
    assert network.inputs[0].partial_shape[0].is_dynamic


def test_too_few_images_are_mirrored_and_every_second_draw_has_a_defect() -> None:
    draws = list(calibration_images(IMAGES[:2], 8))
    mirrored = [IMAGES[0], IMAGES[0][:, ::-1], IMAGES[0][::-1], IMAGES[0][::-1, ::-1]]
    assert len(draws) == 8
    assert all(np.array_equal(draw, image) for draw, image in zip(draws[::2], mirrored, strict=True))
    assert not np.array_equal(draws[1], IMAGES[1])
