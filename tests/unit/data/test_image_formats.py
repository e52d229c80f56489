"""Images of every format become three channels in [0, 1] over its full range, or are an error."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from image_samples import write_png
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import CheckedDataset, check_samples
from anomalib_defect_plugins.data.sample_table import Sample, make_table

GREY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
"""0, 0.2, ... 1 times the full range of 8 bits."""

FULL = np.arange(6).reshape(2, 3) / 5
"""The same values in [0, 1]."""

COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)
ALPHA = np.array([[0, 255, 128], [1, 254, 0]], np.uint8)


def dataset(path: Path) -> CheckedDataset:
    data = CheckedDataset()
    data.samples = make_table([Sample(str(path), "train")])
    return data


def read(path: Path) -> torch.Tensor:
    """Check an image and load it without a warning."""
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
def test_grey_becomes_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY).save(tmp_path / f"a.{suffix}", lossless=True)
    # WebP has no grey mode; its values differ by up to one of 256 steps.
    assert_grey(read(tmp_path / f"a.{suffix}"), FULL, tolerance=1.01 / 255 if suffix == "webp" else 1e-6)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_from_its_full_range(tmp_path: Path, suffix: str) -> None:
    # 65535 / 5 = 13107
    Image.fromarray(np.arange(6, dtype=np.uint16).reshape(2, 3) * 13107).save(tmp_path / f"a.{suffix}")
    assert_grey(read(tmp_path / f"a.{suffix}"), FULL)


def test_differences_of_one_16_bit_step_are_kept(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1000, 1001]], np.uint16)).save(tmp_path / "a.png")
    low, high = read(tmp_path / "a.png")[0, 0]
    assert float(high - low) == pytest.approx(1 / 65535, rel=1e-2)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_and_alpha_are_scaled_from_their_full_range(tmp_path: Path, channels: int) -> None:
    values = np.repeat((np.arange(6, dtype=np.uint16).reshape(2, 3, 1) * 13107), channels, axis=2)
    if channels in {2, 4}:
        values[..., -1] = ALPHA.astype(int) * 257
    write_png(tmp_path / "a.png", values)
    assert_grey(read(tmp_path / "a.png"), FULL)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_an_alpha_channel_is_dropped_and_the_colours_are_kept(tmp_path: Path, suffix: str) -> None:
    rgba = np.dstack([COLOURS, ALPHA])
    Image.fromarray(rgba).save(tmp_path / f"a.{suffix}", lossless=True, exact=True)
    torch.testing.assert_close(read(tmp_path / f"a.{suffix}"), torch.from_numpy(COLOURS).permute(2, 0, 1) / 255)


def test_an_alpha_channel_of_a_grey_image_is_dropped(tmp_path: Path) -> None:
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]).save(tmp_path / "a.png")
    assert_grey(read(tmp_path / "a.png"), FULL)


@pytest.mark.parametrize("transparency", [{}, {"transparency": 2}, {"transparency": bytes([0, 128, 255])}])
def test_transparent_colours_of_a_palette_are_kept(tmp_path: Path, transparency: dict[str, Any]) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 51, 0, 0, 0, 102])
    image.save(tmp_path / "a.png", **transparency)
    expected = [[[1.0, 0.0, 0.0]], [[0.0, 0.2, 0.0]], [[0.0, 0.0, 0.4]]]
    torch.testing.assert_close(read(tmp_path / "a.png"), torch.tensor(expected))


def test_1_bit_black_and_white_are_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    assert_grey(read(tmp_path / "a.png"), (GREY > 100).astype(float))


@pytest.mark.parametrize("values", [np.array([[70000, 0]], np.int32), 255 * FULL.astype(np.float32)])
def test_an_image_without_a_known_range_is_named_by_the_check_and_when_loaded(
    tmp_path: Path, values: npt.NDArray[Any]
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    for load in (check_samples, lambda data: data[0]):
        with pytest.raises(InvalidInputError, match=r"cannot read image .*a\.tif \(its .* values are .*beyond"):
            load(dataset(tmp_path / "a.tif"))
