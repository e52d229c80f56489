"""The ``anomalib-defects`` command, with fake plugins."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from anomalib.data import Folder
from PIL import Image

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.core.environment import TRACEBACK_VARIABLE
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data import TextureDefects, WithDefects
from anomalib_defect_plugins.plugins import Kind, Plugin, Registration, State, bridge
from anomalib_defect_plugins.testing import write_folder_data


class Net:
    """A model, as far as the list needs it."""

    supervision = Supervision.ONE_SHOT
    paper = "Someone et al., 2024"


class Plain:
    """A class without a supervision and a paper."""


class Chatty(Folder):
    """A third-party data module that prints while it prepares its data, and may fail."""

    def __init__(self, root: str, broken: bool = False) -> None:
        super().__init__("chatty", "normal", root, "defective", "normal_test", "masks", num_workers=0)
        self.broken = broken

    def prepare_data(self) -> None:
        print("unpacking")
        if self.broken:
            msg = "archive is broken"
            raise RuntimeError(msg)


DATA = (TextureDefects, WithDefects, Chatty)

PLUGINS = [
    Plugin("nets", "some-nets", "1.2", registrations=[Registration(Kind.MODEL, "net", Net)]),
    Plugin("plain", "plain", "3", registrations=[Registration(Kind.DATA, "Plain", Plain)]),
    Plugin("data", "data", "1", registrations=[Registration(Kind.DATA, cls.__name__, cls) for cls in DATA]),
    Plugin("idle", "idle", "0"),
    Plugin("off", "off", "0", state=State.DISABLED),
    Plugin("bad", "bad-plugin", "0", state=State.FAILED, reason="OSError: [no] licence"),
]


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "loaded_plugins", lambda: PLUGINS)


def test_the_list_has_a_row_for_each_class_and_each_plugin_without_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "--json"]) == 0
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
        *((cls.__name__, "data", "loaded") for cls in DATA),
        ("idle", None, "loaded"),
        ("off", None, "disabled"),
        ("bad", None, "failed"),
    ]


def test_the_table_shows_reasons_verbatim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "failed: OSError: [no] licence" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"anomalib-defects {version('anomalib-defect-plugins')}\n"


def test_a_user_error_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        msg = "a is 1; it must be 2"
        raise InvalidInputError(msg)

    monkeypatch.setattr(bridge, "loaded_plugins", fail)
    assert main(["list"]) == 1
    assert capsys.readouterr().err == "error: a is 1; it must be 2\n"


def test_an_internal_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "loaded_plugins", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["list"])


@pytest.mark.parametrize("arguments", [[], ["nothing"]])
def test_without_a_command_the_usage_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: anomalib-defects" in capsys.readouterr().err


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["list", "--root", "x"])
    assert "unrecognized arguments: --root x" in capsys.readouterr().err


@pytest.fixture(scope="session")
def textures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a small ``TextureDefects``, built once."""
    return ["--data.root", str(tmp_path_factory.mktemp("textures")), "--data.image_size", "64"]


def test_data_shows_what_the_embedded_data_set_is_documented_to_hold(
    textures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "TextureDefects", *textures, "--images", "1"]) == 0
    printed = capsys.readouterr().out
    rows = {words[0]: words[1:5] for line in printed.splitlines() if len(words := re.findall(r"[\w-]+", line)) > 4}
    # 40 normal images train, 20 normal and 20 defective ones validate, 30 and 60 (10 of each kind) test.
    assert rows["good"] == ["40", "20", "30", "90"]
    assert rows["scratch"][2] == "10"
    assert rows["total"] == ["40", "40", "90", "170"]
    assert "image sizes: 64x64 (170)\n" in printed
    assert printed.endswith("contact sheet: TextureDefects.png\n")
    with Image.open(tmp_path / "TextureDefects.png") as sheet:
        assert sheet.format == "PNG"


def test_data_reports_that_it_replaces_a_contact_sheet(
    textures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"former")
    assert main(["data", "TextureDefects", *textures, "--out", str(sheet), "--images", "1"]) == 0
    assert f"contact sheet: {sheet} (replaced)\n" in capsys.readouterr().out
    assert sheet.read_bytes() != b"former"


def test_data_accepts_options_with_and_without_prefix_and_nested_ones(
    textures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base = [word.replace("--data.", "--data.base.") for word in textures]
    options = ["--base", "TextureDefects", *base, "--base.category=brick", "--data.per_type", "2", "--json"]
    assert main(["data", "WithDefects", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["category"]) == ("TextureDefectsWithDefects", "brick")
    # Two of each of six kinds leave the 90 test images for the 40 normal training images.
    assert (found["total"]["train"], found["total"]["test"]) == (52, 78)
    assert found["contact_sheet"] is None
    assert not list(tmp_path.iterdir())


def test_the_output_of_a_data_module_is_not_part_of_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder_data(tmp_path)
    assert main(["data", "Chatty", "--root", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["name"] == "chatty"
    assert "unpacking" in captured.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["texturedefects"], r"there is no data module 'texturedefects'; did you mean TextureDefects\?"),
        (["TextureDefekts"], r"there is no data module 'TextureDefekts'; did you mean TextureDefects\?"),
        (["Qqq"], "there is no data module 'Qqq'; choose one of (?!.*Avenue).*Folder, .*MVTecAD, .*WithDefects.*"),
        (["Avenue"], "Avenue holds videos; 'anomalib-defects data' shows data modules of images"),
        (["TextureDefects", "--category", "x"], "category is 'x'; it must be one of brick, .*"),
        (["TextureDefects", "--colour", "x"], r"TextureDefects cannot be set up \(.*: --data.colour x\); .*help.*"),
        (["TextureDefects", "--data.seed", "x"], r'TextureDefects cannot be set up \(.*"data.seed": .*int.*\); .*'),
        (["WithDefects", "--base", "TextureDefects", "--base.category", "x"], "category is 'x'; it must be one of .*"),
        (["Folder", "--name", "x", "--root", "no", "--normal_dir", "good"], "Folder cannot be .*no/good.*"),
        (["Chatty", "--root", "x", "--broken", "true"], r"Chatty cannot be set up \(archive is broken\); .*"),
        (["TextureDefects", "--out", "a.jpg"], "--out a.jpg is not a PNG file in an existing folder; use one .*"),
        (["TextureDefects", "--out", "no/a.png"], "--out no/a.png is not a PNG file in an existing folder; .*"),
        (["TextureDefects", "--images", "-1"], "--images is -1; use the number of images .*"),
    ],
)
def test_data_reports_invalid_input_in_one_line(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 1
    assert re.fullmatch(rf"(unpacking\n)?error: {line}\n", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_variable_shows_the_traceback_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    with pytest.raises(InvalidInputError, match="archive is broken") as caught:
        main(["data", "Chatty", "--root", "x", "--broken", "true"])
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_ctrl_c_ends_a_command_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("anomalib_defect_plugins.report.write_report", interrupt)
    assert main(["report", str(tmp_path)]) == 130
    assert capsys.readouterr() == ("", "stopped\n")
