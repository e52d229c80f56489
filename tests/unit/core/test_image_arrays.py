"""Images that are not files become the pixels that the image reader reads from a file of them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_arrays import to_pixels
from anomalib_defect_plugins.core.image_io import read_bytes, read_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
DEEP = np.random.default_rng(1).integers(0, 2**16, (5, 7), np.uint16)


def encoded(pixels: np.ndarray[Any, Any], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "image",
    [
        RGB,
        np.dstack([RGB, np.full((5, 7), 9, np.uint8)]),
        torch.from_numpy(RGB).permute(2, 0, 1),
        Image.fromarray(RGB),
        encoded(RGB, "PNG"),
        io.BytesIO(encoded(RGB, "BMP")),
        memoryview(encoded(RGB, "TIFF")),
    ],
    ids=["array", "alpha", "tensor", "pillow", "bytes", "stream", "tiff"],
)
def test_bytes_of_three_channels_stay_as_they_are(image: Any) -> None:
    pixels = to_pixels(image)
    if pixels.dtype == np.float32:  # a TIFF file is read as a file
        pixels = (pixels.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize(
    "image", [RGB[..., 0], RGB[..., :1], torch.from_numpy(RGB[..., 0]), Image.fromarray(RGB[..., 0])]
)
def test_grey_is_repeated(image: Any) -> None:
    np.testing.assert_array_equal(to_pixels(image), np.repeat(RGB[..., :1], 3, axis=2))


def test_deep_images_are_scaled_by_all_their_bits_as_in_a_file(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    expected = read_image(tmp_path / "deep.png")[0]
    for image in (DEEP, torch.from_numpy(DEEP.astype(np.float32) / 65535), (tmp_path / "deep.png").read_bytes()):
        np.testing.assert_allclose(to_pixels(image), expected, atol=1e-6)
    np.testing.assert_array_equal(
        read_bytes(tmp_path / "deep.png")[0], (expected.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    )


def test_a_turned_photo_is_turned_upright_also_in_memory(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(to_pixels((tmp_path / "a.png").read_bytes()), read_bytes(tmp_path / "a.png")[0])


@pytest.mark.parametrize(
    ("image", "line"),
    [
        (np.zeros((2, 3, 5), np.uint8), "2x3x5 is not the shape of an image"),
        (np.zeros(4), "4 is not the shape of an image"),
        (3, "a single value is not the shape"),
        (np.zeros((0, 4, 3), np.uint8), "0x4x3 is not the shape"),
        (np.full((4, 4), 1.5), "values from 1.5 to 1.5, beyond the range of float64, 0 to 1; divide"),
        (np.full((4, 4), np.nan), "values from nan to nan"),
        (np.zeros((4, 4), np.int64), "an image of type int64 is not read; use uint8"),
        (np.zeros((4, 4), complex), "an image of type complex128"),
        (b"hello", "the data is not an image"),
        (b"", "the data is not an image"),
        (io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "the data is not an image"),
    ],
)
def test_what_is_not_an_image_is_refused_in_one_line(image: Any, line: str) -> None:
    with pytest.raises(InvalidInputError, match=line) as error:
        to_pixels(image)
    assert "\n" not in str(error.value)
