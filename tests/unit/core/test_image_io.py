"""Image files of every format become three float channels in [0, 1]; tests/unit/data checks it through data sets."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from anomalib_defect_plugins.core.image_io import read_image

GREY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
FULL = np.arange(6, dtype=np.float32).reshape(2, 3) / 5
"""``GREY`` in [0, 1]."""

COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
ALPHA = np.array([[0, 255, 128], [1, 254, 0]], np.uint8)


def save(path: Path, values: npt.NDArray[Any]) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("order", ["C", "K"])
def test_8_bit_colours_are_divided_by_255_in_either_memory_order(tmp_path: Path, order: Literal["C", "K"]) -> None:
    image, width, height = read_image(save(tmp_path / "a.png", COLOURS), order=order)
    assert (image.dtype, width, height) == (np.float32, 3, 2)
    assert image.flags.c_contiguous == (order == "C")
    np.testing.assert_allclose(image, COLOURS.transpose(2, 0, 1) / 255, rtol=1e-6)


@pytest.mark.parametrize("values", [GREY, np.arange(6, dtype=np.uint16).reshape(2, 3) * 13107], ids=["8 bit", "16 bit"])
def test_grey_is_scaled_from_its_full_range_and_repeated(tmp_path: Path, values: npt.NDArray[Any]) -> None:
    # 65535 / 5 = 13107
    image, *_ = read_image(save(tmp_path / "a.png", values))
    np.testing.assert_allclose(image, np.stack([FULL] * 3), rtol=1e-6)


def test_an_alpha_channel_is_dropped(tmp_path: Path) -> None:
    image, *_ = read_image(save(tmp_path / "a.png", np.dstack([COLOURS, ALPHA])))
    np.testing.assert_allclose(image, COLOURS.transpose(2, 0, 1) / 255, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"transparency": 0}])
def test_a_palette_becomes_its_colours(tmp_path: Path, options: dict[str, Any]) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 51, 0])
    image.save(tmp_path / "a.png", **options)
    values, *_ = read_image(tmp_path / "a.png")
    np.testing.assert_allclose(values, [[[1, 0]], [[0, 0.2]], [[0, 0]]], rtol=1e-6)


def test_an_orientation_tag_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    image, width, height = read_image(tmp_path / "a.png")
    assert (image.shape, width, height) == ((3, 2, 3), 3, 2)


@pytest.mark.parametrize("values", [COLOURS, GREY, GREY.astype(np.uint16) * 257], ids=["colour", "grey", "16 bit"])
def test_an_image_is_resized_to_height_and_width(tmp_path: Path, values: npt.NDArray[Any]) -> None:
    image, width, height = read_image(save(tmp_path / "a.png", values), size=(4, 5))
    assert (image.shape, width, height) == ((3, 4, 5), 3, 2)
    assert 0 <= image.min() <= image.max() <= 1


def test_the_size_of_the_file_changes_no_pixel(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", COLOURS)
    np.testing.assert_array_equal(read_image(path, size=(2, 3))[0], read_image(path)[0])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (FULL, "its values are floating-point numbers"),
        (np.array([[70000, 0]], np.int32), "its values need more than 16 bits"),
        (np.array([[-1, 5]], np.int32), "its values need more than 16 bits, or a sign"),
    ],
)
def test_values_without_a_known_range_are_refused(tmp_path: Path, values: npt.NDArray[Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_image(save(tmp_path / "a.tif", values))
