"""Switches the telemetry of OpenVINO and NNCF off."""

import sys
from types import ModuleType


def disable_telemetry() -> None:
    """Stop OpenVINO and NNCF from sending usage data. Call before either is imported.

    Both fall back to sending nothing if ``openvino_telemetry`` lacks the names they import.
    """
    sys.modules.setdefault("openvino_telemetry", ModuleType("openvino_telemetry"))
