"""A split file is read as it was meant, or what it names and is not used is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datamodules import error_line, set_up
from dataset_layouts import write_dents

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import DefectFolder, WithDefects
from anomalib_defect_plugins.data.split_file import count_trained, read_split, write_split

LINES = (
    "split,image,label,defect_type",
    "train,good/0.png,0,good",
    "train,dent/5.png,1,dent",
    "test,good/1.png,0,good",
    "test,dent/6.png,1,dent",
)

SPLIT = {"train": {"/data/good/0.png", "/data/dent/5.png"}, "test": {"/data/good/1.png", "/data/dent/6.png"}}

SAMPLES = pd.DataFrame(
    [("/data/good/0.png", 0, "good"), ("/data/good/1.png", 0, "good"), ("/data/good/2.png", 0, "good"),
     ("/data/dent/5.png", 1, "dent"), ("/data/dent/6.png", 1, "dent")],
    columns=["image_path", "label_index", "defect_type"],
)  # fmt: skip


def read(path: Path, text: str, encoding: str = "utf-8") -> dict[str, set[str]]:
    path.write_bytes(text.encode(encoding))
    return read_split(path, SAMPLES.image_path, SAMPLES)


FORMS: dict[str, str] = {
    "byte order mark": "\ufeff" + "\n".join(LINES),
    "CRLF": "\r\n".join(LINES) + "\r\n",
    "blank lines": "\n" + "\n\n".join(LINES) + "\n\n  \n,,,\n",
    "separators of Windows": "\n".join(LINES).replace("/", "\\"),
    "blanks": "\n".join(LINES[:1]) + "\n" + "\n".join(LINES[1:]).replace(",", " , "),
    "other columns": "\n".join(f"{line},x" for line in LINES),
    "paths of a larger data set": "\n".join(LINES).replace("good/", "plates/data/good/").replace("plates/", ""),
    "without labels": "\n".join(line if number == 0 else ",".join([*line.split(",")[:2], "", ""])
                                for number, line in enumerate(LINES)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_is_read(tmp_path, form):
    assert read(tmp_path / "split.csv", FORMS[form]) == SPLIT


def test_a_file_of_a_common_folder_further_down_is_read(tmp_path):
    """As of a run on normal images only, whose common folder is that of the normal images."""
    assert read(tmp_path / "split.csv", "\n".join(LINES[:2]).replace("good/0", "0")) == {"train": {"/data/good/0.png"}}


WRONG: dict[str, tuple[str, str]] = {
    "an unknown split": ("valid,good/2.png,0,good", "has the split 'valid'; use train, val, test"),
    "an image in two splits": ("test,good/0.png,0,good", "has good/0.png in train and test; remove it from one"),
    "validation in test": ("val,good/1.png,0,good", "has good/1.png in val and test; remove it from one of them"),
    "another label": ("train,good/2.png,1,good", "has the label '1' for good/2.png, and the data has '0'"),
    "another type": ("train,good/2.png,0,dent", "has the defect_type 'dent' for good/2.png, and the data has 'good'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_used_as_it_says_is_named(tmp_path, case):
    line, message = WRONG[case]
    text = "\n".join([*LINES, line])
    found = error_line(lambda: read(tmp_path / "split.csv", text), InvalidInputError, tmp_path)
    assert found.startswith("split file ROOT/split.csv ")
    assert message in found


@pytest.mark.parametrize("name", ["good/9.png", "0.jpg", "data", "/other/good/0.png", "../good/0.png"])
def test_an_image_that_the_data_does_not_have_is_named(tmp_path, name):
    text = "\n".join([*LINES, f"train,{name},0,good"])
    message = error_line(lambda: read(tmp_path / "split.csv", text), MissingDataError, tmp_path)
    assert message == f"split file ROOT/split.csv names {name}, which the data does not have; use the data of its run"


@pytest.mark.parametrize("text", [LINES[0], "\n".join([LINES[0], *LINES[3:]])])
def test_a_file_without_training_images_is_named(tmp_path, text):
    message = error_line(lambda: read(tmp_path / "split.csv", text), InvalidInputError, tmp_path)
    assert "split.csv has no training images" in message


def test_validation_images_may_be_the_test_images(tmp_path):
    same = [line.replace("test,", "val,") for line in LINES[3:]]
    assert read(tmp_path / "split.csv", "\n".join([*LINES, *same])) == {**SPLIT, "val": SPLIT["test"]}


def test_a_type_that_looks_like_a_missing_value_is_a_type(tmp_path):
    table = SAMPLES.assign(defect_type=["good"] * 3 + ["NA"] * 2)
    write_split(tmp_path / "split.csv", {"train": table[::2], "test": table[1::2]}, table.image_path)
    split = read_split(tmp_path / "split.csv", table.image_path, table)
    assert split == {name: set(rows.image_path) for name, rows in (("train", table[::2]), ("test", table[1::2]))}


# In a data module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dents(tmp_path / "data")


def with_split(root: Path, mode: str = "same_as_test", seed: int = 0, **arguments: Any) -> WithDefects:
    base = DefectFolder(root, num_workers=0, val_split_mode=mode, val_split_ratio=0.25, seed=seed, test_ratio=0.25)
    return set_up(WithDefects(base, **arguments))


def images(datamodule: WithDefects) -> dict[str, set[str]]:
    return {name: set(getattr(datamodule, f"{name}_data").samples.image_path) for name in ("train", "val", "test")}


def written(path: Path, datamodule: WithDefects, names: tuple[str, ...] = ("train", "val", "test")) -> Path:
    tables = {name: getattr(datamodule, f"{name}_data").samples for name in names}
    write_split(path, tables, datamodule._images())
    return path


@pytest.mark.parametrize("mode", ["same_as_test", "from_test", "from_train"])
def test_a_split_is_repeated_whatever_the_seed_of_the_data(root, tmp_path, mode):
    first = with_split(root, mode, real=2)
    file = written(tmp_path / "split.csv", first)
    assert images(with_split(root, mode, seed=7, split_file=file)) == images(first)


@pytest.mark.parametrize("mode", ["same_as_test", "from_test", "from_train"])
def test_the_split_of_an_older_benchmark_without_validation_images_is_repeated(root, tmp_path, mode):
    first = with_split(root, mode, real=2)
    file = written(tmp_path / "split.csv", first, ("train", "test"))
    assert images(with_split(root, mode, split_file=file)) == images(first)


def test_validation_images_that_would_not_be_used_are_named(root, tmp_path):
    file = written(tmp_path / "split.csv", with_split(root, "from_test", real=2))
    message = error_line(lambda: with_split(root, "none", split_file=file), InvalidInputError, tmp_path)
    assert "split file ROOT/split.csv names validation images, but val_split_mode none uses none" in message
    same = written(tmp_path / "same.csv", with_split(root, real=2))
    datamodule = with_split(root, "none", split_file=same)
    assert not hasattr(datamodule, "val_data")


CHANGES: dict[str, Callable[[str], str]] = {
    "label": lambda text: text.replace("dent/0.png,1", "dent/0.png,0"),
    "defect_type": lambda text: text.replace("dent/0.png,1,dent", "dent/0.png,1,scratch"),
}


@pytest.mark.parametrize("column", CHANGES)
def test_a_data_module_names_what_disagrees_with_its_data(root, tmp_path, column):
    file = written(tmp_path / "split.csv", with_split(root, real=2))
    file.write_text(CHANGES[column](file.read_text()))
    message = error_line(lambda: with_split(root, split_file=file), InvalidInputError, tmp_path)
    assert f"has the {column} " in message
    assert "for dent/0.png" in message


def test_training_images_are_counted_wherever_the_data_lies(tmp_path):
    (tmp_path / "split.csv").write_text("\n".join(LINES))
    images = ["/elsewhere/good/0.png", "/elsewhere/dent/5.png", "/elsewhere/dent/0.png", "/elsewhere/dent/6.png"]
    assert count_trained(tmp_path / "split.csv", images) == 2
    (tmp_path / "split.csv").write_text(f"{LINES[0]}\ntrain,train/good/0.png,0,good")
    assert count_trained(tmp_path / "split.csv", ["/mvtec/test/good/0.png"]) == 0
