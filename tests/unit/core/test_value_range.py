"""Images that use little of their range are named in one warning; ordinary ones are not."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from anomalib_defect_plugins.core import value_range
from anomalib_defect_plugins.core.value_range import uses_little_range, warn_of_little_range

RNG = np.random.default_rng(0)


def image(values: npt.NDArray[Any] | float) -> npt.NDArray[Any]:
    return np.broadcast_to(values, (3, 64, 64))


def spot(background: float, value: float, side: int = 8) -> npt.NDArray[Any]:
    values = np.full((64, 64), float(background))
    values[:side, :side] = value
    return image(values)


@pytest.mark.parametrize(
    ("pixels", "little"),
    [
        (image(0.0), True),
        (image(1.0), True),
        (image(RNG.uniform(0, 4095 / 65535, (64, 64))), True),  # 12 bits of 16
        (image(RNG.uniform(0, 1023 / 65535, (64, 64))), True),  # 10 bits of 16
        (image(RNG.uniform(250 / 255, 1, (64, 64))), True),
        (image(RNG.normal(0.5, 0.02, (64, 64)).clip(0, 1)), False),
        (image(RNG.uniform(0, 0.1, (64, 64))), False),  # dark, but not in the lowest sixteenth only
        (image(0.97), False),  # white paper
        (spot(0, 0.5), False),  # a dark field with an object
        (spot(1, 0.5), False),  # a white background with an object
    ],
)
def test_an_image_uses_little_range_if_nearly_all_of_it_is_dark_or_white(
    pixels: npt.NDArray[Any], little: bool
) -> None:
    assert uses_little_range(pixels) == little


def write(folder: Path, values: dict[str, int]) -> list[str]:
    for name, value in values.items():
        Image.fromarray(np.full((16, 16), value, np.uint8)).save(folder / f"{name}.png")
    return [str(folder / f"{name}.png") for name in values]


def test_one_warning_names_the_first_image_and_counts_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_little_range([*write(tmp_path, {"a": 128, "b": 3, "c": 255, "d": 99}), str(tmp_path / "missing.png")])
    (message,) = caplog.messages
    assert message.startswith(f"image {tmp_path / 'b.png'} is almost black or almost white, as are 2 of 5 images")


def test_ordinary_images_and_no_images_cause_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_little_range(write(tmp_path, {"a": 20, "b": 240}))
    warn_of_little_range([])
    assert not caplog.messages


def test_of_many_images_a_part_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(value_range, "_uses_little_range", lambda path: bool(looked_at.append(path)))
    warn_of_little_range(f"{number:04}" for number in range(1000))
    assert len(looked_at) == value_range.MAX_IMAGES
    assert (looked_at[0], looked_at[-1]) == ("0000", "0999")
