"""Names of saved folders."""

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

from anomalib_defect_plugins.demo.services.defect_collection import SYNTHETIC_FOLDER, next_name


def test_the_next_name_is_the_first_free_one(tmp_path: Path) -> None:
    assert next_name(tmp_path / SYNTHETIC_FOLDER, "mine") == "mine"
    for name, expected in (("mine", "mine-2"), ("mine-2", "mine-3"), ("plate-7", "plate-8"), ("a-b", "a-b-2")):
        (tmp_path / SYNTHETIC_FOLDER / name).mkdir(parents=True)
        assert next_name(tmp_path / SYNTHETIC_FOLDER, name) == expected
