"""DAGM 2007: the official split, the split of Table 1 of the ISU-GAN paper, and errors for unusable files."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from datamodules import error_line, set_up
from dataset_layouts import write_dagm2007, write_mask

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data.datasets.dagm2007 import Dagm2007
from anomalib_defect_plugins.testing import DataModuleContract

# Normal and defective images. Test images as in Table 1 of the ISU-GAN paper. Its row "Other" counts all training
# images (575, 575, 1150); the defective ones among them are the rest of the 150 (300 in class 7) on the authors' page.
PUBLISHED = {
    1: {"Train": (496, 79), "Test": (504, 71)},
    6: {"Train": (492, 83), "Test": (508, 67)},
    7: {"Train": (1000, 150), "Test": (1000, 150)},
}
ISU_GAN = {1: (400, 79), 6: (100, 50), 7: (100, 50)}
"""The row "Ours" of Table 1, with the 79 defective images that class 1 has where the table says 80."""


class TestContract(DataModuleContract):
    def config(self, root: Path) -> dict[str, Any]:
        if not any(root.iterdir()):
            write_dagm2007(root, 6, PUBLISHED[6])
        arguments = {"root": str(root), "category": 6, "split": "isu-gan", "num_workers": 0}
        return {"class_path": "anomalib_defect_plugins.data.datasets.dagm2007.Dagm2007", "init_args": arguments}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dagm2007") / "set"
    root.mkdir()
    for category, counts in PUBLISHED.items():
        write_dagm2007(root, category, counts)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A copy of class 1 to remove files from; they are hard links, so never write to an existing one."""
    folder = tmp_path / "set"
    shutil.copytree(pristine / "Class1", folder / "Class1", copy_function=os.link)
    return folder


def load(root: Path, **arguments: Any) -> Dagm2007:
    return set_up(Dagm2007(root, num_workers=0, **arguments))


def counts(datamodule: Dagm2007) -> dict[str, tuple[int, int]]:
    train, defects, test = datamodule.train_data, datamodule.train_defects, datamodule.test_data
    assert (set(train.samples.label_index), set(defects.samples.label_index)) == ({0}, {1})
    normal = int((test.samples.label_index == 0).sum())
    return {"Train": (len(train), len(defects)), "Test": (normal, len(test) - normal)}


@pytest.mark.parametrize("category", PUBLISHED)
def test_the_official_split_has_the_published_counts(pristine: Path, category: int) -> None:
    assert counts(load(pristine, category=category)) == PUBLISHED[category]


@pytest.mark.parametrize("category", PUBLISHED)
def test_the_small_split_has_the_counts_of_table_1(pristine: Path, category: int) -> None:
    datamodule = load(pristine, category=category, split="isu-gan")
    assert counts(datamodule) == {"Train": ISU_GAN[category], "Test": PUBLISHED[category]["Test"]}


def test_the_small_split_is_a_subset_of_the_official_training_images_for_any_seed(pristine: Path) -> None:
    official = load(pristine, category=6)
    drawn = [load(pristine, category=6, split="isu-gan", seed=seed) for seed in (0, 1)]
    for name in ("train_data", "train_defects"):
        paths = [set(getattr(datamodule, name).samples.image_path) for datamodule in (official, *drawn)]
        assert paths[1] < paths[0]
        assert paths[1] == paths[2]


def test_a_smaller_number_than_in_the_table_is_logged(pristine: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(pristine, category=6, split="isu-gan")
        assert not caplog.text
        load(pristine, category=1, split="isu-gan")
    assert "Table 1 of ISU-GAN has 80 defective training images, the data 79" in caplog.text


def test_an_image_with_a_label_is_defective_and_the_label_is_its_mask(pristine: Path) -> None:
    datamodule = load(pristine)
    item = datamodule.train_defects[0]
    assert (Path(item.image_path).name, Path(item.mask_path).name) == ("0001.PNG", "0001_label.PNG")
    assert item.gt_mask.sum() == 6  # marked by write_mask
    assert item.defect_type == "defect"


def test_the_class_is_the_category_of_the_results(pristine: Path) -> None:
    assert load(pristine, category=7).category == "7"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": 11}, "category is 11; it must be one of 1 to 10"),
        ({"split": "random"}, "split is 'random'; it must be one of official, isu-gan"),
        ({"category": 2, "split": "isu-gan"}, "split isu-gan has no class 2; choose category 1, 6 or 7"),
    ],
)
def test_an_invalid_argument_is_an_error(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Dagm2007(tmp_path, **arguments)


def test_the_message_for_a_missing_root_names_the_source_and_the_layout(tmp_path: Path) -> None:
    message = error_line(lambda: load(tmp_path / "root"), MissingDataError, tmp_path)
    assert "Class1/Train is missing or has no images; download DAGM 2007 from https://hci.iwr." in message
    assert "Train/Label/NNNN_label.PNG" in message


@pytest.mark.parametrize("folder", ["Train/Label", "Test", "Test/Label"])
def test_a_missing_folder_is_named(root: Path, folder: str) -> None:
    shutil.rmtree(root / "Class1" / folder)
    with pytest.raises(MissingDataError, match=f"Class1/{folder} is missing or has no images"):
        load(root)


def test_a_label_without_its_image_is_named_with_it(root: Path) -> None:
    (root / "Class1" / "Train" / "0007.PNG").unlink()
    with pytest.raises(MissingDataError, match=r"Train/0007\.PNG is missing; label .*0007_label\.PNG needs it"):
        load(root)


def test_a_missing_image_and_a_missing_label_are_noticed(root: Path) -> None:
    image = root / "Class1" / "Train" / "0500.PNG"
    image.rename(root / "image")
    with pytest.raises(MissingDataError, match="Class1/Train has 574 images, not 575"):
        load(root)
    (root / "image").rename(image)
    (root / "Class1" / "Test" / "Label" / "0001_label.PNG").unlink()
    with pytest.raises(MissingDataError, match=r"Class1/\*/Label has 149 labels, not 150"):
        load(root)


def test_an_empty_label_is_named(root: Path) -> None:
    label = root / "Class1" / "Train" / "Label" / "0001_label.PNG"
    label.unlink()
    write_mask(label.with_suffix(".png"), value=0).rename(label)
    with pytest.raises(InvalidInputError, match=r"0001_label\.PNG marks nothing"):
        load(root).train_defects[0]


def test_a_truncated_image_is_named(root: Path) -> None:
    image = root / "Class1" / "Train" / "0001.PNG"
    content = image.read_bytes()
    image.unlink()
    image.write_bytes(content[:60])
    with pytest.raises(InvalidInputError, match=r"cannot read image .*0001\.PNG"):
        load(root).train_defects[0]
