"""Copies of images are found by content."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.data.identical_images import START, identical_images


def test_files_are_compared_to_their_end_and_groups_keep_their_order(tmp_path: Path) -> None:
    contents = {
        "a": b"1" * START + b"x",
        "b": b"1" * START + b"y",
        "c": b"1" * START + b"x",
        "d": b"1" * START,
        "e": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert identical_images(tmp_path / name for name in "cbade") == [[tmp_path / "c", tmp_path / "a"]]


def test_a_folder_with_an_image_under_two_labels_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    for folder in ("good", "scratch"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "scratch/copy.png").write_bytes((tmp_path / "good/1.png").read_bytes())
    data = DefectFolder(tmp_path)
    data.setup()
    (message,) = [record.getMessage() for record in caplog.records if "copy of another" in record.getMessage()]
    assert message.startswith(
        f"1 image is a copy of another, such as {tmp_path}/scratch/copy.png of {tmp_path}/good/1.png"
    )
