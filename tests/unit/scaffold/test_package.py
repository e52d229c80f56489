"""``anomalib-defects new``: the files it writes and the input it refuses. tests/e2e runs the written package."""

import errno
from pathlib import Path

import pytest

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.scaffold.package import Names


def test_all_names_are_derived_from_one() -> None:
    assert Names.of("my-method") == Names("my-method", "my_method", "MyMethod")
    assert Names.of("Spot_The2Dots") == Names("spot-the2dots", "spot_the2dots", "SpotThe2Dots")


def test_the_entry_point_the_module_and_the_commands_printed_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "package"
    assert main(["new", "my-method", "--out", str(folder), "--author", 'Ann "A" \\ Öther']) == 0
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read TOML")
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "my-method"
    assert project["entry-points"]["anomalib_defect_plugins"] == {"my-method": "my_method"}
    assert project["authors"] == [{"name": 'Ann "A" \\ Öther'}]
    assert (folder / "my_method" / "__init__.py").is_file()
    assert "anomalib train --model my_method" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_the_default_folder_has_the_name_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my_method"]) == 0
    assert "authors" not in (tmp_path / "my-method" / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("1st", "is not a valid name of a Python package"),
        ("my method", "is not a valid name of a Python package"),
        ("../up", "is not a valid name of a Python package"),
        ("méthode", "is not a valid name of a Python package"),
        ("class", "is not a valid name of a Python package"),
        ("padim", "the model name 'padim' is taken by anomalib "),
        ("htp-gan", "the model name 'htpgan' is taken by plugin 'htpgan' of anomalib-defect-plugins "),
        ("generators", "the name 'generators' is taken by plugin 'generators' of anomalib-defect-plugins "),
        ("json", "a Python module 'json' exists"),
    ],
)
def test_an_invalid_name_is_one_line_and_nothing_is_written(
    name: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", name, "--out", str(tmp_path / "package")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    assert main(["new", "my-method", "--out", str(tmp_path)]) == 1
    assert f"error: {tmp_path} exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_author_with_a_line_break_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "my-method", "--out", str(tmp_path / "package"), "--author", "Ann\nOther"]) == 1
    assert "error: --author is 'Ann\\nOther'" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Path.write_text

    def fill(path: Path, text: str, **options: str) -> int:
        if path.name == "torch_model.py":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", fill)
    assert main(["new", "my-method", "--out", str(tmp_path / "package")]) == 1
    assert "cannot write my_method/torch_model.py (No space left on device)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
