"""The fault drill with two kills of each model; ``make drill`` runs it with ten."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.small import MODELS

pytestmark = pytest.mark.slow

FAULTS = ("SIGKILL", "full disk", "1 % broken files", "worker killed", "non-finite loss")

KILLS = 2


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, object]]]:
    """What came of each fault by model, and ``log``, what the drill printed."""
    path = tmp_path_factory.mktemp("drill") / "outcomes.json"
    words = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("drill.py")), "--kills", str(KILLS)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*words, "--json", str(path)], env=variables, capture_output=True, text=True, check=False)
    assert path.exists(), done.stderr
    return json.loads(path.read_text())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("model", MODELS)
def test_a_fault_ends_in_the_undisturbed_result_or_in_one_clear_line_and_nothing_is_lost(outcomes, model, fault):
    outcome = outcomes[model][fault]
    assert outcome["good"], f"{outcome['text']}: {outcome['line']}"
