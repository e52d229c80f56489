"""The examples of ``docs/python.md`` run one after the other, with a small model and the exported model of the demo."""

import re
import shutil
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from anomalib.engine import Engine

from anomalib_defect_plugins.demo.services.example_model import EXAMPLE
from anomalib_defect_plugins.testing import write_folder_data

ROOT = Path(__file__).parents[2]
SMALL = {
    "Sidn()": "Sidn(image_size=(64, 64), backbone=None, channels=4, iterations=2)",
    'DefectFolder(root="plates")': 'DefectFolder(root="plates", num_workers=0)',
}
"""Replacements that make the examples fast."""


def examples() -> str:
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    for text, replacement in SMALL.items():
        assert text in code
        code = code.replace(text, replacement)
    return code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the examples name."""
    write_folder_data(tmp_path / "drawn")
    for old, new in (("normal", "good"), ("defective", "scratch"), ("masks", "masks/scratch")):
        shutil.copytree(tmp_path / "drawn" / old, tmp_path / "plates" / new)
    for old, new in (("normal_test", "good"), ("defective", "scratch")):
        shutil.copytree(tmp_path / "drawn" / old, tmp_path / "test" / new)
    shutil.copytree(EXAMPLE, tmp_path / "bundle")
    shutil.copy(ROOT / "tests/fixtures/before_rebuild/defectgan.ckpt", tmp_path)
    return tmp_path


def test_the_examples_run_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Engine, "export", create_autospec(Engine.export))  # the tests of exports take longer
    found: dict[str, object] = {"__name__": "example"}
    exec(compile(examples(), "docs/python.md", "exec"), found)
    assert found["defective"].shape == (2, 3, 256, 256)
    assert found["masks"].any()
    assert Path("strict.ckpt").is_file()
    out = capsys.readouterr().out
    assert "at most 1 % misses, with 95 % confidence" in out
    (table,) = Path("results").rglob("predictions.csv")
    lines = table.read_text().splitlines()
    assert lines[0] == "path,score,pred_label"
    assert len(lines) == 1 + len(list(Path("plates/scratch").iterdir()))
