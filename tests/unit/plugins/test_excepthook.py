"""User errors of the ``anomalib`` command are printed as one line."""

import sys

import pytest

from anomalib_defect_plugins.core.environment import TRACEBACK_VARIABLE
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.plugins import excepthook


@pytest.mark.parametrize(
    ("error", "variable", "passed_on"),
    [(InvalidInputError("a is 1"), "0", False), (InvalidInputError("a is 1"), "1", True), (KeyError("a"), "0", True)],
)
def test_the_hook_prints_user_errors_and_passes_on_others(
    error: Exception,
    variable: str,
    passed_on: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    passed: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _traceback: passed.append(error))
    monkeypatch.setenv(TRACEBACK_VARIABLE, variable)
    excepthook.install_excepthook()
    sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == ("" if passed_on else "error: a is 1\n")
    assert passed == ([error] if passed_on else [])


def test_the_hook_is_installed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    excepthook.install_excepthook()
    installed = sys.excepthook
    excepthook.install_excepthook()
    assert sys.excepthook is installed


@pytest.mark.parametrize(
    ("started_as", "expected"),
    [("bin/anomalib", True), ("anomalib.exe", True), ("bin/anomalib-defects", False), ("-c", False), ("pytest", False)],
)
def test_the_hook_is_for_the_command_anomalib(started_as: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [started_as, "train"])
    assert excepthook.is_anomalib_command() is expected
