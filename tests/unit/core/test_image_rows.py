"""Images decoded a few rows at a time have the pixels of images decoded at once."""

import tracemalloc
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.core.image_rows import Rows, open_rows, write_grey_png

SHAPE = (61, 37)


def pixels(channels: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Slowly varying values, for which encoders choose all filters."""
    steps = np.random.default_rng(seed).integers(-3, 4, (*SHAPE, channels))
    return (128 + steps.cumsum(0) + steps.cumsum(1)).astype(np.uint8)


IMAGES = {
    "grey": lambda: Image.fromarray(pixels(1)[..., 0]),
    "grey with alpha": lambda: Image.fromarray(pixels(2)),
    "colours": lambda: Image.fromarray(pixels(3)),
    "colours with alpha": lambda: Image.fromarray(pixels(4)),
    "palette": lambda: Image.fromarray(pixels(3)).quantize(200),
    "few colours": lambda: Image.fromarray(pixels(3)).quantize(12),
    "two values": lambda: Image.fromarray(pixels(1)[..., 0] > 128),
    "16 bits": lambda: Image.fromarray(pixels(1)[..., 0].astype(np.uint16) * 257),
}


def read_in_parts(path: Path, *numbers: int) -> Rows:
    image = open_rows(path)
    assert (image.height, image.width) == SHAPE
    image.read(5)
    image.restart()
    return np.concatenate([image.read(number) for number in numbers], axis=1)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("kind", IMAGES)
def test_rows_are_those_of_the_image(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    image = IMAGES[kind]()
    (image.convert("RGB") if suffix == "jpg" and image.mode not in "L" else image).save(path)
    expected = read_image(path)[0]
    assert np.array_equal(read_in_parts(path, 1, 7, 30, 23), expected)
    assert np.array_equal(read_in_parts(path, 61), expected)


def test_a_turned_image_is_turned_before_it_is_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(3).transpose(1, 0, 2)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_in_parts(tmp_path / "turned.png", 11, 50), read_image(tmp_path / "turned.png")[0])


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_an_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(pixels(3)).save(path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"image file is truncated|broken PNG file"):
        read_in_parts(path, *[1] * SHAPE[0])


def test_the_memory_for_rows_of_a_png_file_does_not_depend_on_its_height(tmp_path: Path) -> None:
    peaks = []
    for height in (512, 4096):
        rows = (np.random.default_rng(0).integers(0, 256, (64, 500), np.uint8) for _ in range(height // 64))
        write_grey_png(tmp_path / "tall.png", 500, height, chain(rows))
        tracemalloc.start()
        image = open_rows(tmp_path / "tall.png")
        for _ in range(height // 64):
            image.read(64)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_grey_file_that_is_written_in_rows_is_read_back(tmp_path: Path) -> None:
    values = pixels(1)[..., 0]
    write_grey_png(tmp_path / "grey.png", SHAPE[1], SHAPE[0], iter([values[:20], values[20:]]))
    with Image.open(tmp_path / "grey.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), values)
