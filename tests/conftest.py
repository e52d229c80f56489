"""Fixtures of all tests."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from anomalib_defect_plugins.layers.encoder import weights_from_checkpoint


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Seed every test, so that failures are reproducible."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - third-party code uses the global generator
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _no_downloads() -> Iterator[None]:
    """Create pretrained models from random weights; files with weights are not read either."""
    with weights_from_checkpoint():
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets, set by ``DEFECT_DATA_ROOT``; without it the test is skipped."""
    root = os.environ.get("DEFECT_DATA_ROOT")
    if not root:
        pytest.skip("DEFECT_DATA_ROOT is not set: this test needs real data, which the project may not distribute")
    if not Path(root).is_dir():
        pytest.fail(f"DEFECT_DATA_ROOT={root} is not a folder")
    return Path(root)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Restore the handler of Ctrl-C, which Lightning replaces after an interrupt."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)
