"""What is said of a data module, and its contact sheet. The data are written here, so all figures are known."""

from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import Resize

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import CheckedDataset, summary
from anomalib_defect_plugins.data.contact_sheet import OUTLINE, PAGE, Thumbnail, contact_sheet, save_sheet
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, make_table
from anomalib_defect_plugins.data.summary import choose_shown, list_images, look_at, remarks
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data


class CountingDataset(CheckedDataset):
    """Counts how often each file is read."""

    reads: ClassVar[Counter] = Counter()

    def load_image(self, path):
        self.reads[path] += 1
        return super().load_image(path)

    def load_mask(self, path):
        self.reads[path] += 1
        return super().load_mask(path)


class Plates(DefectDataModule):
    """Images of 10x10 pixels: 4 good ones train; 2 good ones, dents of 1, 2 and 30 pixels and an empty mask test.

    The test images are for validation too. Another dent, of 4 pixels, is a spare one of the training split.
    """

    def _setup(self, stage: str | None = None) -> None:
        self.train_data, self.test_data, self.train_defects = (CountingDataset() for _ in range(3))
        good = [("good", 0)]
        self.train_data.samples = make_table(self.images("train", good * 4))
        dents = [("dent", 1), ("dent", 2), ("dent+rust", 30), ("rust", 0)]
        self.test_data.samples = make_table(self.images("test", good * 2 + dents))
        self.train_defects.samples = make_table(self.images("spare", [("dent", 4)]))

    def images(self, split: str, kinds: list[tuple[str, int]]) -> list[Sample]:
        return [
            Sample(self.file(f"{split}{number}", 90), split, kind, self.file(f"{split}{number}-mask", 255, pixels))
            if kind != "good"
            else Sample(self.file(f"{split}{number}", 90), split, group="")
            for number, (kind, pixels) in enumerate(kinds)
        ]

    def file(self, name: str, value: int, pixels: int = 100) -> str:
        values = np.zeros(100, np.uint8)
        values[:pixels] = value
        self.root.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.reshape(10, 10)).save(self.root / f"{name}.png")
        return str(self.root / f"{name}.png")


@pytest.fixture
def plates(tmp_path) -> Plates:
    datamodule = Plates(tmp_path / "plates")
    datamodule.setup()
    return datamodule


def test_images_are_counted_by_type_and_split_and_once_in_all(plates):
    found = look_at(plates)
    counts = [
        [row[name] for name in ("defect_type", "train", "train_defects", "val", "test", "images")]
        for row in found["types"]
    ]
    assert counts == [
        ["good", 4, 0, 2, 2, 6],
        ["dent", 0, 1, 2, 2, 3],
        ["dent+rust", 0, 0, 1, 1, 1],
        ["rust", 0, 0, 1, 1, 1],
    ]
    assert [found["total"][name] for name in ("train", "train_defects", "val", "test", "images")] == [4, 1, 6, 6, 11]


def test_images_in_several_splits_are_said_once(plates):
    found = look_at(plates)
    assert found["shared"] == [{"splits": ["val", "test"], "images": 6}]
    assert [line for line in remarks(found) if "alike" in line] == ["6 images are in val and test alike"]


def test_share_of_defect_pixels_is_the_median_over_masks_of_defective_images(plates):
    found = look_at(plates)
    shares = {row["defect_type"]: row["defect_share"] for row in found["types"]}
    # Dents of 1, 2 and 4 of 100 pixels; all defects are 0, 1, 2, 4 and 30 of 100.
    assert shares == {"good": None, "dent": pytest.approx(0.02), "dent+rust": pytest.approx(0.3), "rust": 0}
    assert found["total"]["defect_share"] == pytest.approx(0.02)


def test_an_empty_mask_of_a_defective_image_is_named(plates):
    found = look_at(plates)
    path = str(plates.root / "test5.png")
    assert found["empty_masks"] == [path]
    assert f"1 image is labelled defective with an empty mask, such as {path}" in remarks(found)


def test_every_file_is_read_once(plates, tmp_path):
    CountingDataset.reads.clear()
    look_at(plates, tmp_path / "sheet.png")
    assert set(CountingDataset.reads.values()) == {1}
    assert len(CountingDataset.reads) == 11 + 5


def test_sizes_are_those_of_the_files_whatever_the_augmentations(tmp_path):
    datamodule = Plates(tmp_path, augmentations=Resize((32, 32)))
    datamodule.setup()
    assert look_at(datamodule)["sizes"] == [{"width": 10, "height": 10, "images": 11}]


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        ([(10, 20, 3), (30, 20, 1)], "image sizes: 10x20 (3), 30x20 (1)"),
        ([(10 + n, 20, 1) for n in range(9)], "image sizes: 9 different ones, 10 to 18 pixels wide and 20 high"),
    ],
)
def test_more_than_eight_sizes_are_given_as_a_range(sizes, line):
    listed = [{"width": width, "height": height, "images": images} for width, height, images in sizes]
    total = {"images": 9, "defect_share": None}
    found = {"shared": [], "sizes": listed, "objects": None, "total": total, "empty_masks": []}
    assert list(remarks(found)) == [line]


def test_objects_are_counted_where_the_table_knows_them(plates):
    assert look_at(plates)["objects"] is None
    for dataset, objects in ((plates.train_data, ["a", "a", "b", "b"]), (plates.test_data, ["c", "d"] * 3)):
        dataset.samples = dataset.samples.assign(group=objects)
    assert look_at(plates)["objects"] == 4


def test_data_modules_of_anomalib_are_summed_up_by_their_labels(tmp_path):
    write_folder_data(tmp_path, normal=5, normal_test=2, defective=3)
    datamodule = folder_datamodule(tmp_path)
    datamodule.setup()
    found = look_at(datamodule, tmp_path / "sheet.png")
    assert [(row["defect_type"], row["train"], row["test"]) for row in found["types"]] == [
        ("good", 5, 2),
        ("abnormal", 0, 3),
    ]
    assert 0 < found["total"]["defect_share"] < 1


def test_a_broken_file_is_named_for_any_data_module(tmp_path):
    write_folder_data(tmp_path)
    datamodule = folder_datamodule(tmp_path)
    datamodule.setup()
    (tmp_path / "normal" / "003.png").write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match=r"cannot read image .*normal/003\.png or its mask"):
        look_at(datamodule)


def test_a_data_module_without_images_is_refused():
    with pytest.raises(InvalidInputError, match="has no images"):
        list_images({})


def test_types_are_shown_in_full_in_the_table(plates):
    table = summary.make_table(look_at(plates))
    assert [str(cell) for cell in table.columns[0].cells] == ["good", "dent", "dent+rust", "rust"]
    assert [column.header for column in table.columns[1:]] == [
        "train", "train_defects", "val", "test", "images", "defect pixels",
    ]  # fmt: skip


def test_shown_images_are_spread_over_each_type_and_split(plates):
    images = list_images({"train": plates.train_data, "val": plates.val_data, "test": plates.test_data})
    shown = choose_shown(images, 2)
    assert list(shown) == [
        ("good", ("train",)),
        ("good", ("val", "test")),
        ("dent", ("val", "test")),
        ("dent+rust", ("val", "test")),
        ("rust", ("val", "test")),
    ]
    assert [images.image_path[row] for row in shown["good", ("train",)]] == [
        str(plates.root / f"train{number}.png") for number in (0, 3)
    ]


def thumbnail(width: int, height: int, defect: tuple[slice, slice] | None = None) -> Thumbnail:
    mask = np.zeros((height, width), np.uint8)
    if defect:
        mask[defect] = 255
    return Thumbnail(Image.new("RGB", (width, height), (90, 90, 90)), Image.fromarray(mask) if defect else None)


def outlined(sheet: Image.Image) -> np.ndarray:
    return (np.asarray(sheet) == OUTLINE).all(2)


@pytest.mark.parametrize("size", [(8, 8), (480, 320), (1600, 20), (12, 400), (105, 400)])
@pytest.mark.parametrize("count", [1, 7, 60, 120])
def test_contact_sheet_keeps_to_its_page_whatever_the_images(size, count):
    sheet = contact_sheet([(f"type {number}\ntest: 3", [thumbnail(*size)] * 3) for number in range(count)])
    assert sheet.width <= PAGE[0]
    assert sheet.height <= PAGE[1]


def test_a_defect_of_one_pixel_is_outlined_on_a_large_image():
    sheet = contact_sheet([("hole\ntest: 1", [thumbnail(1600, 400, (slice(200, 201), slice(800, 801)))])])
    rows, columns = np.nonzero(outlined(sheet))
    # 1600x400 is drawn at 320x80, and the ring around one pixel of that is five pixels wide.
    assert np.ptp(rows) == np.ptp(columns) == 4


def test_a_defect_that_fills_the_image_is_outlined_along_its_border():
    sheet = contact_sheet([("stain\ntest: 1", [thumbnail(160, 160, (slice(None), slice(None)))])])
    ring = outlined(sheet)
    assert ring.sum() == 4 * 159
    assert np.ptp(np.nonzero(ring)[0]) == np.ptp(np.nonzero(ring)[1]) == 159


def test_images_without_a_mask_are_shown_as_they_are():
    assert not outlined(contact_sheet([("crack\ntest: 1", [thumbnail(40, 40)])])).any()


def test_small_images_are_enlarged_without_blur():
    values = np.zeros((8, 8, 3), np.uint8)
    values[::2] = 200
    sheet = contact_sheet([("good\ntrain: 1", [Thumbnail(Image.fromarray(values), None)])])
    picture = np.asarray(sheet)[8:168, 188:348, 0]
    assert picture.shape == (160, 160)
    assert set(np.unique(picture)) == {0, 200}


def test_a_long_label_is_wrapped_and_not_cut():
    label = "crack+efflorescence+exposed_bars+spallation+corrosion_stain\ntest: 3"
    pictures = [thumbnail(400, 56)]
    short, long = (contact_sheet([(text, pictures)]) for text in ("crack\ntest: 3", label))
    assert long.height > short.height
    assert long.width == short.width


def test_a_sheet_that_cannot_be_written_leaves_the_former_one(tmp_path, monkeypatch):
    path = tmp_path / "sheet.png"
    save_sheet(Image.new("RGB", (4, 4)), path)
    before = path.read_bytes()

    def fail(self, file, *_):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(InvalidInputError, match=r"sheet\.png \(No space left on device\)"):
        save_sheet(Image.new("RGB", (5, 5)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
