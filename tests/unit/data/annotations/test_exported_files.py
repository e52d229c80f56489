"""Files that the labelling tools' own packages have exported: masks are equal to theirs, pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
from dataset_layouts import write_image
from PIL import Image

from anomalib_defect_plugins.core.faults import Faults
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
