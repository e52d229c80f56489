"""Shapes of regions: run lengths, outlines and drawings, compared with those of the COCO tools."""

import numpy as np
import pytest
from scipy import ndimage

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.annotations.coco_writer import components
from anomalib_defect_plugins.data.annotations.polygons import Polygon, outlines
from anomalib_defect_plugins.data.annotations.regions import (
    AnnotatedImage,
    Bitmap,
    Box,
    Everywhere,
    Region,
    check_label,
)
from anomalib_defect_plugins.data.annotations.run_lengths import (
    from_coco_string,
    from_label_studio,
    from_runs,
    to_runs,
)

coco = pytest.importorskip("pycocotools.mask", reason="polygons need pycocotools, an extra")


def random_mask(seed: int, share: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(rng.integers(1, 30, 2)) < share


@pytest.mark.parametrize("seed", range(30))
def test_run_lengths_and_strings_are_those_of_the_coco_tools(seed):
    marks = random_mask(seed)
    encoded = coco.encode(np.asfortranarray(marks.astype(np.uint8)))
    runs = from_coco_string(encoded["counts"].decode())
    assert runs == to_runs(marks)
    assert np.array_equal(from_runs(runs, marks.shape, "F"), marks)


@pytest.mark.parametrize("seed", range(30))
def test_the_outline_of_a_region_marks_the_same_pixels(seed):
    # Large enough for touching corners; holes are filled, which polygons cannot have.
    for part in components(ndimage.binary_fill_holes(np.pad(random_mask(seed), 1))):
        filled = np.zeros_like(part)
        for polygon in outlines(part) or []:
            Polygon(polygon).draw(filled)
        assert outlines(part) is None or np.array_equal(filled, part)


def test_a_region_with_a_hole_has_no_exact_outline_but_a_simplified_one():
    marks = np.ones((5, 5), bool)
    marks[2, 2] = False
    assert outlines(marks) is None
    (polygon,) = outlines(marks, tolerance=0.7)
    assert sorted(map(tuple, polygon)) == [(0, 0), (0, 5), (5, 0), (5, 5)]


def test_runs_of_label_studio_may_be_values_or_repeated():
    # 2 x 1 pixels: 8 values of 8 bits; sizes of run lengths 3, 4, 8, 16; a run of 7 zeros, then one value of 255.
    header = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    bits = f"{header}101{6:04b}{0:08b}000000{255:08b}"
    values = [int(bits.ljust(-(-len(bits) // 8) * 8, "0")[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert from_label_studio(values, (1, 2)).tolist() == [[False, True]]


def image(*regions: Region) -> AnnotatedImage:
    return AnnotatedImage("0.png", "all.json", (4, 6), list(regions))


PIXEL = Bitmap.of(np.ones((1, 1), bool), 1, 1)


def test_a_rectangle_beside_an_outlined_defect_is_ignored():
    both = image(Region("dent", PIXEL), Region("dent", Box(3, 1, 5, 3)))
    assert both.has_mask
    assert both.has_ignored
    assert np.argwhere(both.mask((4, 6))).tolist() == [[1, 1]]
    assert np.argwhere(both.ignored((4, 6))).tolist() == [[1, 3], [1, 4], [2, 3], [2, 4]]
    alone = image(Region("dent", Box(3, 1, 5, 3)))
    assert (alone.labels, alone.has_mask, alone.has_ignored) == (["dent"], False, False)


def test_a_region_to_ignore_is_no_defect_and_leaves_defects():
    ignored = image(Region("Ignore", Everywhere()), Region("dent", PIXEL))
    assert ignored.labels == ["dent"]
    assert ignored.ignored((4, 6)).sum() == 4 * 6 - 1
    assert image(Region("ignore", PIXEL)).labels == []


def test_annotations_of_another_size_and_shapes_outside_are_named():
    with pytest.raises(InvalidInputError, match=r"0\.png was annotated at 6x4 pixels in all\.json, but has 8x8"):
        image(Region("dent", PIXEL)).mask((8, 8))
    with pytest.raises(InvalidInputError, match="a mask at 6,1 of 1x1 pixels does not fit the image of 6x4"):
        image(Region("dent", Bitmap.of(np.ones((1, 1), bool), 6, 1))).mask((4, 6))


@pytest.mark.parametrize("label", ["", "..", "a/b", "a\\b", "C:", "good", "a\nb", "x" * 101, None, 1.5, ["a"]])
def test_labels_that_cannot_be_folders_are_refused(label):
    with pytest.raises(InvalidInputError, match="cannot be a defect type"):
        check_label(label)
    assert check_label(" scratch ") == "scratch"
