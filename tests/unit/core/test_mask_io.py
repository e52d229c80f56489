"""A mask of any encoding means what is drawn, or is refused."""

import io

import numpy as np
import pytest
import tifffile
from mask_samples import REFUSED, SAMPLES, SHAPE, colours, drawing
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.mask_io import check_background, leaves_background, marks_of, read_mask


@pytest.mark.parametrize("name", SAMPLES)
def test_a_mask_marks_the_pixels_that_are_drawn(name, tmp_path):
    suffix, write = SAMPLES[name]
    write(tmp_path / f"mask{suffix}", drawing())
    marks = read_mask(tmp_path / f"mask{suffix}")
    assert marks.dtype == bool
    assert np.array_equal(marks, drawing())


@pytest.mark.parametrize("name", REFUSED)
def test_a_mask_without_meaning_is_refused(name, tmp_path):
    suffix, write, line = REFUSED[name]
    write(tmp_path / f"mask{suffix}", drawing())
    with pytest.raises((ValueError, InvalidInputError), match=line):
        check_background(read_mask(tmp_path / f"mask{suffix}"), "mask")


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (9, 7)),
        Image.new("RGBA", (9, 7)),
        Image.new("RGBA", (9, 7), (0, 0, 0, 255)),
        Image.new("RGBA", (9, 7), (255, 255, 255, 0)),
        Image.new("F", (9, 7)),
    ],
    ids=["black", "transparent", "opaque", "white but transparent", "floating point"],
)
def test_an_empty_mask_marks_nothing(image, tmp_path):
    image.save(tmp_path / "mask.tif")
    assert read_mask(tmp_path / "mask.tif").tolist() == [[False] * 9] * 7


@pytest.mark.parametrize("identifiers", [[1, 2, 3, 255], [1, 2, 254, 255], [1, 2, 3, 60, 120, 180, 254, 255]])
def test_identifiers_of_a_lossless_file_are_not_taken_for_noise(identifiers, tmp_path):
    values = np.zeros(SHAPE, np.uint8)
    for number, value in enumerate(identifiers):
        values[10 * number : 10 * number + 8, 5:95] = value
    Image.fromarray(values).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), values > 0)


def test_soft_edges_count_from_their_middle():
    alpha = np.array([[0, 60, 127, 128, 255]], np.uint8)
    layer = Image.fromarray(np.dstack([np.full_like(alpha, 200)] * 3 + [alpha]))
    assert marks_of(layer, soft=True).tolist() == [[False, False, False, True, True]]
    assert marks_of(layer, soft=False).tolist() == [[False, True, True, True, True]]


@pytest.mark.parametrize(
    ("rows", "leaves"),
    [
        ((0, 0), True),
        ((0, 60), True),  # three fifths of the image, and of the border less than nine tenths
        ((0, 94), True),
        ((0, 96), False),
        ((0, 100), False),
    ],
)
def test_a_mask_may_mark_up_to_95_percent(rows, leaves):
    marks = np.zeros((100, 100), bool)
    marks[slice(*rows)] = True
    marks[:, 0] = False
    assert leaves_background(marks) == leaves


def test_a_hole_in_a_marked_image_is_taken_for_the_defect():
    marks = np.ones((100, 100), bool)
    marks[10:75, 10:75] = False  # 58 % is marked, with the whole border
    with pytest.raises(InvalidInputError, match=r"mask a\.png marks 57\.8 % of its pixels, and so its backgr"):
        check_background(marks, "mask a.png")
    marks[:20] = False  # a defect that reaches the border
    assert leaves_background(marks)


def test_a_mask_of_another_orientation_is_turned(tmp_path):
    # A row of 4 pixels, of which the first is marked. Value 8 of the tag: turn it left by 90 degrees to display it.
    exif = Image.Exif()
    exif[0x0112] = 8
    colours(np.array([[True, False, False, False]]), (9, 9, 9), (0, 0, 0)).save(tmp_path / "mask.png", exif=exif)
    assert read_mask(tmp_path / "mask.png").tolist() == [[False], [False], [False], [True]]


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("level", [100, 255])
@pytest.mark.parametrize("size", [3, 30])
def test_a_png_that_was_a_jpeg_is_read_at_half_of_its_highest_value(tmp_path, quality, level, size):
    drawn = np.zeros((96, 96), np.uint8)
    drawn[40 : 40 + size, 42 : 42 + size] = level
    lossy = io.BytesIO()
    Image.fromarray(drawn).save(lossy, "JPEG", quality=quality)
    Image.open(lossy).save(tmp_path / "mask.png")
    values = np.asarray(Image.open(tmp_path / "mask.png"))
    assert np.array_equal(read_mask(tmp_path / "mask.png"), values >= values.max() / 2)


@pytest.mark.parametrize("values", [[1, 2, 3, 254, 255], [1, 2, 3, 4, 249, 250], [*range(1, 41)]], ids=str)
@pytest.mark.parametrize("side", [3, 12])
def test_identifiers_of_regions_are_all_marked(tmp_path, values, side):
    drawn = np.zeros((128, 128), np.uint8)
    for number, value in enumerate(values):
        top, left = (5 + (side + 2) * index for index in divmod(number, 8))
        drawn[top : top + side, left : left + side] = value
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").sum() == side**2 * len(values)


def test_a_deep_tiff_with_transparency_is_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "mask.tif", np.zeros((32, 32, 4), np.uint16), photometric="rgb", extrasamples=["unassalpha"]
    )
    with pytest.raises(ValueError, match="more than 8 bits and transparency; save it with 8 bits"):
        read_mask(tmp_path / "mask.tif")
