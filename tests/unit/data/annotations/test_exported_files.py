"""Files that the labelling tools' own packages have exported: masks are equal to theirs, pixel by pixel."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dataset_layouts import write_image
from PIL import Image

from anomalib_defect_plugins.core.errors import MissingDataError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.data import WithDefects, check_samples
from anomalib_defect_plugins.data.annotations.conversion import open_source, to_coco, to_folder
from anomalib_defect_plugins.data.annotations.reader import annotated_samples, find_format, read_annotations
from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolder

pytest.importorskip("pycocotools", reason="polygons need pycocotools, an extra")

FILES = Path(__file__).parents[3] / "fixtures" / "annotations"

EXPORTS = {
    "coco_polygons": ("coco", "polygons"),
    "coco_masks": ("coco", "masks"),
    "cvat_polygons": ("cvat", "polygons"),
    "cvat_masks": ("cvat", "masks"),
    "voc_masks": ("voc", "masks"),
    "yolo_polygons": ("yolo", "polygons"),
    "label_studio": ("label-studio", "masks"),
    "labelme": ("labelme", "labelme_shapes"),
}
"""Format of each export, and the mask of its first image."""

TYPES = {"polygons": "dent+scratch", "masks": "scratch", "labelme_shapes": "dent"}


def expected(name: str) -> np.ndarray:
    return np.asarray(Image.open(FILES / "expected" / f"{name}.png")) > 0


@pytest.mark.parametrize("name", EXPORTS)
def test_masks_of_exported_files_are_those_of_the_tool(name):
    kind, mask = EXPORTS[name]
    assert find_format(FILES / name)[0] == kind
    faults = Faults(name)
    samples, annotations = annotated_samples(read_annotations(FILES / name, faults), FILES / name, faults)
    faults.raise_all()
    types = {Path(sample.image_path).stem: sample.defect_type for sample in samples}
    assert types["plate_1"] == TYPES[mask]
    first = next(sample for sample in samples if Path(sample.image_path).stem == "plate_1")
    assert np.array_equal(annotations[first.image_path].mask((36, 48)), expected(mask))
    if name not in {"label_studio", "labelme"}:
        assert types["plate_2"] == "good"


def mask_of(name: str, datamodule: DefectFolder) -> np.ndarray:
    items = [*datamodule.train_data, *datamodule.test_data]
    return next(item.gt_mask for item in items if Path(item.image_path).stem == name).numpy()


@pytest.mark.parametrize("name", EXPORTS)
def test_a_converted_folder_and_a_converted_coco_file_have_the_same_masks(name, tmp_path):
    source = open_source(FILES / name)
    assert to_folder(source, tmp_path / "folder") == to_coco(source, tmp_path / "all.json")
    folder = DefectFolder(tmp_path / "folder", num_workers=0, test_ratio=0.0)
    coco = DefectFolder(FILES / name, annotations=tmp_path / "all.json", num_workers=0, test_ratio=0.0)
    for datamodule in (folder, coco):
        datamodule.setup()
        assert np.array_equal(mask_of("plate_1", datamodule), expected(EXPORTS[name][1]))
    # And back: a folder of masks becomes COCO.
    to_coco(open_source(tmp_path / "folder"), tmp_path / "back.json")
    back = DefectFolder(tmp_path / "folder", annotations=tmp_path / "back.json", num_workers=0, test_ratio=0.0)
    back.setup()
    assert np.array_equal(mask_of("plate_1", back), expected(EXPORTS[name][1]))


def test_a_polygon_of_label_studio_is_in_percent_of_the_image():
    source = open_source(FILES / "label_studio")
    second = source.annotations(next(path for path in source.images if path.stem == "plate_2"))
    # The same corners as the dent of the other tools.
    other = open_source(FILES / "coco_polygons")
    first = other.annotations(next(path for path in other.images if path.stem == "plate_1"))
    dent = next(region for region in first.regions if region.label == "dent")
    assert np.array_equal(second.mask((36, 48)), first.draw(dent, (36, 48)))


def test_annotated_defects_move_to_training_with_their_masks():
    datamodule = WithDefects(DefectFolder(FILES / "coco_masks", annotations="annotations", num_workers=0), real="all")
    datamodule.setup()
    check_samples(datamodule.train_data)
    assert sorted(int(item.gt_mask.sum()) for item in datamodule.train_data) == [0, expected("masks").sum()]


def test_a_rectangle_is_an_image_label_without_a_mask():
    datamodule = DefectFolder(FILES / "labelme", annotations=".", num_workers=0)
    datamodule.setup()
    table = pd.concat([datamodule.train_data.samples, datamodule.test_data.samples]).set_index("image_path")
    row = table.loc[str(FILES / "labelme" / "plate_3.png")]
    assert (row.defect_type, row.mask_path, row.marked) == ("dent", "", False)


def test_all_images_are_annotated_relative_to_their_folder(tmp_path):
    faults = Faults(tmp_path)
    write_image(tmp_path / "a" / "0.png", (48, 36))
    write_image(tmp_path / "b" / "0.png", (48, 36))
    images = read_annotations(FILES / "cvat_masks", faults)
    images[0].name, images[1].name = "b/0.png", "0.png"
    samples, _ = annotated_samples(images, tmp_path, faults)
    assert [sample.image_path for sample in samples] == [str(tmp_path / "b" / "0.png")]
    with pytest.raises(MissingDataError, match=r"image '0\.png' of .*train\.xml could be .*a/0\.png or .*b/0\.png"):
        faults.raise_all()
