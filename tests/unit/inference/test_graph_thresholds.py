"""Thresholds that are written into exported graphs, OpenVINO and ONNX."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino
import pytest
from bright_graph import bright_graph
from onnx import TensorProto, helper

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.inference.graph_checks import has_threshold, is_normalized, read_note, region_rule
from anomalib_defect_plugins.inference.graph_thresholds import GraphThresholds, write_graph

Outputs = dict[str, npt.NDArray[Any]]

NOTE = {"rule": "a rule", "min_area": 1}


def write_onnx(path: Path, outputs: tuple[str, ...] = ("pred_score", "pred_label", "anomaly_map", "pred_mask")) -> None:
    """Write an ONNX graph like ``bright_graph``, with a constant threshold of 0.5."""
    nodes = [
        helper.make_node("ReduceMean", ["input", "channel"], ["anomaly_map"], keepdims=1),
        helper.make_node("ReduceMax", ["input", "all"], ["pred_score"], keepdims=0),
        helper.make_node("Greater", ["pred_score", "half"], ["pred_label"]),
        helper.make_node("Greater", ["anomaly_map", "half"], ["pred_mask"]),
    ]
    constants = {"channel": np.array([1]), "all": np.array([1, 2, 3]), "half": np.array(0.5, np.float32)}
    shapes = {"pred_score": ["n"], "pred_label": ["n"]}
    kinds = {"pred_label": TensorProto.BOOL, "pred_mask": TensorProto.BOOL}
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [
            helper.make_tensor_value_info(
                name, kinds.get(name, TensorProto.FLOAT), shapes.get(name, ["n", 1, "h", "w"])
            )
            for name in outputs
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def write_xml(path: Path) -> None:
    openvino.save_model(bright_graph(), path, compress_to_fp16=False)


@pytest.fixture(params=["xml", "onnx"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A graph of either format that labels images by their maximum, above 0.5."""
    path = tmp_path / f"model.{request.param}"
    (write_onnx if request.param == "onnx" else write_xml)(path)
    return path


def infer(path: Path, images: npt.NDArray[np.float32]) -> Outputs:
    graph = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = graph.create_infer_request()
    request.infer({0: images})
    return {name: request.get_tensor(name).data.copy() for output in graph.outputs for name in output.names}


def images() -> npt.NDArray[np.float32]:
    """64 images of 8 x 8 whose maxima are all over [0, 1]."""
    rng = np.random.default_rng(0)
    return (rng.random((64, 3, 8, 8)) * np.linspace(0.05, 1, 64)[:, None, None, None]).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.1, 0.7310585, 0.995])
def test_labels_follow_the_new_threshold_and_scores_keep_their_order(model: Path, threshold: float) -> None:
    before = infer(model, images())
    write_graph(model, model, GraphThresholds(image=threshold), NOTE)
    after = infer(model, images())
    expected = before["pred_score"] >= np.float32(threshold)
    assert 0 < expected.sum() < 64
    assert (after["pred_label"] == expected).all()
    assert ((after["pred_score"] >= 0.5) == expected).all()
    order = np.argsort(before["pred_score"])
    assert (np.diff(after["pred_score"][order]) > 0).all()
    assert np.array_equal(after["anomaly_map"], before["anomaly_map"])
    network = openvino_core().read_model(model)
    assert read_note(network) == {**NOTE, "normalized": True}
    assert has_threshold(network)
    assert is_normalized(network)


def test_a_score_exactly_at_the_threshold_is_defective(model: Path) -> None:
    threshold = float(np.sort(infer(model, images())["pred_score"])[20])
    write_graph(model, model, GraphThresholds(image=threshold), NOTE)
    after = infer(model, images())
    assert after["pred_label"].sum() == 44
    assert (after["pred_score"] >= 0.5).sum() == 44


def test_with_a_pixel_threshold_the_verdict_is_that_the_mask_is_not_empty(model: Path) -> None:
    before = infer(model, images())
    write_graph(model, model, GraphThresholds(pixel=0.4), NOTE)
    after = infer(model, images())
    mask = before["anomaly_map"] >= np.float32(0.4)
    assert (after["pred_mask"] == mask).all()
    assert ((after["anomaly_map"] >= 0.5) == mask).all()
    assert (after["pred_label"] == mask.any((1, 2, 3))).all()
    assert np.array_equal(after["pred_score"], after["anomaly_map"].max((1, 2, 3)))


def test_a_threshold_can_be_replaced_again(model: Path) -> None:
    before = infer(model, images())
    write_graph(model, model, GraphThresholds(image=0.3), NOTE)
    again = float(np.sort(infer(model, images())["pred_score"])[50])
    write_graph(model, model, GraphThresholds(image=again), NOTE)
    after = infer(model, images())
    assert after["pred_label"].sum() == 14
    assert (np.argsort(after["pred_score"]) == np.argsort(before["pred_score"])).all()


def test_a_graph_without_threshold_gets_one_and_keeps_raw_scores(tmp_path: Path) -> None:
    model, out = tmp_path / "model.xml", tmp_path / "out.xml"
    openvino.save_model(bright_graph(scale=1000, threshold=float("nan")), model, compress_to_fp16=False)
    write_graph(model, out, GraphThresholds(image=300.0), NOTE)
    before, after = infer(model, images()), infer(out, images())
    assert np.array_equal(before["pred_score"], after["pred_score"])
    assert (after["pred_label"] == (before["pred_score"] >= 300)).all()
    network = openvino_core().read_model(out)
    assert has_threshold(network)
    assert not is_normalized(network)
    assert not has_threshold(openvino_core().read_model(model))


def test_outputs_for_verdicts_are_added_where_the_graph_has_none(tmp_path: Path) -> None:
    write_onnx(tmp_path / "model.onnx", ("pred_score", "anomaly_map"))
    openvino.save_model(bright_graph("pred_score", "anomaly_map"), tmp_path / "model.xml", compress_to_fp16=False)
    for path in (tmp_path / "model.onnx", tmp_path / "model.xml"):
        write_graph(path, path, GraphThresholds(image=0.6, pixel=0.4), NOTE)
        after = infer(path, images())
        assert (after["pred_label"] == (images().max((1, 2, 3)) >= np.float32(0.6))).all()
        assert (after["pred_mask"] == (after["anomaly_map"] >= np.float32(0.4))).all()


def test_the_minimum_area_is_part_of_the_record(model: Path) -> None:
    write_graph(model, model, GraphThresholds(pixel=0.4), {"min_area": 25, "pixel_threshold": 0.4})
    rule = region_rule(openvino_core().read_model(model))
    assert rule is not None
    assert (rule.threshold, rule.min_area) == (0.5, 25)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda model: write_graph(model, model, GraphThresholds(image=1.0), NOTE), r"at an end of the range \[0, 1\]"),
        (lambda model: write_graph(model, model.with_suffix(".ckpt"), GraphThresholds(0.5), NOTE), "another format"),
        (lambda model: write_graph(model, model / "a" / model.name, GraphThresholds(0.5), NOTE), "cannot write"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_the_graph_as_it_was(
    model: Path, call: Callable[[Path], None], line: str
) -> None:
    before = infer(model, images())
    with pytest.raises(InvalidInputError, match=line):
        call(model)
    assert all(np.array_equal(infer(model, images())[name], value) for name, value in before.items())
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []
