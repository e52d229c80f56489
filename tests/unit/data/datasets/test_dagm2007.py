"""DAGM 2007: the official split, the split of ISU-GAN's Table 1, and what is said of bad files."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from layouts import write_dagm2007, write_mask

from anomalib_defect_plugins.data.datasets.dagm2007 import Dagm2007
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.testing import DataModuleContract

# Normal and defective images. Tests as in Table 1 of ISU-GAN's paper; of all training images, which its row "Other"
# counts (575, 575, 1150), those are defective that the 150 (300 in class 7) of the authors' page leave.
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
def pristine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dagm2007") / "set"
    root.mkdir()
    for category, counts in PUBLISHED.items():
        write_dagm2007(root, category, counts)
    return root


@pytest.fixture
def root(pristine, tmp_path) -> Path:
    """A copy of class 1 to take files out of, or to put others in."""
    folder = tmp_path / "set"
    shutil.copytree(pristine / "Class1", folder / "Class1", copy_function=os.link)
    return folder


def made(root: Path, **arguments: Any) -> Dagm2007:
    datamodule = Dagm2007(root, num_workers=0, **arguments)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def counts(datamodule: Dagm2007) -> dict[str, tuple[int, int]]:
    train, defects, test = datamodule.train_data, datamodule.train_defects, datamodule.test_data
    assert (set(train.samples.label_index), set(defects.samples.label_index)) == ({0}, {1})
    normal = int((test.samples.label_index == 0).sum())
    return {"Train": (len(train), len(defects)), "Test": (normal, len(test) - normal)}


@pytest.mark.parametrize("category", PUBLISHED)
def test_the_official_split_has_the_published_counts(pristine, category):
    assert counts(made(pristine, category=category)) == PUBLISHED[category]


@pytest.mark.parametrize("category", PUBLISHED)
def test_the_small_split_has_the_counts_of_table_1(pristine, category):
    datamodule = made(pristine, category=category, split="isu-gan")
    assert counts(datamodule) == {"Train": ISU_GAN[category], "Test": PUBLISHED[category]["Test"]}


def test_the_small_split_is_of_the_official_training_images_whatever_the_seed(pristine):
    official = made(pristine, category=6)
    drawn = [made(pristine, category=6, split="isu-gan", seed=seed) for seed in (0, 1)]
    for name in ("train_data", "train_defects"):
        paths = [set(getattr(datamodule, name).samples.image_path) for datamodule in (official, *drawn)]
        assert paths[1] < paths[0]
        assert paths[1] == paths[2]


def test_a_defect_fewer_than_the_table_says_is_told(pristine, caplog):
    with caplog.at_level(logging.WARNING):
        made(pristine, category=6, split="isu-gan")
        assert not caplog.text
        made(pristine, category=1, split="isu-gan")
    assert "ISU-GAN's Table 1 has 80 defective images to train, the data 79" in caplog.text


def test_an_image_is_defective_if_it_has_a_label_which_is_its_mask(pristine):
    datamodule = made(pristine)
    item = datamodule.train_defects[0]
    assert (Path(item.image_path).name, Path(item.mask_path).name) == ("0001.PNG", "0001_label.PNG")
    assert item.gt_mask.sum() == 6  # what the writer marks
    assert item.defect_type == "defect"


def test_the_class_is_the_category_of_the_results(pristine):
    assert made(pristine, category=7).category == "7"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": 11}, "has no category 11; choose one of 1 to 10"),
        ({"split": "random"}, "has no split 'random'; choose official or isu-gan"),
        ({"category": 2, "split": "isu-gan"}, "no split of class 2; choose category 1, 6 or 7, or split official"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(tmp_path, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        Dagm2007(tmp_path, **arguments)


def test_a_missing_root_says_what_to_fetch_from_where_and_the_layout(tmp_path):
    with pytest.raises(MissingDataError) as error:
        made(tmp_path / "root")
    message = str(error.value)
    assert "\n" not in message
    assert "Class1/Train is missing or holds no image; fetch DAGM 2007 from https://hci.iwr." in message
    assert "Train/Label/NNNN_label.PNG" in message


@pytest.mark.parametrize("folder", ["Train/Label", "Test", "Test/Label"])
def test_a_missing_folder_is_named(root, folder):
    shutil.rmtree(root / "Class1" / folder)
    with pytest.raises(MissingDataError, match=f"Class1/{folder} is missing or holds no image"):
        made(root)


def test_a_label_without_its_image_is_named_with_it(root):
    (root / "Class1" / "Train" / "0007.PNG").unlink()
    with pytest.raises(MissingDataError, match=r"Train/0007\.PNG is missing; label .*0007_label\.PNG needs it"):
        made(root)


def test_a_lost_image_and_a_lost_label_are_missed(root):
    image = root / "Class1" / "Train" / "0500.PNG"
    image.rename(root / "image")
    with pytest.raises(MissingDataError, match="Class1/Train holds 574 images, not 575"):
        made(root)
    (root / "image").rename(image)
    (root / "Class1" / "Test" / "Label" / "0001_label.PNG").unlink()
    with pytest.raises(MissingDataError, match=r"Class1/\*/Label holds 149 labels, not 150"):
        made(root)


def test_a_label_that_marks_nothing_is_named(root):
    label = root / "Class1" / "Train" / "Label" / "0001_label.PNG"
    label.unlink()
    write_mask(label.with_suffix(".png"), value=0).rename(label)
    with pytest.raises(InvalidInputError, match=r"0001_label\.PNG marks nothing"):
        made(root).train_defects[0]


def test_a_cut_image_is_named(root):
    image = root / "Class1" / "Train" / "0001.PNG"
    content = image.read_bytes()
    image.unlink()
    image.write_bytes(content[:60])
    with pytest.raises(InvalidInputError, match=r"cannot read image .*0001\.PNG"):
        made(root).train_defects[0]
