"""Drift check: disturbed images are found within 50 images, and undisturbed ones hardly ever raise an alert."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_statistics import image_statistics
from anomalib_defect_plugins.inference.drift import QUANTITIES, check_drift, drift_line, read_reference, report_drift

Image = npt.NDArray[np.floating[Any]]

DISTURBANCES: dict[str, tuple[Callable[[Image], Image], str]] = {
    "darker light": (lambda image: 0.85 * image, "brightness"),
    "brighter light": (lambda image: np.clip(1.15 * image, 0, 1), "brightness"),
    "blur": (lambda image: gaussian_filter(image, (0, 1, 1)), "sharpness"),
    "shift to the right": (lambda image: np.roll(image, 6, axis=2), "centre_x"),
    "shift downwards": (lambda image: np.roll(image, 6, axis=1), "centre_y"),
}


def photograph(rng: np.random.Generator) -> Image:
    """A bright part on a dark ground, at a position and under a light that vary a little."""
    image = np.full((3, 64, 64), 0.15)
    top, left = 22 + rng.integers(-2, 3), 22 + rng.integers(-2, 3)
    image[:, top : top + 20, left : left + 20] = 0.7
    return np.clip(rng.normal(1, 0.05) * image + rng.normal(0, 0.02, image.shape), 0, 1)


def table(images: list[Image], rng: np.random.Generator) -> pd.DataFrame:
    """The columns of an inspection; scores do not depend on the images."""
    rows = [
        {"path": f"{number}.png", "score": rng.random(), **image_statistics(image)}
        for number, image in enumerate(images)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def images() -> list[Image]:
    rng = np.random.default_rng(0)
    return [photograph(rng) for _ in range(250)]


@pytest.mark.parametrize("name", DISTURBANCES)
def test_a_disturbance_is_found_within_50_images_by_the_quantity_that_it_changes(
    images: list[Image], name: str
) -> None:
    disturb, quantity = DISTURBANCES[name]
    rng = np.random.default_rng(1)
    reference, present = table(images[:100], rng), table([*images[100:150], *map(disturb, images[150:200])], rng)
    charts = check_drift(reference, present)
    assert charts[quantity].alert is not None
    assert 50 <= charts[quantity].alert < 100
    assert not any(chart.alert is not None and chart.alert < 50 for chart in charts.values())
    line = drift_line(charts, present, len(reference))
    assert line.startswith("DRIFT: ")
    assert f"{quantity} {'higher' if charts[quantity].is_higher else 'lower'} (from image" in line


@pytest.mark.parametrize("size", [25, 119])
def test_at_most_one_undisturbed_inspection_in_a_hundred_raises_an_alert(size: int) -> None:
    rng = np.random.default_rng(2)
    alerts = 0
    for _ in range(200):
        columns = [rng.exponential(1, (size, 5)), rng.exponential(1, (80, 5))]
        reference, present = (pd.DataFrame(values, columns=QUANTITIES).assign(path="a.png") for values in columns)
        alerts += any(chart.alert is not None for chart in check_drift(reference, present).values())
    assert alerts <= 5  # 1 % of 200, and twice the standard deviation


def test_images_that_resemble_their_neighbours_raise_few_alerts() -> None:
    rng, alerts = np.random.default_rng(3), 0
    for _ in range(60):
        steps = rng.normal(size=(400, 5)).cumsum(0)  # parts of eight photographs each, which differ little
        values = np.repeat(rng.normal(size=(50, 5)), 8, axis=0) + 0.02 * steps / 20
        reference, present = (
            pd.DataFrame(part, columns=QUANTITIES).assign(path="a.png") for part in (values[:240], values[240:])
        )
        alerts += any(chart.alert is not None for chart in check_drift(reference, present).values())
    assert alerts <= 6  # with independent images assumed, nearly all would


def test_images_with_an_error_are_left_out(images: list[Image]) -> None:
    rng = np.random.default_rng(4)
    reference, present = table(images[:30], rng), table(images[30:60], rng)
    present.loc[3:5, list(QUANTITIES)] = np.nan
    charts = check_drift(reference, present)
    assert all(len(chart.average) == 27 for chart in charts.values())
    assert drift_line(charts, present, 30) == "drift: none found in 27 images, compared with 30 reference images"


def test_the_report_is_a_line_and_a_picture(images: list[Image], tmp_path: Path) -> None:
    rng, out = np.random.default_rng(5), tmp_path / "out.parquet"
    table(images[:30], rng).to_parquet(tmp_path / "reference.parquet")
    table([0.5 * image for image in images[30:70]], rng).to_parquet(out)
    text = report_drift(read_reference(tmp_path / "reference.parquet"), out)
    assert text.startswith("DRIFT: brightness lower (from image ")
    assert (tmp_path / "out.drift.png").read_bytes().startswith(b"\x89PNG")


def test_invalid_reference_tables_are_one_line(images: list[Image], tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.parquet not found; 'anomalib-defects inspect' on images"):
        read_reference(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    pd.DataFrame({"path": ["a.png"], "score": [0.1]}).to_parquet(tmp_path / "older.parquet")
    for name in ("text.parquet", "older.parquet"):
        with pytest.raises(InvalidInputError, match=r"has no columns score, brightness, .*; inspect the reference"):
            read_reference(tmp_path / name)
    few = table(images[:19], np.random.default_rng(6))
    with pytest.raises(InvalidInputError, match="the reference table has 19 images; use one of at least 20"):
        check_drift(few, few)
    few.to_parquet(tmp_path / "few.parquet")
    with pytest.raises(InvalidInputError, match="the reference table has 19 images; use one of at least 20"):
        read_reference(tmp_path / "few.parquet")  # before any image is inspected


def test_statistics_of_an_image_by_hand() -> None:
    image = np.zeros((3, 2, 4))
    image[:, 0, 3] = 0.8
    found = image_statistics(image)
    assert found["brightness"] == pytest.approx(0.1)
    assert (found["centre_x"], found["centre_y"]) == pytest.approx((3.5 / 4, 0.25))
    # First differences: 0.8 in one row; second: 0.8.
    assert found["sharpness"] == pytest.approx(1)
    image[:, 0, 1] = 0.8  # first differences 0.8, -0.8, 0.8; second -1.6, 1.6
    assert image_statistics(image)["sharpness"] == pytest.approx((2 * 4 / 3) ** 0.5)
    assert image_statistics(0.5 * image)["sharpness"] == pytest.approx((2 * 4 / 3) ** 0.5)
    assert image_statistics(np.ones((3, 1, 1)))["sharpness"] == 0
