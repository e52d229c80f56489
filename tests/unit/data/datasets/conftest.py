"""Fixtures of the data sets' tests."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the data set to remove files from; they are hard links, so never write to an existing one."""
    return Path(shutil.copytree(pristine, tmp_path / "set", copy_function=os.link))
