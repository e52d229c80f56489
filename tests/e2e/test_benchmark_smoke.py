"""``configs/benchmark/smoke.yaml`` with short schedules."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.benchmark.job import BenchmarkRuns, ExecutionSettings
from anomalib_defect_plugins.benchmark.runners import SerialRunner

pytestmark = pytest.mark.slow

SMOKE = Path(__file__).parents[2] / "configs/benchmark/smoke.yaml"

METHODS = {"HtpGan", "Sidn", "CutPaste", "OneStage", "IsuGan", "DefectGan", "PaDiM"}


@pytest.fixture(autouse=True)
def _seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "0")


def shortened(folder: Path) -> Path:
    """Write the configuration with two steps per training, small images and no latency."""
    content = yaml.safe_load(SMOKE.read_text())
    for model in content["models"]:
        for name in ("iterations", "iterations_per_scale"):
            if name in model["init_args"]:
                model["init_args"][name] = 2
        if "image_size" in model["init_args"]:
            model["init_args"]["image_size"] = [64, 64]
    content["data"][0]["init_args"] |= {"root": str(folder / "data"), "image_size": 64}
    content["measure"] = {"latency": False}
    path = folder / "smoke.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_every_method_has_a_finished_run_with_image_and_pixel_metrics(tmp_path: Path) -> None:
    path = shortened(tmp_path)
    settings = ExecutionSettings(tmp_path / "out", str(path), torch.get_num_threads())
    table = SerialRunner(BenchmarkRuns(read_benchmark(path), settings)).run()
    assert set(table.model) == METHODS
    assert dict(zip(table.model, table.error, strict=True)) == dict.fromkeys(METHODS)
    for name in ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", "pixel_IoU"):
        assert table[name].between(0, 1).all(), name
    # 40 normal images train; supervised methods get 20 of the 60 defective test images too.
    assert dict(zip(table.supervision, table.split_train, strict=True)) == {"normal": 40, "labels": 60, "masks": 60}
    for path in (tmp_path / "out").glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        assert len(list((path.parent / "maps").iterdir())) == record["split"]["test"]
