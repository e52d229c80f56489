"""The quality report, on images whose features are known."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.data.contact_sheet import LABEL_WIDTH
from anomalib_defect_plugins.metrics.features import Extractor
from anomalib_defect_plugins.synthesis.folder import SyntheticFolder
from anomalib_defect_plugins.synthesis.quality_report import to_markdown, write_quality_report

SIDE = 16


class Mean(nn.Module):
    """Extracts the mean of the first channel."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1].mean((2, 3))


MEAN = Extractor("means", Mean())


def grey(value: float) -> Tensor:
    return torch.full((3, SIDE, SIDE), round(value) / 255)


def write_real(root: Path, values: Mapping[str, list[int]]) -> DefectFolder:
    """Write uniform images of these grey levels, by type."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:8, 4:8] = 255
    for kind, levels in values.items():
        for number, level in enumerate(levels):
            for folder, pixels in ((kind, np.full((SIDE, SIDE, 3), level, np.uint8)), (f"masks/{kind}", mask)):
                if folder != "masks/good":
                    (root / folder).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(root / folder / f"{number}.png")
    data = DefectFolder(root, num_workers=0)
    data.setup()
    return data


def write_synthetic(root: Path, values: Mapping[str, list[int]], mean_map: float = 0.25) -> Path:
    """Write uniform images of these grey levels, by type, with masks of 16 pixels."""
    folder = SyntheticFolder(root, {})
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[:, :4, :4] = True
    for kind, levels in values.items():
        for level in levels:
            number = len(folder.rows)
            row: dict[str, Any] = {
                "number": number,
                "category": kind,
                "seed": 0,
                "source": "there.png",
                "mean_map": mean_map,
            }
            row |= {"image": f"{kind}/{number}.png", "mask": f"masks/{kind}/{number}.png", "defect_share": 1 / 16}
            row["normal"] = folder.add_normal("0.png", grey(200))
            folder.add(row, {row["image"]: grey(level), row["mask"]: mask})
    return root


REAL = {"good": [200, 201], "crack": list(range(0, 80, 8)), "dent": list(range(100, 180, 8))}


@pytest.fixture
def data(tmp_path: Path) -> DefectFolder:
    return write_real(tmp_path / "real", REAL)


def figures(out: Path) -> dict[tuple[str | None, str], dict[str, float]]:
    rows = json.loads((out / "report.json").read_text())["figures"]
    return {(row["category"], row["set"]): row for row in rows}


def test_copies_of_the_real_images_are_at_distance_0_and_counted_as_copies(data: DefectFolder, tmp_path: Path) -> None:
    made = write_synthetic(tmp_path / "made", {kind: REAL[kind] for kind in ("crack", "dent")})
    write_quality_report({"copy": made}, data, tmp_path / "out", MEAN)
    found = figures(tmp_path / "out")[None, "copy"]
    assert found["images"] == 20
    assert found["distance"] == pytest.approx(0, abs=1e-9)
    assert found["precision"] == found["recall"] == 1
    assert found["nearest"] == 0
    assert found["copies"] == 1
    assert found["mean_map"] == 0.25
    assert found["defect_share"] == pytest.approx(1 / 16)


def test_the_distance_is_that_of_the_means_where_the_spreads_are_alike(data: DefectFolder, tmp_path: Path) -> None:
    """All 16 grey levels lighter: (16 / 255)^2, and of a category alone the same."""
    made = write_synthetic(tmp_path / "made", {kind: [v + 16 for v in REAL[kind]] for kind in ("crack", "dent")})
    write_quality_report({"lighter": made}, data, tmp_path / "out", MEAN)
    found = figures(tmp_path / "out")
    for category in (None, "crack", "dent"):
        assert found[category, "lighter"]["distance"] == pytest.approx((16 / 255) ** 2)
    assert found["crack", "lighter"]["images"] == found["crack", "real"]["images"] == 10
    # Of ten cracks 8 levels apart, the two lightest are 8 and 16 levels from the lightest real one.
    assert found["crack", "lighter"]["nearest"] == pytest.approx(0, abs=1e-6)
    assert found["crack", "real"]["nearest"] == pytest.approx(8 / 255)


def test_halves_of_the_real_images_are_compared_with_as_many_others(data: DefectFolder, tmp_path: Path) -> None:
    made = write_synthetic(tmp_path / "made", {"crack": [250] * 10})
    write_quality_report({"made": made}, data, tmp_path / "out", MEAN)
    found = figures(tmp_path / "out")
    assert found[None, "real"]["half"] == found[None, "made"]["half"] == 10
    assert found["crack", "real"]["half"] == 5
    assert found[None, "real"]["distance_of_halves"] < found[None, "made"]["distance_of_halves"]
    assert "distance" not in found[None, "real"]


def test_there_is_no_distance_for_a_few_images(data: DefectFolder, tmp_path: Path) -> None:
    made = write_synthetic(tmp_path / "made", {"crack": [10, 12]})
    write_quality_report({"few": made}, data, tmp_path / "out", MEAN)
    found = figures(tmp_path / "out")
    assert "distance" not in found[None, "few"]
    assert found[None, "few"]["nearest"] == pytest.approx(3 / 255, abs=1e-6)  # 2 from 8, and 4 from 8 and 16
    assert ("dent", "few") not in found


def test_the_nearest_real_image_of_each_is_named(data: DefectFolder, tmp_path: Path) -> None:
    made = write_synthetic(tmp_path / "made", {"crack": [9, 150]})
    write_quality_report({"made": made}, data, tmp_path / "out", MEAN)
    table = pd.read_csv(tmp_path / "out" / "nearest-made.csv")
    assert [Path(path).name for path in table.nearest] == ["1.png", "6.png"]  # 8 and 148
    assert list(table.nearest_category) == ["crack", "dent"]
    assert table.distance.tolist() == pytest.approx([1 / 255, 2 / 255], abs=1e-6)


def test_there_is_a_contact_sheet_of_each_folder_and_category(data: DefectFolder, tmp_path: Path) -> None:
    one = write_synthetic(tmp_path / "one", {"crack": [9, 20], "dent": [110]})
    two = write_synthetic(tmp_path / "two", {"crack": [9]})
    write_quality_report({"one": one, "two": two}, data, tmp_path / "out", MEAN)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == ["one-crack.png", "one-dent.png", "two-crack.png"]
    with Image.open(tmp_path / "out" / "one-crack.png") as sheet:
        pixels = np.array(sheet)[:, LABEL_WIDTH:]
    assert all((pixels == level).all(2).any() for level in (9, 20, 200, 8, 16))  # made, their source, nearest real


def test_types_in_turn_are_not_mixed_up(data: DefectFolder, tmp_path: Path) -> None:
    """``synthesize`` numbers types in turn: 0 a crack, 1 a dent, and so on, which is not the order of the files."""
    folder = SyntheticFolder(tmp_path / "made", {})
    for number in range(4):
        kind, level, mean = (("crack", 9, 0.1), ("dent", 150, 0.3))[number % 2]
        row: dict[str, Any] = {"number": number, "category": kind, "seed": 0, "source": "there.png", "mean_map": mean}
        row |= {"image": f"{kind}/{number}.png", "mask": f"masks/{kind}/{number}.png", "defect_share": mean}
        row["normal"] = folder.add_normal(f"{number}.png", grey(200 + number))
        mask = torch.zeros(1, SIDE, SIDE)
        mask[:, :4] = 1
        folder.add(row, {row["image"]: grey(level), row["mask"]: mask})
    write_quality_report({"made": tmp_path / "made"}, data, tmp_path / "out", MEAN)
    found = figures(tmp_path / "out")
    assert found["crack", "made"]["mean_map"] == pytest.approx(0.1)
    assert found["dent", "made"]["mean_map"] == pytest.approx(0.3)
    with Image.open(tmp_path / "out" / "made-dent.png") as sheet:
        pixels = np.array(sheet)[:, LABEL_WIDTH:]
    there = [level for level in (9, 150, 200, 201, 202, 203) if (pixels == level).all(2).any()]
    assert there == [150, 201, 203]


def test_the_report_names_its_features(data: DefectFolder, tmp_path: Path) -> None:
    made = write_synthetic(tmp_path / "made", {"crack": [9] * 8})
    text = write_quality_report({"made": made}, data, tmp_path / "out", MEAN).read_text()
    assert "Distance: squared Fréchet distance on features of means." in text
    assert "FID" not in text
    assert text.count("| made |") == 2  # all categories, crack
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "FID" in to_markdown({**found, "measure": "FID"})
    assert not list((tmp_path / "out").glob("*.part"))


def test_the_same_seed_gives_the_same_report(data: DefectFolder, tmp_path: Path) -> None:
    made = write_synthetic(tmp_path / "made", {"crack": list(range(0, 100, 5))})
    for name in ("a", "b"):
        write_quality_report({"made": made}, data, tmp_path / name, MEAN)
    assert (tmp_path / "a" / "report.json").read_text() == (tmp_path / "b" / "report.json").read_text()


def test_missing_images_and_an_unwritable_folder_are_reported(data: DefectFolder, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"table\.csv is missing; choose a folder that 'anomalib-defects synth"):
        write_quality_report({"none": tmp_path / "real"}, data, tmp_path / "out", MEAN)
    made = write_synthetic(tmp_path / "made", {"crack": [9]})
    few = write_real(tmp_path / "few", {"good": [200, 201], "crack": [1, 2, 3]})
    with pytest.raises(
        InvalidInputError, match="few has 3 defective images, too few to compare with; use data with 8 or more"
    ):
        write_quality_report({"made": made}, few, tmp_path / "out", MEAN)
    (tmp_path / "out").touch()
    with pytest.raises(InvalidInputError, match=r"cannot write to .*out "):
        write_quality_report({"made": made}, data, tmp_path / "out", MEAN)
