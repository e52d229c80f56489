"""Fixtures of all tests."""

import inspect
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomalib_defect_plugins.cli.telemetry import disable_telemetry
from anomalib_defect_plugins.core.openvino_core import signal_stack_restored
from anomalib_defect_plugins.layers.encoder import weights_from_checkpoint

# It forks a process from a thread for each message; without a network it may hang, and pytest waits for it at its end.
disable_telemetry()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the contract that export a graph: tracing a model takes about ten seconds."""
    for item in items:
        if "test_onnx_graph_of_fixed_size" in item.name and "TestIsuGan" not in item.nodeid:
            item.add_marker(pytest.mark.long)  # ISU-GAN's involution is the operator that depends on the size
        if "exported" in getattr(item, "fixturenames", ()) or "onnx_graph" in item.name:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run the tests of a file, and all tests of the demo, in one process, because they share slow fixtures."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "demo" if "e2e/test_demo" in nodeid else str(super()._split_scope(nodeid))

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


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


@pytest.fixture(autouse=True)
def _signal_stack() -> Iterator[None]:
    """Let no test end with the signal stack of a core of OpenVINO that anomalib or NNCF has created."""
    with signal_stack_restored():
        yield


def _stack(context: int = 1) -> list[inspect.FrameInfo]:
    """Return what ``inspect.stack`` returns, without lines of source."""
    infos, frame = [], sys._getframe(1)
    while frame is not None:
        infos.append(
            inspect.FrameInfo(frame, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, None, None)
        )
        frame = frame.f_back
    return infos


@pytest.fixture(autouse=True, scope="session")
def _quick_stack() -> Iterator[None]:
    """Let jsonargparse look up its caller without reading the sources of pytest's frames: half a second a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", _stack)
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
