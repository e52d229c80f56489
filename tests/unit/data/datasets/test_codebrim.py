"""CODEBRIM: the published split and its counts, several defect types at once, and errors for missing files."""

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from datamodules import error_line, set_up
from dataset_layouts import annotate, codebrim_name, write_codebrim

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.data.dataclasses import split_types
from anomalib_defect_plugins.data.datasets.codebrim import FOLDERS, Codebrim
from anomalib_defect_plugins.testing import DataModuleContract

TYPES = ("Crack", "Spallation", "Efflorescence", "ExposedBars", "CorrosionStain")
"""Names in the metadata."""

PUBLISHED = {"train": 6481, "val": 616, "test": 632}
"""Number of crops of each split in the archive; no photograph is in two splits."""

FEW = {
    ("train", 1, 1): (),
    ("train", 1, 2): ("Crack",),
    ("train", 2, 1): (),
    ("train", 3, 1): ("Efflorescence", "Crack"),
    ("val", 4, 1): (),
    ("val", 5, 1): ("ExposedBars", "CorrosionStain", "Spallation"),
    ("test", 6, 1): (),
    ("test", 6, 2): ("CorrosionStain",),
    ("test", 7, 1): TYPES,
}


class TestContract(DataModuleContract):
    masks = False

    def config(self, root: Path) -> dict[str, Any]:
        if not any(root.iterdir()):
            write_codebrim(root, FEW)
        class_path = "anomalib_defect_plugins.data.datasets.codebrim.Codebrim"
        return {"class_path": class_path, "init_args": {"root": str(root), "num_workers": 0}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_codebrim(tmp_path / "set", FEW)
    return tmp_path / "set"


def load(root: Path, **arguments: Any) -> Codebrim:
    return set_up(Codebrim(root, num_workers=0, **arguments))


def types(dataset: Any) -> dict[str, str]:
    return {Path(row.image_path).name: row.defect_type for row in dataset.samples.itertuples()}


def refusal(root: Path, kind: type[Exception] = InvalidInputError) -> str:
    return error_line(lambda: load(root), kind, root)


def test_the_published_split_is_kept_without_defects_in_the_training_images(root: Path) -> None:
    datamodule = load(root)
    assert set(types(datamodule.train_data)) == {codebrim_name(1, 1), codebrim_name(2, 1)}
    assert set(types(datamodule.train_defects)) == {codebrim_name(1, 2), codebrim_name(3, 1)}
    assert set(types(datamodule.val_data)) == {codebrim_name(4, 1), codebrim_name(5, 1)}
    assert set(types(datamodule.test_data)) == {codebrim_name(6, 1), codebrim_name(6, 2), codebrim_name(7, 1)}
    assert set(datamodule.train_defects.samples.split) == {"train"}
    assert set(datamodule.val_data.samples.split) == {"val"}
    assert datamodule.task == "classification"


def test_crops_have_all_their_types_in_a_fixed_order(root: Path) -> None:
    datamodule = load(root)
    kinds = [types(data) for data in (datamodule.train_defects, datamodule.val_data, datamodule.test_data)]
    assert dict(chain.from_iterable(kind.items() for kind in kinds)) == {
        codebrim_name(1, 2): "crack",
        codebrim_name(3, 1): "crack+efflorescence",
        codebrim_name(4, 1): "good",
        codebrim_name(5, 1): "spallation+exposed_bars+corrosion",
        codebrim_name(6, 1): "good",
        codebrim_name(6, 2): "corrosion",
        codebrim_name(7, 1): "crack+spallation+efflorescence+exposed_bars+corrosion",
    }


def test_crops_of_one_photograph_are_one_group(root: Path) -> None:
    assert list(load(root).test_data.samples.group) == ["image_0000006", "image_0000006", "image_0000007"]


def test_the_whole_set_has_its_published_counts(tmp_path: Path) -> None:
    # The share of normal crops and the types of the others are invented.
    crops, photo = {}, 0
    for split, count in PUBLISHED.items():
        for number in range(count):
            photo += number % 5 == 0
            crops[split, photo, number % 5 + 1] = () if number % 3 == 0 else {TYPES[number % 5], TYPES[number % 2]}
    write_codebrim(tmp_path, crops)
    datamodule = load(tmp_path)
    parts = (datamodule.train_data, datamodule.train_defects, datamodule.val_data, datamodule.test_data)
    train, defects, val, test = (part.samples for part in parts)
    assert len(train) + len(defects) == PUBLISHED["train"]
    assert (len(val), len(test)) == (PUBLISHED["val"], PUBLISHED["test"])
    assert set(train.label_index) == {0}
    assert set(defects.label_index) == {1}
    for one, other in ((train, val), (defects, val), (train, test), (defects, test), (val, test)):
        assert not set(one.group) & set(other.group)
    written = Counter(len(kinds) for kinds in crops.values())
    assert Counter(len(split_types(kind)) for part in parts for kind in part.samples.defect_type) == written


@pytest.mark.parametrize("mode", ["same_as_test", "from_test", "from_train", "none"])
def test_anomalibs_other_validation_modes_work(root: Path, mode: str) -> None:
    datamodule = load(root, val_split_mode=mode, seed=0)
    assert not hasattr(datamodule, "val_data") or not set(datamodule.val_data.samples.split) & {"val"}


def test_training_uses_defects_of_the_training_split_only(root: Path) -> None:
    datamodule = WithDefects(load(root), real="all", masks=False, balanced=False)
    datamodule.setup()
    assert set(types(datamodule.train_data).values()) == {"good", "crack", "crack+efflorescence"}
    assert set(types(datamodule.test_data)) == {codebrim_name(6, 1), codebrim_name(6, 2), codebrim_name(7, 1)}
    batch = next(iter(datamodule.train_dataloader()))
    assert sorted(batch.defect_type) == ["crack", "crack+efflorescence", "good", "good"]
    assert batch.gt_label.sum() == 2


def test_the_archives_top_folder_is_found(root: Path, tmp_path: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    root.rename(tmp_path / "unpacked" / "classification_dataset")
    assert len(load(tmp_path / "unpacked").test_data) == 3


def test_copies_in_the_balanced_archive_have_the_types_and_the_photograph_of_their_crop(root: Path) -> None:
    crop = root / "train" / "defects" / codebrim_name(3, 1)
    copy = crop.with_name(f"{crop.stem}_-_2.png")
    copy.hardlink_to(crop)
    datamodule = load(root)
    assert types(datamodule.train_defects)[copy.name] == "crack+efflorescence"
    assert list(datamodule.train_defects.samples.group) == ["image_0000001", "image_0000003", "image_0000003"]


def change(root: Path, folder: str, name: str, flag: str, value: str) -> None:
    """Change a flag in the metadata."""
    path = root / "metadata" / f"{folder}.xml"
    tree = ET.parse(path)
    next(crop for crop in tree.getroot() if crop.get("name") == name).find(flag).text = value
    tree.write(path)


def test_a_defect_without_a_type_in_the_metadata_is_unspecified(root: Path) -> None:
    change(root, "defects", codebrim_name(6, 2), "CorrosionStain", "0")
    assert types(load(root).test_data)[codebrim_name(6, 2)] == "unspecified"


def test_metadata_may_name_missing_crops(root: Path) -> None:
    # There are 7,735 entries for the 7,729 crops of the archive.
    path = root / "metadata" / "defects.xml"
    tree = ET.parse(path)
    annotate(tree.getroot(), codebrim_name(9, 9), {"Crack"})
    tree.write(path)
    assert len(load(root).train_defects) == 2


def test_the_message_for_a_missing_root_names_source_terms_and_layout(tmp_path: Path) -> None:
    message = refusal(tmp_path / "CODEBRIM", MissingDataError)
    for part in (
        "ROOT/metadata/background.xml is missing",
        "CODEBRIM_classification_dataset.zip from https://doi.org/10.5281/zenodo.2620293",
        "for non-commercial research and education only",
        "root contains train, val and test, each with background and defects, and metadata with background.xml",
    ):
        assert part in message
    assert not (tmp_path / "CODEBRIM").exists()


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_without_crops_is_named(root: Path, split: str, folder: str) -> None:
    for crop in (root / split / folder).iterdir():
        crop.unlink()
    assert f"ROOT/{split}/{folder} is missing or has no images; download" in refusal(root, MissingDataError)
    (root / split / folder).rmdir()
    assert f"ROOT/{split}/{folder} is missing or has no images; download" in refusal(root, MissingDataError)


def test_a_crop_that_is_not_in_the_metadata_is_named(root: Path) -> None:
    crop = root / "val" / "defects" / codebrim_name(5, 1)
    crop.rename(crop.with_name(codebrim_name(5, 2)))
    message = refusal(root)
    assert f"crop ROOT/val/defects/{codebrim_name(5, 2)} is not in ROOT/metadata/defects.xml" in message


def test_a_crop_of_the_background_with_a_defect_is_named(root: Path) -> None:
    change(root, "background", codebrim_name(6, 1), "Crack", "1")
    message = refusal(root)
    assert f"crop ROOT/test/background/{codebrim_name(6, 1)} is of the background but has type crack" in message
    assert "in ROOT/metadata/background.xml; " in message


def test_metadata_that_cannot_be_read_is_named(root: Path) -> None:
    change(root, "defects", codebrim_name(6, 2), "Crack", "yes")
    assert refusal(root).startswith(
        f"cannot read metadata ROOT/metadata/defects.xml (Crack of {codebrim_name(6, 2)} is 'yes'; it must be 0 or 1)"
    )
    path = root / "metadata" / "background.xml"
    path.write_bytes(path.read_bytes()[:100])
    assert refusal(root).startswith("cannot read metadata ROOT/metadata/background.xml (")


def test_a_truncated_crop_is_named(root: Path) -> None:
    path = root / "test" / "defects" / codebrim_name(7, 1)
    content = path.read_bytes()
    path.unlink()  # all crops are one file
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidInputError, match=rf"cannot read image .*{path.name}"):
        load(root).test_data[2]


def test_the_training_split_may_have_the_images_of_all_splits(root: Path) -> None:
    data = load(root, train_on_all=True)
    assert (len(data.train_data), len(data.train_defects), len(data.test_data)) == (4, 5, 3)
    wrapped = set_up(WithDefects(load(root, train_on_all=True), real="all", masks=False))
    assert len(wrapped.train_data) == 9
    assert not wrapped.train_data.samples.image_path.duplicated().any()
