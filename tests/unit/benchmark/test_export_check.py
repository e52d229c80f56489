"""What an exported graph changes: differences, verdicts and ranking on images whose scores are known."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import openvino
import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import AnomalibModule
from openvino import opset13 as ops
from torch import Tensor

from anomalib_defect_plugins.benchmark.export_check import compare_exports


def brightest(images: Tensor) -> InferenceBatch:
    """Score images by their highest value; a defect is one of at least 0.5."""
    scores = images.amax((1, 2, 3))
    return InferenceBatch(pred_score=scores, pred_label=scores >= 0.5)


class Brightest(SimpleNamespace):
    device = torch.device("cpu")

    def __call__(self, images: Tensor) -> InferenceBatch:
        return brightest(images)


def graph(factor: float = 1.0, offset: float = 0.0) -> openvino.Model:
    """Build a graph whose scores are those of the model times a factor, plus an offset."""
    image = ops.parameter([-1, 3, -1, -1], np.float32)
    highest = ops.reduce_max(image, np.array([1, 2, 3]), False)
    score = ops.add(ops.multiply(highest, np.float32(factor)), np.float32(offset))
    label = ops.greater_equal(score, np.float32(0.5))
    network = openvino.Model([ops.result(score), ops.result(label)], [image])
    for output, name in zip(network.outputs, ("pred_score", "pred_label"), strict=True):
        output.tensor.set_names({name})
    return network


def compare(**networks: openvino.Model) -> dict[str, Any]:
    values = [(0.1, False), (0.3, False), (0.45, False), (0.6, True), (0.9, True)]
    images = [(torch.full((3, 4, 4), value), is_defective) for value, is_defective in values]
    return compare_exports(cast(AnomalibModule, Brightest()), networks, images)


def test_verdicts_scores_and_ranking_of_graphs_are_compared_with_those_of_the_model() -> None:
    # Of the scores 0.2, 0.4, 0.55, 0.7 and 1.0, the third reaches 0.5; inverted ones reverse the ranking.
    compared = compare(FP32=graph(), INT8=graph(offset=0.1), FP16=graph(factor=-1.0, offset=1.0))
    assert compared["FP32"].summary() == {
        "images": 5,
        "score_difference": pytest.approx(0, abs=1e-6),
        "changed_verdicts": 0,
        "image_AUROC": 1.0,
        "torch_image_AUROC": 1.0,
    }
    assert compared["INT8"].difference == pytest.approx(0.1, abs=1e-6)
    assert compared["INT8"].summary()["changed_verdicts"] == 1
    inverted = compared["FP16"].summary()
    assert inverted["image_AUROC"] == 0
    # The largest difference is that of 0.9 and 0.1, or of 0.1 and 0.9; all verdicts are other ones.
    assert (inverted["changed_verdicts"], inverted["score_difference"]) == (5, pytest.approx(0.8, abs=1e-6))


def test_a_graph_that_returns_no_numbers_has_no_difference_and_hides_nothing_of_the_others() -> None:
    compared = compare(INT8=graph(factor=float("nan")), FP32=graph())
    assert compared["INT8"].difference is None
    assert compared["INT8"].summary() == {}
    assert compared["FP32"].summary()["changed_verdicts"] == 0
