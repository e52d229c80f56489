"""Regions of an inspection as COCO, which our reader and labelling tools open."""

import json
from pathlib import Path

import numpy as np
import openvino
import pytest
from bright_graph import bright_graph
from PIL import Image

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolder
from anomalib_defect_plugins.inference.region_file import write_regions


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """Folder of two images with a bright rectangle each, and a dark one."""
    folder = tmp_path / "plates"
    (folder / "late").mkdir(parents=True)
    for name, at in (("0", (4, 10)), ("late/1", (12, 20)), ("2", None)):
        pixels = np.zeros((24, 40), np.uint8)
        if at:
            pixels[at[0] : at[0] + 6, at[1] : at[1] + 8] = 255
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "3.png").write_text("no image")
    return folder


def inspected(plates: Path, scale: float = 1, **options: object) -> Path:
    root = plates.parent
    openvino.save_model(bright_graph(scale=scale), root / "model.xml", compress_to_fp16=False)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    arguments = [str(root / "model.xml"), str(plates), "--out", str(root / "t.parquet"), "--maps", str(root / "maps")]
    assert main(["inspect", *arguments, *words]) == 0
    return root


def test_regions_of_defective_images_are_written_and_read_as_annotations(plates, capsys):
    root = inspected(plates, regions=plates.parent / "regions.json")
    assert "2 regions: " in capsys.readouterr().out
    content = json.loads((root / "regions.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["0.png", "2.png", "late/1.png"]
    assert [(entry["image_id"], entry["bbox"], entry["area"], entry["score"]) for entry in content["annotations"]] == [
        (1, [10, 4, 8, 6], 48, 1),
        (3, [20, 12, 8, 6], 48, 1),
    ]
    pytest.importorskip("pycocotools", reason="polygons need pycocotools, an extra")
    datamodule = DefectFolder(plates, annotations=root / "regions.json", num_workers=0)
    datamodule.setup()
    assert [int(item.gt_mask.sum()) for item in datamodule.test_data] == [48, 48]


def test_the_table_and_maps_are_converted_later(plates):
    root = inspected(plates)
    arguments = ["convert", str(root / "t.parquet"), "--maps", str(root / "maps"), "--out", str(root / "r.json")]
    assert main([*arguments, "--images", str(plates)]) == 0
    assert len(json.loads((root / "r.json").read_text())["annotations"]) == 2


def test_regions_of_a_smaller_map_are_in_pixels_of_the_image(plates):
    root = inspected(plates)
    for path in (root / "maps").rglob("*.png"):
        Image.open(path).resize((20, 12), Image.Resampling.BOX).save(path)
    write_regions(root / "t.parquet", root / "maps", root / "r.json")
    boxes = [entry["bbox"] for entry in json.loads((root / "r.json").read_text())["annotations"]]
    assert boxes == [[10, 4, 8, 6], [20, 12, 8, 6]]


def test_raw_maps_need_a_threshold(plates):
    root = inspected(plates, scale=10, threshold=5)
    table, maps, out = root / "t.parquet", root / "maps", root / "r.json"
    with pytest.raises(InvalidInputError, match="is not normalised; pass the value from which a pixel is defective"):
        write_regions(table, maps, out)
    assert not out.exists()
    assert write_regions(table, maps, out, threshold=5) == 2


def test_missing_and_wrong_files_are_named(plates, capsys):
    root = inspected(plates)
    table, maps, out = root / "t.parquet", root / "maps", root / "r.json"
    with pytest.raises(MissingDataError, match=r"nothing\.parquet does not exist"):
        write_regions(root / "nothing.parquet", maps, out)
    with pytest.raises(MissingDataError, match=r"0\.png does not exist; pass the --maps folder"):
        write_regions(table, root, out)
    (maps / "0.png").write_text("no image")
    with pytest.raises(InvalidInputError, match=r"the map .*0\.png cannot be read"):
        write_regions(table, maps, out)
    (root / "bad.parquet").write_text("no table")
    with pytest.raises(InvalidInputError, match="is no table of 'anomalib-defects inspect'"):
        write_regions(root / "bad.parquet", maps, out)
    for words in (["--out", str(out)], ["--maps", str(maps), "--out", str(root / "folder")]):
        assert main(["convert", str(table), *words]) == 1
        assert "is converted to COCO: pass --maps DIR and --out FILE.json" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--regions", "r.txt", "--maps", "maps"], ["--regions", "r.json"]])
def test_regions_need_maps_and_a_json_file(plates, options, capsys):
    assert main(["inspect", "m.xml", str(plates), "--out", "t.parquet", *options]) == 1
    assert f"--regions {options[1]} is made of maps: pass --maps DIR" in capsys.readouterr().err
