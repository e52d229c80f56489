"""The lines that ``make mutate`` changes exist."""

from pathlib import Path

import pytest
from mutation import MUTATIONS, PACKAGE, ROOT, mutate


@pytest.mark.parametrize(("model", "function", "old", "new"), MUTATIONS)
def test_each_line_to_mutate_exists(model, function, old, new):
    text = Path(ROOT, PACKAGE, "models", model, "loss.py").read_text()
    assert mutate(text, function, old, new) != text
