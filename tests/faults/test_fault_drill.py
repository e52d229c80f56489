"""The fault drill with two kills per model; ``make drill`` runs ten."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.faults

FAULTS = ("SIGKILL", "full disk", "1 % broken files", "worker killed", "non-finite loss")

KILLS = "2"

DRILLED = ("htpgan",)
"""The model that trains by scales; ``make drill`` has all, and the contracts resume the others."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Outcomes of the faults by model."""
    path = tmp_path_factory.mktemp("drill") / "outcomes.json"
    program = [sys.executable, "-W", "ignore", str(Path(__file__).parents[2] / "tools/fault_drill.py")]
    command = [*program, "--models", *DRILLED, "--kills", KILLS, "--json", str(path)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert path.exists(), f"status {done.returncode}: {done.stdout[-2000:]}{done.stderr}"
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("model", DRILLED)
def test_after_a_fault_the_result_is_unchanged_or_the_error_is_one_line_and_nothing_is_lost(
    outcomes: dict[str, Any], model: str, fault: str
) -> None:
    outcome = outcomes[model][fault]
    assert outcome["good"], f"{outcome['text']}: {outcome['line']}"
