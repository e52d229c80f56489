"""``anomalib-defects convert``: what it prints, and errors of its options in one line."""

from pathlib import Path

import pytest
from dataset_layouts import write_defect_folder

from anomalib_defect_plugins.cli import main

FILES = Path(__file__).parents[2] / "fixtures" / "annotations"


def test_a_folder_of_masks_becomes_coco_and_back(tmp_path, capsys):
    pytest.importorskip("pycocotools", reason="polygons need pycocotools, an extra")
    write_defect_folder(tmp_path / "plates")
    assert main(["convert", str(tmp_path / "plates"), "--out", str(tmp_path / "all.json")]) == 0
    expected = "15 images (3 crack, 2 dent, 10 good)"
    assert capsys.readouterr().out == f"{expected}\n{tmp_path}/all.json\n"
    words = ["--images", str(tmp_path / "plates"), "--out", str(tmp_path / "back")]
    assert main(["convert", str(tmp_path / "all.json"), *words]) == 0
    assert capsys.readouterr().out == f"{expected}\n{tmp_path}/back\n"
    masks = {path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back" / "masks").rglob("*.png")}
    assert masks == {f"masks/{name}.png" for name in ("crack/10", "crack/11", "crack/12", "dent/10", "dent/20")}


def test_polygons_without_pycocotools_say_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    assert main(["convert", str(FILES / "coco_polygons"), "--out", str(tmp_path / "out")]) == 1
    assert "pip install 'anomalib-defect-plugins[annotations]'" in capsys.readouterr().err
    assert main(["convert", str(FILES / "coco_masks"), "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere.json"], "nowhere.json does not exist; pass the file or folder of annotations"),
        (["nowhere"], "nowhere does not exist; pass the file or folder of annotations"),
        (["EMPTY"], "EMPTY has no folder of images; pass the file or folder that a labelling tool has exported"),
        (["COCO", "--images", "nowhere"], "the folder of images nowhere does not exist; pass another one"),
        (["COCO", "--images", "EMPTY"], "image 'plate_1.png' of"),
        (["COCO", "--maps", "maps"], "--maps is for a table of 'anomalib-defects inspect'; leave it out"),
        (["COCO", "--region-threshold", "1"], "--region-threshold is for a table"),
        (["README"], "README.md is in none of the formats coco, labelme, cvat, yolo, voc, label-studio"),
    ],
)
def test_wrong_arguments_are_one_line(words, line, tmp_path, capsys):
    (tmp_path / "EMPTY").mkdir()
    paths = {"EMPTY": tmp_path / "EMPTY", "COCO": FILES / "coco_masks", "README": FILES / "README.md"}
    assert main(["convert", *(str(paths.get(word, word)) for word in words), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert line in error.replace(str(tmp_path / "EMPTY"), "EMPTY")
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_changed(tmp_path, capsys):
    (tmp_path / "note.txt").touch()
    assert main(["convert", str(FILES / "coco_masks"), "--out", str(tmp_path)]) == 1
    assert f"{tmp_path} exists; choose a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
