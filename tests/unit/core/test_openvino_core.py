"""Tests of OpenVINO's core."""

import subprocess
import sys
from pathlib import Path

import anomalib_defect_plugins
from anomalib_defect_plugins.core.openvino_core import openvino_core

PROGRAM = """
import contextlib, os, signal
import openvino
from anomalib_defect_plugins.core.openvino_core import openvino_core, signal_stack_restored

openvino_core().get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
with signal_stack_restored():
    cores = [openvino.Core(), openvino.Core()]
    for core in cores:
        core.get_property("CPU", "FULL_DEVICE_NAME")
    del core
    while cores:
        del cores[0]
signal.signal(signal.SIGINT, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_is_handled_after_cores_of_other_libraries_were_destroyed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n")


def test_the_package_has_one_core() -> None:
    assert openvino_core() is openvino_core()
    root = Path(anomalib_defect_plugins.__file__).parent
    users = [path.name for path in root.rglob("*.py") if "openvino.Core()" in path.read_text(encoding="utf-8")]
    assert users == ["openvino_core.py"]
