"""Image files are recognised by their suffix; those in formats that are not read are named."""

from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from anomalib_defect_plugins.core.image_files import (
    ANOMALIB_SUFFIXES,
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    image_files,
    unread_files,
    warn_of_unread,
)


def test_the_suffixes_are_those_of_anomalib_and_more_that_pillow_reads() -> None:
    assert ANOMALIB_SUFFIXES == IMG_EXTENSIONS
    assert set(IMAGE_SUFFIXES) > set(ANOMALIB_SUFFIXES)
    assert set(IMAGE_SUFFIXES) <= set(Image.registered_extensions())
    assert not set(IMAGE_SUFFIXES) & set(UNREAD_SUFFIXES)


def test_one_warning_names_the_first_file_of_a_format_that_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b.HEIC", "a.dng", "c.png", ".d.heic", "e.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in unread_files(tmp_path)] == ["a.dng", "b.HEIC"]
    warn_of_unread(unread_files(tmp_path))
    (message,) = caplog.messages
    assert message == (
        f"2 files are left out, the first is {tmp_path / 'a.dng'}: that format is not read; convert such images to PNG "
        "or TIFF"
    )


def test_hidden_files_other_files_and_subfolders_are_omitted(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".c.png", "d.txt"):
        (tmp_path / name).touch()
    (tmp_path / "e.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "b.PNG"]
