"""Image files are recognised as in anomalib."""

from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from anomalib_defect_plugins.core.image_files import IMAGE_SUFFIXES, image_files


def test_the_suffixes_are_those_of_anomalib() -> None:
    assert IMAGE_SUFFIXES == IMG_EXTENSIONS


def test_hidden_files_other_files_and_subfolders_are_omitted(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".c.png", "d.txt"):
        (tmp_path / name).touch()
    (tmp_path / "e.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "b.PNG"]
