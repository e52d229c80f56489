"""Fixtures of the tests that start anomalib with plugins of strangers installed."""

from pathlib import Path

import pytest
from strangers import Strangers


@pytest.fixture
def strangers(tmp_path: Path) -> Strangers:
    """A folder of installed distributions, empty at first."""
    site = tmp_path / "site"
    site.mkdir()
    return Strangers(site)
