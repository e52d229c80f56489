"""The fault drill with two kills of each model; ``make drill`` runs it with ten."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import MODELS

pytestmark = pytest.mark.slow

FAULTS = ("SIGKILL", "full disk", "1 % broken files", "worker killed", "non-finite loss")

KILLS = "2"


@pytest.mark.parametrize("model", MODELS)
def test_a_fault_ends_in_the_undisturbed_result_or_in_one_clear_line_and_nothing_is_lost(
    tmp_path: Path, model: str
) -> None:
    path = tmp_path / "outcomes.json"
    program = [sys.executable, "-W", "ignore", str(Path(__file__).parents[2] / "tools/fault_drill.py")]
    words = [*program, "--models", model, "--kills", KILLS, "--json", str(path)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    assert path.exists(), done.stderr
    outcomes = json.loads(path.read_text())[model]
    assert tuple(outcomes) == FAULTS
    bad = {fault: f"{it['text']}: {it['line']}" for fault, it in outcomes.items() if not it["good"]}
    assert not bad
