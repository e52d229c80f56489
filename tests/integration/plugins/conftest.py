"""Fixtures of the tests that start anomalib with third-party plugins installed."""

from pathlib import Path

import pytest
from plugin_packages import PluginPackages


@pytest.fixture
def plugin_packages(tmp_path: Path) -> PluginPackages:
    """An empty folder of installed distributions."""
    site = tmp_path / "site"
    site.mkdir()
    return PluginPackages(site)
