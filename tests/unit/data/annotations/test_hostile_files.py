"""Hostile and broken files of annotations end in one line that names the file and the place."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from dataset_layouts import write_image
from PIL import Image

from anomalib_defect_plugins.core.errors import UserError
from anomalib_defect_plugins.data.annotations.conversion import open_source, to_folder

pytest.importorskip("pycocotools", reason="polygons need pycocotools, an extra")

SIZE = (12, 8)


def coco(**changes) -> str:
    """Return a file of COCO; changes are of its only image or annotation."""
    image = {"id": 1, "file_name": "0.png", "width": 12, "height": 8}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "segmentation": [[0, 0, 4, 0, 4, 4]]}
    for name, value in changes.items():
        (image if name in image and name != "id" else annotation)[name] = value
    return json.dumps({"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "dent"}]})


def labelme(**changes) -> str:
    shape = {"label": "dent", "shape_type": "polygon", "points": [[0, 0], [4, 0], [4, 4]], **changes}
    return json.dumps({"imagePath": "0.png", "imageWidth": 12, "imageHeight": 8, "shapes": [shape], "flags": {}})


def label_studio(kind: str, value: object, **changes) -> str:
    result = {"type": kind, "value": {kind: ["dent"], **value}, "original_width": 12, "original_height": 8, **changes}
    return json.dumps([{"data": {"image": "0.png"}, "annotations": [{"result": [result]}]}])


def cvat(shape: str, name: str = "0.png", size: str = 'width="12" height="8"') -> str:
    return f'<annotations><image id="0" name="{name}" {size}>{shape}</image></annotations>'


def png(size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("L", size, 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


RLE = [0] * 8
HOSTILE = {
    "coco: no image": ("all.json", coco(image_id=7), "annotation 0 of ROOT/all.json: there is no image with the id 7"),
    "coco: no category": ("all.json", coco(category_id=7), "annotation 0 of ROOT/all.json: there is no category with"),
    "coco: NaN": ("all.json", coco(segmentation=[[0, 0, float("nan"), 0, 4, 4]]), "a coordinate is nan"),
    "coco: infinite": ("all.json", coco(segmentation=[[0, 0, float("inf"), 0, 4, 4]]), "a coordinate is inf"),
    "coco: far away": ("all.json", coco(segmentation=[[0, 0, 1e12, 0, 4, 4]]), "a coordinate is 1e+12"),
    "coco: two points": ("all.json", coco(segmentation=[[0, 0, 1, 1]]), "a polygon has 2 points"),
    "coco: odd": ("all.json", coco(segmentation=[[0, 0, 1, 1, 2]]), "annotation 0 of ROOT/all.json is not valid"),
    "coco: text": ("all.json", coco(segmentation=[["a", "b", "c"] * 2]), "annotation 0 of ROOT/all.json is not valid"),
    "coco: long": ("all.json", coco(segmentation=[[0, 0, 9e4, 9e4] * 50]), "pixels long, more than 5e+06; simplify it"),
    "coco: runs": ("all.json", coco(segmentation={"size": [8, 12], "counts": [10**9]}), "run lengths do not add up"),
    "coco: negative": ("all.json", coco(segmentation={"size": [8, 12], "counts": [-1, 97]}), "run lengths do not"),
    "coco: code": ("all.json", coco(segmentation={"size": [8, 12], "counts": "\u00ff\u0000"}), "not encoded as in"),
    "coco: endless": ("all.json", coco(segmentation={"size": [8, 12], "counts": "o" * 999}), "not encoded as in"),
    "coco: huge": ("all.json", coco(width=10**6, height=10**6, segmentation={"size": [10**6] * 2, "counts": [10**12]}),
                   "a mask has 1000000x1000000 pixels"),
    "coco: other size": ("all.json", coco(width=99), "was annotated at 99x8 pixels in ROOT/all.json, but has 12x8"),
    "coco: escape": ("all.json", coco(file_name="../../../etc/passwd"), "image '../../../etc/passwd' of ROOT/all"),
    "coco: absolute": ("all.json", coco(file_name="/etc/hostname"), "image '/etc/hostname' of ROOT/all.json is not in"),
    "coco: deep": ("all.json", "[" * 100_000, "ROOT/all.json is no JSON file of a labelling tool"),
    "coco: no JSON": ("all.json", "{", "ROOT/all.json is no JSON file of a labelling tool"),
    "coco: other JSON": ("all.json", "{}", "ROOT/all.json is in none of the formats coco, labelme, cvat"),
    "coco: no lists": ("all.json", json.dumps({"images": [3, None], "annotations": [None]}), "image 0 of ROOT/all"),
    "labelme: escape": ("0.json", labelme(label="../../up"), "the label '../../up' cannot be a defect type"),
    "labelme: shape": ("0.json", labelme(shape_type="cube"), "the shape 'cube' is not read; use a polygon"),
    "labelme: mask": ("0.json", labelme(shape_type="mask", mask="AAAA", points=[[0, 0]] * 2), "shape 0 of ROOT/0.json"),
    "labelme: bomb": ("0.json", labelme(shape_type="mask", mask=png((20000, 20000)), points=[[0, 0], [1, 1]]),
                      "shape 0 of ROOT/0.json"),
    "labelme: outside": ("0.json", labelme(shape_type="mask", mask=png((5, 5)), points=[[9, 0], [14, 5]]),
                         "a mask at 9,0 of 5x5 pixels does not fit the image of 12x8"),
    "labelme: NaN": ("0.json", labelme(points=[[0, 0], [float("nan"), 1], [2, 2]]), "a coordinate is nan"),
    "cvat: entities": ("all.xml", '<!DOCTYPE a [<!ENTITY x "y">]><annotations>&x;</annotations>', "a document type"),
    "cvat: broken": ("all.xml", "<annotations>", "ROOT/all.xml is no XML file of a labelling tool"),
    "cvat: other": ("all.xml", "<svg/>", "ROOT/all.xml is not in the format 'CVAT for images 1.1'"),
    "cvat: runs": ("all.xml", cvat('<mask label="dent" rle="1, 2" left="0" top="0" width="4" height="4"/>'),
                   "shape 0 of image '0.png' of ROOT/all.xml: run lengths do not add up to a mask of 4x4"),
    "cvat: no label": ("all.xml", cvat('<polygon points="0,0;1,0;1,1"/>'), "is not valid (there is no 'label')"),
    "cvat: no size": ("all.xml", cvat("", size=""), "image 0 of ROOT/all.xml is not valid (there is no 'height')"),
    "label studio: short": ("all.json", label_studio("brushlabels", {"rle": [0, 0, 1, 128, 57]}), "the brush ends in"),
    "label studio: bytes": ("all.json", label_studio("brushlabels", {"rle": [300, -1]}), "the brush is not one"),
    "label studio: huge": ("all.json", label_studio("brushlabels", {"rle": RLE}, original_width=10**9), "a mask has"),
    "label studio: turned": ("all.json", label_studio("polygonlabels", {"points": []}, image_rotation=90), "rotated"),
    "label studio: NaN": ("all.json", label_studio("polygonlabels", {"points": [[float("nan")] * 2] * 3}), "a coord"),
    "yolo: class": ("labels/0.txt", "7 0 0 1 0 1 1", "line 1 of ROOT/labels/0.txt: there is no class 7"),
    "yolo: text": ("labels/0.txt", "0 0 0 1 0 1 x", "line 1 of ROOT/labels/0.txt is not valid"),
    "yolo: binary": ("labels/0.txt", b"\xff\xfe\x00", "ROOT/labels/0.txt is no text file"),
}  # fmt: skip


def attempt(root: Path, name: str, content: str | bytes) -> str:
    """Convert a file, and return the line of its error."""
    write_image(root / "images" / "0.png", SIZE)
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if path.suffix == ".txt":
        path = root / "data.yaml"
        path.write_text("names: [dent]")
    with pytest.raises(UserError) as raised:
        to_folder(open_source(path, root), root / "out")
    assert not (root / "out").exists()
    return str(raised.value).replace(str(root), "ROOT")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_in_one_line(name, tmp_path):
    file, content, line = HOSTILE[name]
    message = attempt(tmp_path, file, content)
    assert line in message
    assert "\n" not in message
    assert len(message) < 500


def test_all_faults_of_a_file_are_named_at_once(tmp_path):
    content = json.loads(coco(image_id=7))
    content["annotations"] += json.loads(coco(category_id=9))["annotations"]
    message = attempt(tmp_path, "all.json", json.dumps(content))
    assert message.startswith("2 faults in ROOT/all.json: (1) annotation 0 of ROOT/all.json: there is no image")
    assert "(2) annotation 1 of ROOT/all.json: there is no category with the id 9" in message


def test_a_polygon_of_a_million_points_is_drawn(tmp_path):
    write_image(tmp_path / "0.png", SIZE)
    around = np.linspace(0, 2 * np.pi, 1_000_000)
    circle = np.stack([5 + 3 * np.cos(around), 4 + 3 * np.sin(around)], 1).round(4)
    (tmp_path / "all.json").write_text(coco(segmentation=[circle.ravel().tolist()]))
    to_folder(open_source(tmp_path / "all.json"), tmp_path / "out")
    # pi * 3 ** 2 is 28.3.
    assert 24 <= (np.asarray(Image.open(tmp_path / "out" / "masks" / "dent" / "0.png")) > 0).sum() <= 32
