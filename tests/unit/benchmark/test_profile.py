"""Size, arithmetic, speed and export of models that are small enough to count by hand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from anomalib.models import AnomalibModule
from anomalib.pre_processing import PreProcessor
from openvino import opset13 as ops
from torch import Tensor, nn
from torchvision.transforms.v2 import Resize

from anomalib_defect_plugins.benchmark import latency
from anomalib_defect_plugins.benchmark.latency import FIGURES, openvino_rows, time_calls
from anomalib_defect_plugins.benchmark.profile import cost, profile

SIZE = (32, 48)


@dataclass(frozen=True)
class Wanted:
    latency: bool = True
    precisions: tuple[str, ...] = ("FP32", "FP16", "INT8")
    seconds: float = 0.01


class Net(nn.Module):
    """A convolution, a buffer, and a map that is the mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("offset", torch.full((4, 1, 1), 0.1))

    def forward(self, images: Tensor) -> InferenceBatch:
        maps = (self.filter(images) - self.offset).abs().mean(1, keepdim=True)
        return InferenceBatch(pred_score=maps.amax((1, 2, 3)), anomaly_map=maps)


class Counted(AnomalibModule):
    learning_type = LearningType.ONE_CLASS
    trainer_arguments = {}  # noqa: RUF012

    def __init__(self, size: tuple[int, int] = SIZE) -> None:
        pre_processor = PreProcessor(Resize(size, antialias=False))
        super().__init__(pre_processor=pre_processor, post_processor=False, evaluator=False, visualizer=False)
        self.model = Net()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing is learnt."""


class Unexportable(Counted):
    def to_openvino(self, export_root: Path, input_size: tuple[int, int] | None = None) -> Path:
        msg = f"step 2 of 3 failed for size {input_size}\nbecause of a loop\n"
        raise NotImplementedError(msg)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MOST", 6)


def test_a_convolution_costs_two_operations_for_each_weight_and_pixel():
    # 3 x 4 kernels of 3 x 3, a bias for each of 4; 32 x 48 pixels; an addition and a multiplication.
    assert cost(Counted(), SIZE) == {"parameters": 108 + 4, "buffers": 4, "flops": 2 * 108 * 32 * 48}


def test_arithmetic_is_that_of_the_size_that_the_pre_processor_makes():
    assert cost(Counted((16, 16)), SIZE)["flops"] == 2 * 108 * 16 * 16


@pytest.mark.slow
def test_a_model_has_a_row_for_each_engine_precision_and_batch_and_its_graphs_agree(tmp_path: Path, quick: None):
    pytest.importorskip("nncf", reason="8-bit quantisation needs nncf")
    model = Counted().train()
    result = profile(model, SIZE, tmp_path, torch.rand(3, 3, *SIZE), Wanted())
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


def test_a_model_that_cannot_be_exported_gives_rows_that_say_so(tmp_path: Path, quick: None):
    result = profile(Unexportable(), SIZE, tmp_path, torch.rand(1, 3, *SIZE), Wanted(precisions=("FP32",)))
    torch_rows, graphs = result["latency"][:2], result["latency"][2:]
    assert all(row["median_ms"] > 0 for row in torch_rows)
    assert [row["batch"] for row in graphs] == [1, 8]
    for row in graphs:
        assert all(row[name] is None for name in FIGURES)
        assert row["reason"] == "cannot be exported: because of a loop"
    assert result["export_difference"] == {"FP32": None}


def test_a_graph_for_single_images_has_no_figures_for_eight(quick: None):
    image = ops.parameter([-1, 3, 4, 4], np.float32)
    network = openvino.Model([ops.reshape(image, np.array([1, 48]), False)], [image])
    one, eight = openvino_rows(network, "FP32", (4, 4), 0.01)
    assert one["reason"] is None
    assert eight["median_ms"] is None
    assert eight["reason"]


def test_percentiles_leave_out_the_warm_up(monkeypatch: pytest.MonkeyPatch):
    # The clock tells how long each call took: three of the warm-up take a second, then 1, 2, ... 100 ms.
    durations = iter([1.0] * latency.WARM_UP + [number / 1000 for number in range(1, 101)])
    now = 0.0

    def call() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr(latency.time, "perf_counter", lambda: now)
    monkeypatch.setattr(latency, "MOST", 100)
    figures = time_calls(call, batch=2, seconds=60)
    assert figures["repeats"] == 100
    # numpy's linear interpolation between 1 ... 100: 1 + 99 q.
    assert figures["median_ms"] == pytest.approx(50.5)
    assert figures["p95_ms"] == pytest.approx(95.05)
    assert figures["p99_ms"] == pytest.approx(99.01)
    assert figures["images_per_second"] == pytest.approx(2 * 100 / 5.050)


def test_slow_calls_are_timed_a_few_times_only(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(1000))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: float(next(clock)))
    assert time_calls(lambda: None, batch=1, seconds=3)["repeats"] == latency.LEAST


def test_a_graph_for_two_images_at_once_is_timed_with_two(quick: None):
    images = ops.parameter([2, 3, *SIZE], np.float32)
    joined = ops.concat([images, ops.constant(np.zeros((2, 1, *SIZE), np.float32))], 1)
    rows = list(openvino_rows(openvino.Model([joined], [images]), "FP32", SIZE, 0.01))
    assert [(row["batch"], row["reason"] is None) for row in rows] == [(1, False), (8, False), (2, True)]
    assert rows[2]["median_ms"] > 0
