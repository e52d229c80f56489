"""Disables the telemetry of OpenVINO and NNCF."""

import sys
from types import ModuleType


def disable_telemetry() -> None:
    """Prevent OpenVINO and NNCF from sending usage data; to be called before either is imported.

    Both send nothing if ``openvino_telemetry`` lacks the names that they import from it.
    """
    sys.modules.setdefault("openvino_telemetry", ModuleType("openvino_telemetry"))
