"""What all tests share."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same random numbers in each run of a test, so that a failure comes again."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that third-party code draws from
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets, given by ``DEFECT_DATA_ROOT``; without it the test is skipped."""
    root = os.environ.get("DEFECT_DATA_ROOT")
    if not root:
        pytest.skip("DEFECT_DATA_ROOT is not set: this test measures on real data, which the project may not ship")
    if not Path(root).is_dir():
        pytest.fail(f"DEFECT_DATA_ROOT={root} is no folder")
    return Path(root)
