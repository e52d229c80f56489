"""Exported graphs: the verdicts of PyTorch at any scale of scores, in half precision and 8 bits, and no threshold."""

import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import openvino
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.deploy import CompressionType
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from openvino import opset13 as ops
from torch import Tensor, nn

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.inference.graph_checks import has_threshold
from anomalib_defect_plugins.inference.openvino import FULL_PRECISION
from anomalib_defect_plugins.models.components.checked_export import before_distances, quantisation, tail
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.post_processing import DefectPostProcessor, UnitPostProcessor
from anomalib_defect_plugins.testing.runs import run_openvino

IMAGES = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) ** 3

MAPS = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)) ** 3 * 50

SIZE = (32, 32)


class Network(nn.Module):
    """A convolution, whose squares are the anomaly map; scores are its maxima.

    Args:
        scale: Factor of maps and scores.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = scale

    def forward(self, image: Tensor) -> InferenceBatch:
        """Return maps (B, 1, H, W) and scores (B,)."""
        maps = self.convolution(image).square().sum(1, keepdim=True) * self.scale
        return InferenceBatch(pred_score=maps.amax((1, 2, 3)), anomaly_map=maps)


class Small(DefectModel, AnomalibModule):
    """A model with a given post-processor."""

    supervision = Supervision.ONE_SHOT
    trainer_arguments = {}  # noqa: RUF012 - a property in anomalib

    def __init__(self, scale: float = 1) -> None:
        super().__init__(SIZE, False, True, False, False)
        self.model = Network(scale)


def validate(post_processor: PostProcessor, output: InferenceBatch) -> None:
    """Set the threshold of images in the widest gap of the upper half, that of pixels at 0.9, and the ranges."""
    scores, pixels = output.pred_score.sort().values, output.anomaly_map.flatten().sort().values
    gap = 6 + int(scores[6:-2].diff().argmax())
    post_processor._image_threshold.copy_((scores[gap] + scores[gap + 1]) / 2)
    post_processor._pixel_threshold.copy_(pixels[int(0.9 * len(pixels))])
    for name, values in (("image", scores), ("pixel", pixels)):
        getattr(post_processor, f"{name}_min").copy_(values[1])  # a value is beyond the range at either end
        getattr(post_processor, f"{name}_max").copy_(values[-2])


def labels(graph: dict[str, npt.NDArray[Any]]) -> list[bool]:
    return [bool(label) for label in graph["pred_label"].reshape(-1)]


CASES: list[tuple[float, float, type[DefectPostProcessor]]] = [
    (1e-20, 0, DefectPostProcessor),
    (1, -30, DefectPostProcessor),
    (1e-15, 0, UnitPostProcessor),
    (1e-6, 1 - 2**-11, UnitPostProcessor),  # half precision would round the threshold to this offset
]
"""Scale and offset of scores and maps, and the post-processor."""


class Cases(nn.Module):
    """The post-processors of all cases on maps, shape (B, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.post_processors = nn.ModuleList(cls() for _, _, cls in CASES)
        for post_processor, output in zip(self.post_processors, self.raw(MAPS), strict=True):
            validate(cast(Any, post_processor), output)

    def raw(self, maps: Tensor) -> list[InferenceBatch]:
        """Return scores and maps of each case."""
        scaled = [maps * scale + offset for scale, offset, _ in CASES]
        return [InferenceBatch(pred_score=each.amax((1, 2, 3)), anomaly_map=each) for each in scaled]

    def forward(self, maps: Tensor) -> list[Tensor]:
        """Return score, label, map and mask of each case."""
        pairs = zip(self.post_processors, self.raw(maps), strict=True)
        return [value for post_processor, output in pairs for value in post_processor(output)]


@pytest.fixture(scope="module")
def cases() -> Cases:
    return Cases().eval()


@pytest.fixture(scope="module")
def graphs(cases: Cases, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Graphs of the cases: ONNX, and OpenVINO in single and half precision."""
    folder = tmp_path_factory.mktemp("graphs")
    torch.onnx.export(cases, (MAPS,), str(folder / "model.onnx"), opset_version=18, dynamo=True)
    network = openvino.convert_model(folder / "model.onnx")
    openvino.save_model(network, folder / "full.xml", compress_to_fp16=False)
    openvino.save_model(network, folder / "half.xml", compress_to_fp16=True)
    return {path.stem: path for path in (folder / "model.onnx", folder / "full.xml", folder / "half.xml")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "full", "half"])
def test_graphs_give_the_verdicts_of_pytorch(cases: Cases, graphs: dict[str, Path], kind: str) -> None:
    compiled = openvino_core().compile_model(graphs[kind], "CPU", FULL_PRECISION)
    found = list(compiled([MAPS.numpy()]).values())
    with torch.inference_mode():
        expected = cases(MAPS)
    assert len(found) == len(expected) == 4 * len(CASES)
    for number, (raw, post_processor) in enumerate(zip(cases.raw(MAPS), cases.post_processors, strict=True)):
        score, label, normalized, mask = (torch.from_numpy(value) for value in found[4 * number : 4 * number + 4])
        post = cast(Any, post_processor)
        assert torch.equal(label, raw.pred_score >= post.image_threshold), CASES[number]
        assert 0 < label.sum() < len(label)
        assert torch.equal(score >= 0.5, label)
        # Rounding of the scale may move the pixels that the threshold is near to.
        assert (mask != (raw.anomaly_map >= post.pixel_threshold)).float().mean() < 2e-3, CASES[number]
        tolerance = 2e-3 if kind == "half" else 1e-4
        assert torch.allclose(score, expected[4 * number], atol=tolerance), CASES[number]
        assert torch.allclose(normalized, expected[4 * number + 2], atol=max(tolerance, 4e-3)), CASES[number]


@pytest.mark.slow
def test_without_thresholds_the_graph_has_no_labels_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Small(scale=100).eval()
    with caplog.at_level(logging.WARNING, "anomalib_defect_plugins"):
        path = model.to_openvino(tmp_path, input_size=SIZE)
    (record,) = [record for record in caplog.records if "has no thresholds" in record.message]
    assert "\n" not in record.message
    assert "--threshold" in record.message
    graph = run_openvino(path, IMAGES)
    assert sorted(graph) == ["anomaly_map", "pred_score"]
    with torch.inference_mode():
        np.testing.assert_allclose(graph["pred_score"], model.model(IMAGES).pred_score, rtol=1e-4)
    assert graph["pred_score"].max() > 1
    assert model.post_processor.enable_thresholding
    assert not has_threshold(openvino_core().read_model(path))
    with pytest.raises(ConfigurationError, match="INT8_ACQ compares labels, but Small has no thresholds; validate"):
        model._compress_ov_model(openvino_core().read_model(path), CompressionType.INT8_ACQ)


class Stock(AnomalibModule):
    """A model as anomalib has them, with its post-processor."""

    trainer_arguments = {}  # noqa: RUF012 - a property in anomalib
    learning_type = DefectModel.learning_type

    def __init__(self) -> None:
        super().__init__(False, True, False, False)
        self.model = Network(100)


@pytest.mark.parametrize("known", [(), pytest.param(("image",), marks=pytest.mark.slow)])
def test_a_graph_of_a_stock_model_has_a_threshold_only_after_validation(tmp_path: Path, known: tuple[str, ...]) -> None:
    model = Stock().eval()
    for name in known:
        for field, value in ((f"_{name}_threshold", 3.0), (f"{name}_min", 1.0), (f"{name}_max", 9.0)):
            getattr(model.post_processor, field).fill_(value)
    path = model.to_openvino(tmp_path, input_size=SIZE)
    assert has_threshold(openvino_core().read_model(path)) == bool(known)


@pytest.mark.slow
def test_what_follows_the_convolutions_is_not_quantised(tmp_path: Path) -> None:
    nncf = pytest.importorskip("nncf", reason="8-bit quantisation needs nncf")
    model, quantise = Small(1e-15).eval(), nncf.quantize
    with torch.inference_mode():
        validate(cast(Any, model.post_processor), model.model(IMAGES))
        expected = model(IMAGES)
    onnx = model.to_onnx(tmp_path, input_size=SIZE)
    network = openvino.convert_model(onnx)
    assert "Convolution" not in {
        node.get_type_name() for node in network.get_ordered_ops() if node.get_friendly_name() in tail(network)
    }

    class Data:
        def setup(self, stage: str) -> None:
            del stage

        def val_dataloader(self) -> Any:
            return torch.utils.data.DataLoader([{"image": image} for image in IMAGES])

    quantised = model._compress_ov_model(network, CompressionType.INT8_PTQ, cast(Any, Data()))
    assert nncf.quantize is quantise
    kinds = [node for node in quantised.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    targets = {port.get_node().get_type_name() for node in kinds for port in node.output(0).get_target_inputs()}
    assert targets
    assert targets <= {"Convolution", "Reshape"}
    compiled = openvino.compile_model(quantised, "CPU")
    results = [compiled(image[None].numpy()) for image in IMAGES]  # one at once, see of_batch
    graph = {name: np.concatenate([result[name] for result in results]) for name in ("pred_score", "pred_label")}
    assert labels(graph) == expected.pred_label.tolist()
    assert len(np.unique(graph["pred_score"])) == len(IMAGES)  # quantised scores would be equal


def convolved(node: openvino.Node, name: str) -> openvino.Node:
    filters = np.random.default_rng(len(name)).normal(size=(4, node.get_output_shape(0)[1], 3, 3)).astype(np.float32)
    result = ops.convolution(node, filters, [1, 1], [1, 1], [1, 1], [1, 1])
    result.set_friendly_name(name)
    return result


@pytest.fixture
def graph_with_distances() -> openvino.Model:
    """Two convolutions with a norm between them, distances of their features to five centres, and a branch."""
    image = ops.parameter([1, 3, 8, 8], np.float32)
    first = convolved(image, "first")
    centred = ops.subtract(first, ops.reduce_mean(first, np.array([2, 3]), keep_dims=True))
    deviation = ops.sqrt(ops.reduce_mean(ops.power(centred, np.float32(2)), np.array([2, 3]), keep_dims=True))
    features = convolved(ops.divide(centred, deviation), "features")
    centers = np.random.default_rng(0).normal(size=(5, 4, 1, 1)).astype(np.float32)
    squares = ops.reduce_sum(ops.power(ops.subtract(features, centers), np.float32(2)), np.array([1]), keep_dims=False)
    distances = ops.reduce_min(squares, np.array([0]), keep_dims=True)
    branch = convolved(convolved(features, "branch"), "logits")
    return openvino.Model([distances, branch], [image])


def test_layers_before_distances_to_the_nearest_centre_are_found(graph_with_distances: openvino.Model) -> None:
    assert sorted(before_distances(graph_with_distances)) == ["features", "first"]


def test_convolutions_that_compute_distances_are_not_quantised() -> None:
    image = ops.parameter([1, 3, 8, 8], np.float32)
    distances = ops.add(convolved(convolved(image, "features"), "distances"), np.ones((1, 4, 1, 1), np.float32))
    lowest = ops.reduce_min(distances, np.array([1]), keep_dims=True)
    network = openvino.Model([lowest, convolved(convolved(image, "branch"), "logits")], [image])
    names = quantisation(network)["ignored_scope"].names
    assert "distances" in names
    assert not {"features", "branch"} & set(names)


def test_a_graph_without_distances_has_no_layers_before_them() -> None:
    image = ops.parameter([1, 3, 8, 8], np.float32)
    assert before_distances(openvino.Model([convolved(image, "first")], [image])) == []


def test_a_minimum_of_the_map_is_no_distance() -> None:
    """It would leave nothing to quantise; a region of interest has one."""
    image = ops.parameter([1, 3, 8, 8], np.float32)
    lowest = ops.reduce_min(convolved(convolved(image, "first"), "map"), np.array([2, 3]), keep_dims=True)
    assert before_distances(openvino.Model([lowest], [image])) == []


@pytest.mark.parametrize(
    ("kept", "expected"),
    [((), {"branch", "features", "first", "logits"}), (("features", "first"), {"branch", "logits"})],
)
def test_only_convolutions_are_quantised(
    graph_with_distances: openvino.Model, kept: tuple[str, ...], expected: set[str]
) -> None:
    """Not the means and variances of the norm."""
    nncf = pytest.importorskip("nncf", reason="8-bit quantisation needs nncf")
    images = np.random.default_rng(0).random((4, 1, 3, 8, 8), dtype=np.float32)
    arguments = quantisation(graph_with_distances, kept)
    quantised = nncf.quantize(graph_with_distances, nncf.Dataset(list(images)), **arguments)
    changed = set()
    for node in quantised.get_ordered_ops():
        sources = [node.input_value(index).get_node().get_type_name() for index in range(node.get_input_size())]
        if "FakeQuantize" in sources:
            changed.add(node.get_friendly_name())
    assert changed == expected
