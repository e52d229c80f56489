"""Size, FLOPs, latency and export of models that are small enough to count by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from openvino import opset13 as ops
from torch import Tensor, nn
from torchvision.transforms.v2 import Resize

from anomalib_defect_plugins.benchmark import latency
from anomalib_defect_plugins.benchmark.latency import TIMING_FIELDS, openvino_rows, time_calls
from anomalib_defect_plugins.benchmark.profile import cost, profile
from anomalib_defect_plugins.results.run_spec import MeasureSpec

SIZE = (32, 48)


class Net(nn.Module):
    """A convolution and a buffer; the map is the mean over channels."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("offset", torch.full((4, 1, 1), 0.1))

    def forward(self, images: Tensor) -> InferenceBatch:
        maps = (self.filter(images) - self.offset).abs().mean(1, keepdim=True)
        return InferenceBatch(pred_score=maps.amax((1, 2, 3)), anomaly_map=maps)


class Countable(AnomalibModule):
    learning_type = LearningType.ONE_CLASS
    trainer_arguments = {}  # noqa: RUF012

    def __init__(self, size: tuple[int, int] = SIZE) -> None:
        pre_processor = PreProcessor(Resize(size, antialias=False))
        super().__init__(pre_processor=pre_processor, post_processor=False, evaluator=False, visualizer=False)
        self.model = Net()

    def training_step(self, batch: Batch[Any], batch_idx: int) -> None:
        """Learn nothing."""


class Unexportable(Countable):
    def to_openvino(self, *arguments: Any, **options: Any) -> Path:
        msg = f"step 2 of 3 failed for size {options['input_size']}\nbecause of a loop\n"
        raise NotImplementedError(msg)


def labelled_images(number: int) -> list[tuple[Tensor, bool]]:
    """Draw images, every second one defective."""
    images = torch.rand(number, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return [(image, bool(index % 2)) for index, image in enumerate(images)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MAX_CALLS", 6)


def test_a_convolution_costs_two_operations_for_each_weight_and_pixel() -> None:
    # 3 x 4 kernels of 3 x 3, a bias for each of 4; 32 x 48 pixels; an addition and a multiplication.
    assert cost(Countable(), SIZE) == {"parameters": 108 + 4, "buffers": 4, "flops": 2 * 108 * 32 * 48}


def test_flops_are_counted_at_the_size_of_the_pre_processor() -> None:
    assert cost(Countable((16, 16)), SIZE)["flops"] == 2 * 108 * 16 * 16


@pytest.mark.slow
def test_a_model_has_a_row_for_each_engine_precision_and_batch_and_its_graphs_agree(
    tmp_path: Path, quick: None
) -> None:
    pytest.importorskip("nncf", reason="8-bit quantisation needs nncf")
    model = Countable().train()
    result = profile(model, SIZE, tmp_path, labelled_images(3), MeasureSpec(seconds=0.01))
    assert model.training
    keys = [(row["engine"], row["precision"], row["batch"]) for row in result["latency"]]
    graphs = [("openvino", precision, batch) for precision in ("FP32", "FP16", "INT8") for batch in (1, 8)]
    assert keys == [("torch", "FP32", 1), ("torch", "FP32", 8), *graphs]
    for row in result["latency"]:
        assert row["reason"] is None
        assert 0 < row["median_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["images_per_second"] > 0
    differences = result["export_difference"]
    assert differences["FP32"] < 1e-5
    assert differences["FP32"] < differences["FP16"] < 1e-2  # half precision has 11 bits
    assert differences["FP32"] < differences["INT8"] < 0.1
    assert all((tmp_path / "openvino" / name / "model.bin").is_file() for name in ("FP32", "FP16", "INT8"))


def test_a_model_that_cannot_be_exported_has_rows_with_the_reason(tmp_path: Path, quick: None) -> None:
    measure = MeasureSpec(precisions=("FP32",), seconds=0.01)
    result = profile(Unexportable(), SIZE, tmp_path, labelled_images(1), measure)
    torch_rows, graphs = result["latency"][:2], result["latency"][2:]
    assert all(row["median_ms"] > 0 for row in torch_rows)
    assert [row["batch"] for row in graphs] == [1, 8]
    for row in graphs:
        assert all(row[name] is None for name in TIMING_FIELDS)
        assert row["reason"] == "cannot be exported: because of a loop"
    assert result["export_difference"] == {"FP32": None}
    assert result["export_changes"] == {}


def test_a_graph_for_single_images_has_no_times_for_eight(quick: None) -> None:
    image = ops.parameter([-1, 3, 4, 4], np.float32)
    network = openvino.Model([ops.reshape(image, np.array([1, 48]), False)], [image])
    one, eight = openvino_rows(network, "FP32", (4, 4), 0.01)
    assert one["reason"] is None
    assert eight["median_ms"] is None
    assert eight["reason"]


def test_percentiles_leave_out_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Calls of the warm-up take a second each, the others 1, 2, ... 100 ms.
    durations = iter([1.0] * latency.WARM_UP_CALLS + [number / 1000 for number in range(1, 101)])
    now = 0.0

    def call() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(latency, "MAX_CALLS", 100)
    times = time_calls(call, batch=2, seconds=60)
    assert times["repeats"] == 100
    # numpy's linear interpolation between 1 ... 100: 1 + 99 q.
    assert times["median_ms"] == pytest.approx(50.5)
    assert times["p95_ms"] == pytest.approx(95.05)
    assert times["p99_ms"] == pytest.approx(99.01)
    assert times["images_per_second"] == pytest.approx(2 * 100 / 5.050)


def test_slow_calls_are_timed_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    assert time_calls(lambda: None, batch=1, seconds=3)["repeats"] == latency.MIN_CALLS


def test_a_graph_for_two_images_at_once_is_timed_with_two(quick: None) -> None:
    images = ops.parameter([2, 3, *SIZE], np.float32)
    joined = ops.concat([images, ops.constant(np.zeros((2, 1, *SIZE), np.float32))], 1)
    rows = list(openvino_rows(openvino.Model([joined], [images]), "FP32", SIZE, 0.01))
    assert [(row["batch"], row["reason"] is None) for row in rows] == [(1, False), (8, False), (2, True)]
    assert rows[2]["median_ms"] > 0
