"""Images of every kind come out as three channels in [0, 1] over the full range of their format, or are refused."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import CheckedDataset, check_samples
from anomalib_defect_plugins.data.sample_table import Sample, make_table

GREY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
"""0, 0.2, ... 1 of the full range of 8 bits."""

FULL = np.arange(6).reshape(2, 3) / 5
"""The same as shares of the full range."""

COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
ALPHA = np.array([[0, 255, 128], [1, 254, 0]], np.uint8)
PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Channels by the colour type of the PNG specification."""


def save_png16(path: Path, values: np.ndarray, colour_type: int) -> None:
    """Write a PNG of 16 bits a channel, values (H, W, C); Pillow can write grey ones only."""
    height, width, channels = values.shape
    assert channels == PNG_CHANNELS[colour_type]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


def dataset(path: Path) -> CheckedDataset:
    data = CheckedDataset()
    data.samples = make_table([Sample(str(path), "train")])
    return data


def read(path: Path) -> torch.Tensor:
    """Read an image without a warning, after the check has let it pass."""
    data = dataset(path)
    check_samples(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = data[0].image
    assert image.dtype == torch.float32
    assert image.shape[0] == 3
    return image


def assert_grey(image: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-6) -> None:
    for channel in image:
        torch.testing.assert_close(channel, torch.from_numpy(expected).float(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm", "webp"])
def test_grey_becomes_three_equal_channels(tmp_path, suffix):
    Image.fromarray(GREY).save(tmp_path / f"a.{suffix}", lossless=True)
    # WebP has no grey, and gives it back within a step of the 256
    assert_grey(read(tmp_path / f"a.{suffix}"), FULL, tolerance=1.01 / 255 if suffix == "webp" else 1e-6)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_of_grey_are_scaled_from_their_full_range(tmp_path, suffix):
    # 65535 / 5 = 13107
    Image.fromarray(np.arange(6, dtype=np.uint16).reshape(2, 3) * 13107).save(tmp_path / f"a.{suffix}")
    assert_grey(read(tmp_path / f"a.{suffix}"), FULL)


def test_a_difference_of_16_bits_is_kept(tmp_path):
    Image.fromarray(np.array([[1000, 1001]], np.uint16)).save(tmp_path / "a.png")
    low, high = read(tmp_path / "a.png")[0, 0]
    assert float(high - low) == pytest.approx(1 / 65535, rel=1e-2)


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_16_bits_of_colour_or_with_alpha_channel_are_scaled_from_their_full_range(tmp_path, colour_type):
    channels = PNG_CHANNELS[colour_type]
    values = np.repeat((np.arange(6).reshape(2, 3, 1) * 13107), channels, axis=2)
    if channels in {2, 4}:
        values[..., -1] = ALPHA.astype(int) * 257
    save_png16(tmp_path / "a.png", values, colour_type)
    # Pillow keeps the upper 8 bits of these.
    assert_grey(read(tmp_path / "a.png"), FULL, tolerance=1 / 255)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_an_alpha_channel_is_dropped_and_the_colours_stay(tmp_path, suffix):
    rgba = np.dstack([COLOURS, ALPHA])
    Image.fromarray(rgba).save(tmp_path / f"a.{suffix}", lossless=True, exact=True)
    torch.testing.assert_close(read(tmp_path / f"a.{suffix}"), torch.from_numpy(COLOURS).permute(2, 0, 1) / 255)


def test_an_alpha_channel_of_grey_is_dropped(tmp_path):
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]).save(tmp_path / "a.png")
    assert_grey(read(tmp_path / "a.png"), FULL)


@pytest.mark.parametrize("transparency", [{}, {"transparency": 2}, {"transparency": bytes([0, 128, 255])}])
def test_a_palette_gives_its_colours_also_where_they_are_transparent(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 51, 0, 0, 0, 102])
    image.save(tmp_path / "a.png", **transparency)
    expected = [[[1.0, 0.0, 0.0]], [[0.0, 0.2, 0.0]], [[0.0, 0.0, 0.4]]]
    torch.testing.assert_close(read(tmp_path / "a.png"), torch.tensor(expected))


def test_black_and_white_of_one_bit_are_0_and_1(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    assert_grey(read(tmp_path / "a.png"), (GREY > 100).astype(float))


@pytest.mark.parametrize("values", [np.array([[70000, 0]], np.int32), np.array([[-1, 5]], np.int32)])
def test_whole_numbers_beyond_16_bits_are_refused_by_name(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(InvalidInputError, match=r"cannot read image .*a\.tif \(its values need more than 16 bits"):
        dataset(tmp_path / "a.tif")[0]


def test_floating_point_numbers_are_refused_by_name_before_they_are_read(tmp_path):
    Image.fromarray(FULL.astype(np.float32)).save(tmp_path / "a.tif")
    for look in (check_samples, lambda data: data[0]):
        with pytest.raises(InvalidInputError, match=r"cannot read image .*a\.tif \(its values are floating-point"):
            look(dataset(tmp_path / "a.tif"))
