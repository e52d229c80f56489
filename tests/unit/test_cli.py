"""The command ``anomalib-defects``, without anomalib."""

import json
from importlib.metadata import version

import pytest

from anomalib_defect_plugins import cli
from anomalib_defect_plugins.errors import InvalidInputError
from anomalib_defect_plugins.plugins import Kind, Plugin, Registration, State, bridge
from anomalib_defect_plugins.supervision import Supervision


class Net:
    """A model, as far as the list looks."""

    supervision = Supervision.ONE_SHOT
    paper = "Someone et al., 2024"


class Plain:
    """A class that says nothing of itself."""


PLUGINS = [
    Plugin("nets", "some-nets", "1.2", registrations=[Registration(Kind.MODEL, "net", Net)]),
    Plugin("plain", "plain", "3", registrations=[Registration(Kind.DATA, "Plain", Plain)]),
    Plugin("idle", "idle", "0"),
    Plugin("off", "off", "0", state=State.DISABLED),
    Plugin("bad", "bad-plugin", "0", state=State.FAILED, reason="OSError: [no] licence"),
]


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "loaded_plugins", lambda: PLUGINS)


def test_the_list_has_a_row_for_each_class_and_each_plugin_that_brings_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {
        "name": "net",
        "kind": "model",
        "supervision": "one-shot",
        "paper": "Someone et al., 2024",
        "plugin": "nets",
        "distribution": "some-nets",
        "version": "1.2",
        "state": "loaded",
        "reason": None,
    }
    assert [(row["name"], row["kind"], row["state"]) for row in rows[1:]] == [
        ("Plain", "data", "loaded"),
        ("idle", None, "loaded"),
        ("off", None, "disabled"),
        ("bad", None, "failed"),
    ]


def test_the_table_shows_reasons_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert "failed: OSError: [no] licence" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"anomalib-defects {version('anomalib-defect-plugins')}\n"


def test_a_user_error_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        msg = "a is 1; it must be 2"
        raise InvalidInputError(msg)

    monkeypatch.setattr(bridge, "loaded_plugins", fail)
    assert cli.main(["list"]) == 1
    assert capsys.readouterr().err == "error: a is 1; it must be 2\n"


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "loaded_plugins", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["list"])


@pytest.mark.parametrize("arguments", [[], ["nothing"]])
def test_without_a_command_it_says_how_to_use_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "usage: anomalib-defects" in capsys.readouterr().err
