"""Summary and contact sheet of generated data with known numbers."""

from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import Resize
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import CheckedDataset, summary
from anomalib_defect_plugins.data.contact_sheet import OUTLINE, PAGE, Thumbnail, contact_sheet, save_sheet
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, make_table
from anomalib_defect_plugins.data.summary import list_images, remarks, select_shown, summarize_datamodule
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data


class CountingDataset(CheckedDataset):
    """Counts how often each file is read."""

    reads: ClassVar[Counter[str]] = Counter()

    def load_image(self, path: str) -> ImageTensor:
        self.reads[path] += 1
        return super().load_image(path)

    def load_mask(self, path: str) -> Mask:
        self.reads[path] += 1
        return super().load_mask(path)


class Plates(DefectDataModule):
    """Images of 10x10 pixels: 4 good ones train; 2 good ones, dents of 1, 2 and 30 pixels and an empty mask test.

    The test images are the validation images too. A dent of 4 pixels is an unused image of the training split.
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
def plates(tmp_path: Path) -> Plates:
    datamodule = Plates(tmp_path / "plates")
    datamodule.setup()
    return datamodule


def test_images_are_counted_by_type_and_split_and_once_in_total(plates: Plates) -> None:
    result = summarize_datamodule(plates)
    counts = [
        [row[name] for name in ("defect_type", "train", "train_defects", "val", "test", "images")]
        for row in result["types"]
    ]
    assert counts == [
        ["good", 4, 0, 2, 2, 6],
        ["dent", 0, 1, 2, 2, 3],
        ["dent+rust", 0, 0, 1, 1, 1],
        ["rust", 0, 0, 1, 1, 1],
    ]
    assert [result["total"][name] for name in ("train", "train_defects", "val", "test", "images")] == [4, 1, 6, 6, 11]


def test_images_in_several_splits_are_reported_once(plates: Plates) -> None:
    result = summarize_datamodule(plates)
    assert result["shared"] == [{"splits": ["val", "test"], "images": 6}]
    assert [line for line in remarks(result) if "shared" in line] == ["6 images are shared by val and test"]


def test_the_share_of_defect_pixels_is_the_median_over_masks_of_defective_images(plates: Plates) -> None:
    result = summarize_datamodule(plates)
    shares = {row["defect_type"]: row["defect_share"] for row in result["types"]}
    # Dents of 1, 2 and 4 of 100 pixels; all defects are 0, 1, 2, 4 and 30 of 100.
    assert shares == {"good": None, "dent": pytest.approx(0.02), "dent+rust": pytest.approx(0.3), "rust": 0}
    assert result["total"]["defect_share"] == pytest.approx(0.02)


def test_an_empty_mask_of_a_defective_image_is_named(plates: Plates) -> None:
    result = summarize_datamodule(plates)
    path = str(plates.root / "test5.png")
    assert result["empty_masks"] == [path]
    assert f"1 image is labelled defective with an empty mask, such as {path}" in remarks(result)


def test_every_file_is_read_once(plates: Plates, tmp_path: Path) -> None:
    CountingDataset.reads.clear()
    summarize_datamodule(plates, tmp_path / "sheet.png")
    assert set(CountingDataset.reads.values()) == {1}
    assert len(CountingDataset.reads) == 11 + 5


def test_sizes_are_those_of_the_files_with_any_augmentations(tmp_path: Path) -> None:
    datamodule = Plates(tmp_path, augmentations=Resize((32, 32)))
    datamodule.setup()
    assert summarize_datamodule(datamodule)["sizes"] == [{"width": 10, "height": 10, "images": 11}]


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        ([(10, 20, 3), (30, 20, 1)], "image sizes: 10x20 (3), 30x20 (1)"),
        ([(10 + n, 20, 1) for n in range(9)], "image sizes: 9 different ones, 10 to 18 pixels wide and 20 high"),
    ],
)
def test_more_than_eight_sizes_are_listed_as_a_range(sizes: list[tuple[int, int, int]], line: str) -> None:
    listed = [{"width": width, "height": height, "images": images} for width, height, images in sizes]
    total = {"images": 9, "defect_share": None}
    result = {"shared": [], "sizes": listed, "objects": None, "mm_per_pixel": None, "total": total, "empty_masks": []}
    assert list(remarks(result)) == [line]


def test_objects_are_counted_if_the_table_has_them(plates: Plates) -> None:
    assert summarize_datamodule(plates)["objects"] is None
    for dataset, objects in ((plates.train_data, ["a", "a", "b", "b"]), (plates.test_data, ["c", "d"] * 3)):
        dataset.samples = dataset.samples.assign(group=objects)
    assert summarize_datamodule(plates)["objects"] == 4


def test_physical_sizes_are_named_if_the_table_has_them(plates: Plates) -> None:
    for dataset in (plates.train_data, plates.test_data):
        dataset.samples = dataset.samples.assign(mm_per_pixel=0.05)
    result = summarize_datamodule(plates)
    assert result["mm_per_pixel"] == [0.05]
    result["sizes"] = [{"width": 100, "height": 60, "images": 1}, {"width": 200, "height": 80, "images": 1}]
    assert "size of a pixel: 0.05 mm, of an image: 5x3 mm to 10x4 mm" in remarks(result)


def test_data_modules_of_anomalib_are_summarized_by_label(tmp_path: Path) -> None:
    write_folder_data(tmp_path, normal=5, normal_test=2, defective=3)
    datamodule = folder_datamodule(tmp_path)
    datamodule.setup()
    result = summarize_datamodule(datamodule, tmp_path / "sheet.png")
    assert [(row["defect_type"], row["train"], row["test"]) for row in result["types"]] == [
        ("good", 5, 2),
        ("abnormal", 0, 3),
    ]
    assert 0 < result["total"]["defect_share"] < 1


def test_damaged_files_are_named_for_any_data_module(tmp_path: Path) -> None:
    write_folder_data(tmp_path)
    datamodule = folder_datamodule(tmp_path)
    datamodule.setup()
    for name in ("002", "003"):
        (tmp_path / "normal" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match=r"2 faults in .*image .*normal/002\.png.*normal/003\.png"):
        summarize_datamodule(datamodule)


def test_a_data_module_without_images_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="has no images"):
        list_images({})


def test_types_are_shown_in_full_in_the_table(plates: Plates) -> None:
    table = summary.summary_table(summarize_datamodule(plates))
    assert [str(cell) for cell in table.columns[0].cells] == ["good", "dent", "dent+rust", "rust"]
    assert [column.header for column in table.columns[1:]] == [
        "train", "train_defects", "val", "test", "images", "defect pixels",
    ]  # fmt: skip


def test_selected_images_are_evenly_spaced_in_each_type_and_split(plates: Plates) -> None:
    images = list_images({"train": plates.train_data, "val": plates.val_data, "test": plates.test_data})
    shown = select_shown(images, 2)
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
def test_the_contact_sheet_fits_the_page_for_images_of_any_size(size: tuple[int, int], count: int) -> None:
    sheet = contact_sheet([(f"type {number}\ntest: 3", [thumbnail(*size)] * 3) for number in range(count)])
    assert sheet.width <= PAGE[0]
    assert sheet.height <= PAGE[1]


def test_a_defect_of_one_pixel_is_outlined_on_a_large_image() -> None:
    sheet = contact_sheet([("hole\ntest: 1", [thumbnail(1600, 400, (slice(200, 201), slice(800, 801)))])])
    rows, columns = np.nonzero(outlined(sheet))
    # 1600x400 is drawn at 320x80; the outline of one pixel is five pixels wide.
    assert np.ptp(rows) == np.ptp(columns) == 4


def test_a_defect_that_fills_the_image_is_outlined_along_its_border() -> None:
    sheet = contact_sheet([("stain\ntest: 1", [thumbnail(160, 160, (slice(None), slice(None)))])])
    ring = outlined(sheet)
    assert ring.sum() == 4 * 159
    assert np.ptp(np.nonzero(ring)[0]) == np.ptp(np.nonzero(ring)[1]) == 159


def test_images_without_a_mask_have_no_outline() -> None:
    assert not outlined(contact_sheet([("crack\ntest: 1", [thumbnail(40, 40)])])).any()


def test_small_images_are_enlarged_without_blur() -> None:
    values = np.zeros((8, 8, 3), np.uint8)
    values[::2] = 200
    sheet = contact_sheet([("good\ntrain: 1", [Thumbnail(Image.fromarray(values), None)])])
    picture = np.asarray(sheet)[8:168, 188:348, 0]
    assert picture.shape == (160, 160)
    assert set(np.unique(picture)) == {0, 200}


def test_a_long_label_is_wrapped() -> None:
    label = "crack+efflorescence+exposed_bars+spallation+corrosion_stain\ntest: 3"
    pictures = [thumbnail(400, 56)]
    short, long = (contact_sheet([(text, pictures)]) for text in ("crack\ntest: 3", label))
    assert long.height > short.height
    assert long.width == short.width


def test_a_failed_write_keeps_the_previous_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sheet.png"
    save_sheet(Image.new("RGB", (4, 4)), path)
    before = path.read_bytes()

    def fail(_image: Image.Image, file: Path, *_: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(InvalidInputError, match=r"sheet\.png \(No space left on device\)"):
        save_sheet(Image.new("RGB", (5, 5)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
