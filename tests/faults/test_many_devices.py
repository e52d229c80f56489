"""Data-parallel training in two processes, compared with one process and the same global batches."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.faults

MODELS = ("sidn", "cutpaste", "onestage", "isugan", "defectgan")

Record = dict[str, Any]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """Records of the processes ``rank0``, ``rank1`` and ``alone``."""
    out = tmp_path_factory.mktemp("pair")
    command = [sys.executable, "-W", "ignore", str(Path(__file__).parents[2] / "tools/data_parallel.py"), str(out)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PL_")}
    variables["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return {name: json.loads((out / f"{name}.json").read_text()) for name in ("rank0", "rank1", "alone")}


@pytest.mark.parametrize("model", MODELS)
def test_losses_of_two_processes_are_those_of_one_with_the_same_global_batches(records, model):
    first, second, alone = (records[name][model]["losses"] for name in ("rank0", "rank1", "alone"))
    assert first.keys() == second.keys() == alone.keys() != set()
    for name, expected in alone.items():
        means = [(one + other) / 2 for one, other in zip(first[name], second[name], strict=True)]
        assert means == pytest.approx(expected, rel=1e-4, abs=1e-4), name
        assert len(expected) >= 2


@pytest.mark.parametrize("model", MODELS)
def test_both_processes_end_with_the_same_weights(records, model):
    assert records["rank0"][model]["weights"] == records["rank1"][model]["weights"]


@pytest.mark.parametrize("model", MODELS)
def test_metrics_and_thresholds_are_computed_from_the_images_of_all_processes(records, model):
    of_pair, expected = records["rank0"][model], records["alone"][model]["of the pair"]
    for kind in ("metrics", "thresholds"):
        assert of_pair[kind] == pytest.approx(expected[kind], abs=1e-4, nan_ok=True)
        assert records["rank1"][model][kind] == pytest.approx(of_pair[kind], abs=1e-6, nan_ok=True)
    assert {"image_AUROC", "pixel_AUROC"} <= set(expected["metrics"])


@pytest.mark.parametrize("model", MODELS)
def test_models_train_in_mixed_precision_in_two_processes(records, model):
    for rank in ("rank0", "rank1"):
        losses = records[rank][model]["bf16-mixed"]
        assert losses
        assert all(math.isfinite(value) for values in losses.values() for value in values)


def test_a_model_of_one_image_refuses_two_devices(records):
    for rank in ("rank0", "rank1"):
        assert (
            "learns from one image, which cannot be shared between devices: pass --trainer.devices 1"
            in (records[rank]["htpgan"])
        )
