"""Data sets of synthetic defects: what is written, resumed, and read by data modules."""

from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import Folder
from dataset_layouts import contents
from fake_synthesizer import FakeSynthesizer, MakeImages
from PIL import Image
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.synthesis.folder import COLUMNS, normal_images, read_table, synthetic_defects


def test_it_writes_images_masks_and_a_table_for_each_category_in_turn(make: MakeImages, out: Path) -> None:
    make()
    table = pd.read_csv(out / "table.csv")
    assert tuple(table.columns) == COLUMNS
    assert list(table.image) == ["crack/00000.png", "dent/00001.png", "crack/00002.png", "dent/00003.png"]
    assert list(table["mask"]) == [f"masks/{name}" for name in table.image]
    assert (table.seed == 0).all()
    # A square of 64 of 32 * 48 pixels, in which the map is 0.9.
    assert table.defect_share.tolist() == pytest.approx([64 / 1536] * 4)
    assert table.mean_map.tolist() == pytest.approx([0.9 * 64 / 1536] * 4)
    assert all(Path(path).is_file() for path in table.source)


def test_the_mask_is_where_the_image_differs_from_its_source(make: MakeImages, out: Path) -> None:
    make()
    for row in read_table(out).itertuples():
        mask = np.array(Image.open(out / row.mask))
        image = np.array(Image.open(out / row.image)).astype(int)
        normals = [np.array(Image.open(path)).astype(int) for path in (out / "good").iterdir()]
        assert set(np.unique(mask)) == {0, 255}
        assert any((image == normal)[mask == 0].all() for normal in normals)


@pytest.mark.parametrize("half", [False, True])
def test_otsu_finds_the_defect_in_a_map_that_is_high_everywhere(
    make: MakeImages, fake: FakeSynthesizer, out: Path, tmp_path: Path, half: bool
) -> None:
    fake.floor = 0.6
    region = np.zeros(fake.image_size, np.uint8)
    region[:, : 24 if half else 48] = 255
    Image.fromarray(region).save(tmp_path / "region.png")
    with pytest.raises(InvalidInputError, match=r"maps have a mean of 0\.6.*above --threshold 0\.5"):
        make(tmp_path / "fixed", threshold=0.5)
    make(threshold="otsu", region=tmp_path / "region.png")
    assert read_table(out).defect_share.tolist() == pytest.approx([64 / 1536] * 4)


def test_a_defect_may_cover_as_much_as_is_requested(
    make: MakeImages, fake: FakeSynthesizer, out: Path, tmp_path: Path
) -> None:
    fake.floor = 0.6  # above the threshold everywhere
    with pytest.raises(InvalidInputError, match=r"covers --max-share 1\.0 of the image at most and leaves"):
        make(tmp_path / "all", max_share=1.0)  # no data set would read such a mask
    region = np.zeros(fake.image_size, np.uint8)
    region[:, :31] = 255  # 8 columns more are affected, 9 of 48 are not
    Image.fromarray(region).save(tmp_path / "region.png")
    make(max_share=1.0, region=tmp_path / "region.png")
    assert read_table(out).defect_share.tolist() == pytest.approx([39 / 48] * 4)
    with pytest.raises(InvalidInputError, match=r"covers --max-share 0\.5 of the image at most"):
        make(tmp_path / "less", max_share=0.5, region=tmp_path / "region.png")


def test_defect_folder_reads_it(make: MakeImages, out: Path) -> None:
    make(num=6)
    data = DefectFolder(out, num_workers=0)
    data.setup()
    table = data.test_data.samples
    assert sorted(table.defect_type[table.label_index == 1]) == ["crack"] * 3 + ["dent"] * 3
    item = data.test_data[int(np.flatnonzero(table.label_index)[0])]
    assert cast(Tensor, item.gt_mask).sum() == 64


def test_anomalib_reads_it(make: MakeImages, out: Path) -> None:
    make(num=6)
    types = ["crack", "dent"]
    data = Folder("made", "good", out, types, mask_dir=[f"masks/{name}" for name in types], num_workers=0, seed=0)
    data.setup()
    assert data.test_data.samples.label_index.sum() + data.val_data.samples.label_index.sum() == 6


def test_it_is_read_as_a_training_set(make: MakeImages, out: Path) -> None:
    make(restored=True)
    defects = synthetic_defects(out)
    assert sorted(defects.samples.defect_type) == ["crack", "crack", "dent", "dent"]
    assert all(cast(Tensor, defects[row].gt_mask).sum() == 64 for row in range(4))
    assert len(normal_images(out, "_restored")) == 4
    assert not normal_images(out).samples.label_index.any()


def test_restored_images_are_written_only_on_request(make: MakeImages, out: Path) -> None:
    make()
    with pytest.raises(MissingDataError, match=r"_restored contains no image; create them with: .*--restored"):
        normal_images(out, "_restored")


def test_an_image_depends_on_seed_and_number_only(make: MakeImages, tmp_path: Path) -> None:
    make(tmp_path / "few", num=2)
    make(tmp_path / "many", num=5)
    make(tmp_path / "other", num=5, seed=1)
    few, many, other = (contents(tmp_path / name) for name in ("few", "many", "other"))
    images = [name for name in few if name.startswith(("crack", "dent", "masks"))]
    assert len(images) == 4
    assert all(few[name] == many[name] for name in images)
    assert any(many[name] != other[name] for name in images)


def test_more_images_are_added_to_a_folder(make: MakeImages, out: Path, tmp_path: Path, fake: FakeSynthesizer) -> None:
    make(num=2)
    fake.controls.clear()
    make(num=5)
    assert len(fake.controls) == 3
    make(tmp_path / "at once", num=5)
    assert contents(out) == contents(tmp_path / "at once")


def test_a_finished_run_is_not_repeated(make: MakeImages, out: Path, fake: FakeSynthesizer) -> None:
    rows = make()
    fake.controls.clear()
    assert make() == rows
    assert make(num=2) == rows[:2]
    assert not fake.controls


@pytest.mark.parametrize("broken", ["half a row", "an image without its row", "no image", "no mask"])
def test_a_killed_run_is_resumed_with_the_result_of_an_undisturbed_one(
    make: MakeImages, out: Path, tmp_path: Path, broken: str
) -> None:
    make(tmp_path / "undisturbed")
    make()
    table = out / "table.csv"
    lines = table.read_text().splitlines(keepends=True)
    if broken == "half a row":
        table.write_text("".join(lines)[:-10])
        (out / "dent" / ".00003.png.123.part").write_bytes(b"half")
    elif broken == "an image without its row":
        table.write_text("".join(lines[:-1]))
        (out / "masks" / "dent" / "00003.png").unlink()
    else:
        (out / ("" if broken == "no image" else "masks") / "dent" / "00003.png").unlink()
    make()
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_one_category_or_several_at_once(make: MakeImages, out: Path, fake: FakeSynthesizer) -> None:
    make(num=2, category="dent")
    assert {row.category for row in read_table(out).itertuples()} == {"dent"}
    assert fake.controls[0].flatten().tolist() == [0, 1]
    make(out.with_name("both"), num=1, category="crack+dent")
    assert fake.controls[-1].flatten().tolist() == [1, 1]
    data = DefectFolder(out.with_name("both"), num_workers=0)
    data.setup()
    assert "crack+dent" in set(data.test_data.samples.defect_type)


def test_a_region_is_the_control_map_of_the_category(make: MakeImages, tmp_path: Path, fake: FakeSynthesizer) -> None:
    region = np.zeros(fake.image_size, np.uint8)
    region[:16, :24] = 200
    Image.fromarray(region).save(tmp_path / "region.png")
    make(num=1, category="dent", region=tmp_path / "region.png")
    control = fake.controls[0]
    assert control.shape == (1, 2, *fake.image_size)
    assert not control[0, 0].any()
    torch.testing.assert_close(control[0, 1], torch.from_numpy(region > 0).float())


def test_an_image_without_a_defect_is_drawn_again(make: MakeImages, fake: FakeSynthesizer) -> None:
    fake.blind = 0.5
    rows = make(num=8)
    assert all(row["image"] for row in rows)
    assert len(fake.controls) > 8


def test_a_model_that_makes_no_defects_is_refused(make: MakeImages, fake: FakeSynthesizer, out: Path) -> None:
    fake.blind = 1
    with pytest.raises(InvalidInputError, match=r"makes no usable defects: its maps have a mean of 0, .*train longer"):
        make(num=50)
    assert len(fake.controls) == 100  # ten images, each tried ten times
    with pytest.raises(InvalidInputError, match="has no image with a defect"):
        read_table(out)


def test_categories_as_trained_are_as_frequent_as_in_the_training_set(
    make: MakeImages, fake: FakeSynthesizer, out: Path
) -> None:
    fake.label_sets = {"crack": 1, "crack+dent": 3}
    rows = make(category="as-trained", num=60)
    both = sum(row["category"] == "crack+dent" for row in rows)
    assert 36 <= both <= 54  # 45 expected, within three standard deviations
    assert {row["category"] for row in rows} == {"crack", "crack+dent"}
    # An image depends only on the seed and its number.
    assert [row["category"] for row in make(out.parent / "fewer", category="as-trained", num=5)] == [
        row["category"] for row in rows[:5]
    ]


def test_all_images_are_kept_if_requested_and_those_without_a_usable_defect_have_no_mask(
    make: MakeImages, fake: FakeSynthesizer, out: Path
) -> None:
    fake.blind = 0.5
    rows = make(num=12, keep_all=True)
    assert all((out / row["image"]).is_file() for row in rows)
    without = [row for row in rows if not row["mask"]]
    assert 0 < len(without) < 12
    assert all(row["defect_share"] == 0 for row in without)
    assert make(num=12, keep_all=True) == rows  # complete, so nothing is made again
    dataset = synthetic_defects(out)
    assert len(dataset) == 12
    paths = dict(zip(dataset.samples.image_path, dataset.samples.mask_path, strict=True))
    assert {Path(path).name for path, mask in paths.items() if not mask} == {Path(row["image"]).name for row in without}
    data = DefectFolder(out, num_workers=0)
    data.setup()
    assert sum(data.test_data.samples.label_index) == 12


def test_a_defect_that_covers_too_much_is_kept_without_a_mask(
    make: MakeImages, fake: FakeSynthesizer, out: Path
) -> None:
    fake.floor = 0.8
    rows = make(num=2, keep_all=True)
    assert [row["mask"] for row in rows] == ["", ""]
    assert all((out / row["image"]).is_file() for row in rows)
