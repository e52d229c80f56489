"""Every model under plain data-parallel training in two processes, beside one with the same global batches."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

MODELS = ("sidn", "cutpaste", "onestage", "isugan", "defectgan")

Seen = dict[str, Any]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """What the processes saw: ``rank0``, ``rank1`` and ``alone``."""
    out = tmp_path_factory.mktemp("pair")
    words = [sys.executable, "-W", "ignore", str(Path(__file__).parents[2] / "tools/data_parallel.py"), str(out)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PL_")}
    done = subprocess.run(words, env=variables | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return {name: json.loads((out / f"{name}.json").read_text()) for name in ("rank0", "rank1", "alone")}


@pytest.mark.parametrize("model", MODELS)
def test_losses_of_two_processes_are_those_of_one_with_the_same_global_batches(seen, model):
    first, second, alone = (seen[name][model]["losses"] for name in ("rank0", "rank1", "alone"))
    assert first.keys() == second.keys() == alone.keys() != set()
    for name, expected in alone.items():
        means = [(one + other) / 2 for one, other in zip(first[name], second[name], strict=True)]
        assert means == pytest.approx(expected, rel=1e-4, abs=1e-4), name
        assert len(expected) >= 2


@pytest.mark.parametrize("model", MODELS)
def test_both_processes_end_with_the_same_weights(seen, model):
    assert seen["rank0"][model]["weights"] == seen["rank1"][model]["weights"]


@pytest.mark.parametrize("model", MODELS)
def test_metrics_and_thresholds_are_those_of_all_images_and_not_of_a_process(seen, model):
    of_pair, expected = seen["rank0"][model], seen["alone"][model]["of the pair"]
    for kind in ("metrics", "thresholds"):
        assert of_pair[kind] == pytest.approx(expected[kind], abs=1e-4, nan_ok=True)
        assert seen["rank1"][model][kind] == pytest.approx(of_pair[kind], abs=1e-6, nan_ok=True)
    assert {"image_AUROC", "pixel_AUROC"} <= set(expected["metrics"])


@pytest.mark.parametrize("model", MODELS)
def test_it_trains_in_mixed_precision_in_two_processes_as_it_is(seen, model):
    for rank in ("rank0", "rank1"):
        losses = seen[rank][model]["bf16-mixed"]
        assert losses
        assert all(math.isfinite(value) for values in losses.values() for value in values)


def test_a_model_of_one_image_says_that_it_cannot_be_shared(seen):
    for rank in ("rank0", "rank1"):
        assert (
            "learns from one image, which cannot be shared between 2 devices: pass --trainer.devices 1"
            in (seen[rank]["htpgan"])
        )
