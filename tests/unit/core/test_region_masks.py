"""Regions of interest are read from masks, LabelMe files and folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.region_masks import RegionMasks, resize_region, resize_rows
from anomalib_defect_plugins.layers.region import resize_region as resize_tensor


def write_mask(path: Path, region: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(region, bool).astype(np.uint8) * 255).save(path)
    return path


def write_labelme(path: Path, *shapes: dict[str, Any], width: Any = 8, height: Any = 6) -> Path:
    path.write_text(json.dumps({"shapes": shapes, "imageWidth": width, "imageHeight": height}))
    return path


def polygon(*points: tuple[float, float], kind: str = "polygon") -> dict[str, Any]:
    return {"points": points, "shape_type": kind, "label": "roi"}


def test_one_mask_is_the_region_of_all_images(tmp_path: Path) -> None:
    region = np.eye(5, dtype=bool)
    regions = RegionMasks(write_mask(tmp_path / "roi.png", region))
    assert np.array_equal(regions("any/image.jpg"), region)


def test_polygons_and_rectangles_of_a_file_are_drawn(tmp_path: Path) -> None:
    file = write_labelme(
        tmp_path / "roi.json", polygon((1, 1), (3, 2), kind="rectangle"), polygon((6, 0), (7, 0), (7, 5))
    )
    region = RegionMasks(file)("image.png")
    assert region.shape == (6, 8)
    assert region[1:3, 1:4].all()
    assert region[0, 6]
    assert region[5, 7]
    assert not region[4:, :6].any()


def test_points_beyond_the_image_are_moved_to_its_border(tmp_path: Path) -> None:
    file = write_labelme(tmp_path / "roi.json", polygon((-1e9, -5), (1e12, -5), (1e12, 1e9), (-3, 1e9)))
    assert RegionMasks(file)("image.png").all()


@pytest.mark.parametrize("place", ["test/bent/000.png", "bent/000.tif", "000.png", "000.json"])
def test_a_folder_has_the_region_of_an_image_under_its_name(tmp_path: Path, place: str) -> None:
    file = tmp_path / "roi" / place
    if place.endswith("json"):
        file.parent.mkdir()
        write_labelme(file, polygon((0, 0), (3, 3), kind="rectangle"))
    else:
        write_mask(file, np.eye(6, 8))
    regions = RegionMasks(tmp_path / "roi")
    assert regions.fixed is None
    assert regions("/data/test/bent/000.jpg").shape == (6, 8)
    with pytest.raises(MissingDataError, match=r"has no region of .*001.jpg; add 001.png"):
        regions("/data/test/bent/001.jpg")


def test_the_image_itself_is_never_taken_for_its_region(tmp_path: Path) -> None:
    image = write_mask(tmp_path / "a.png", np.eye(4))
    (tmp_path / "roi").mkdir()
    with pytest.raises(MissingDataError):
        RegionMasks(tmp_path / "roi")(image)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot read roi_mask"),
        ("[]", "has no shapes"),
        ('{"shapes": [], "imageWidth": 8, "imageHeight": 6}', "marks nothing"),
        ('{"shapes": [], "imageWidth": 80000, "imageHeight": 60000}', "is for images of 80000x60000"),
        ('{"shapes": 3, "imageWidth": 8, "imageHeight": 6}', "cannot read roi_mask"),
        ('{"shapes": [{"points": [[0, 0], [NaN, 1], [2, 2]]}], "imageWidth": 8, "imageHeight": 6}', "finite numbers"),
        ('{"shapes": [{"points": [[0, 0], [1, 1]]}], "imageWidth": 8, "imageHeight": 6}', "a polygon of 2 points"),
        (
            '{"shapes": [{"shape_type": "circle", "points": [[0, 0], [1, 1]]}], "imageWidth": 8, "imageHeight": 6}',
            "a circle of 2 points",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "roi.json"
    file.write_text(content)
    with pytest.raises(InvalidInputError, match=reason) as raised:
        RegionMasks(file)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_damaged_empty_and_missing_masks_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    write_mask(tmp_path / "empty.png", np.zeros((4, 4)))
    for name, reason in (("broken.png", "cannot read"), ("empty.png", "marks nothing")):
        with pytest.raises(InvalidInputError, match=reason):
            RegionMasks(tmp_path / name)
    with pytest.raises(MissingDataError, match="not found; pass a mask"):
        RegionMasks(tmp_path / "missing.png")


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 9))
def test_regions_are_resized_alike_with_and_without_torch(height: int, width: int, seed: int) -> None:
    region = np.random.default_rng(seed).random((11, 17)) < 0.5
    rows = resize_rows(region, height, width, 0, height)
    assert np.array_equal(rows, resize_tensor(torch.from_numpy(region), height, width).numpy())
    assert np.array_equal(rows[height // 2 :], resize_rows(region, height, width, height // 2, height))
    assert np.array_equal(resize_rows(region, 11, 17, 0, 11), region)


def test_a_region_without_a_pixel_at_the_size_of_the_image_is_refused() -> None:
    region = np.zeros((100, 100), bool)
    region[0, 0] = True
    with pytest.raises(InvalidInputError, match="has no pixel left at 10x10"):
        resize_region(region, 10, 10)
