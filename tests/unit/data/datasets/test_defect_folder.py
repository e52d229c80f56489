"""User data in folders: splits, types and masks, and one-line errors for invalid folders."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataset
from anomalib.data.utils import Split
from datamodules import error_line, set_up
from dataset_layouts import SIZE, write_defect_folder, write_image, write_mask
from PIL import Image

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import WithDefects, check_samples
from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolder
from anomalib_defect_plugins.testing import DataModuleContract

CLASS = "anomalib_defect_plugins.data.datasets.defect_folder.DefectFolder"


class TestContract(DataModuleContract):
    def config(self, root: Path) -> dict[str, Any]:
        if not any(root.iterdir()):
            write_defect_folder(root)
        return {"class_path": CLASS, "init_args": {"root": str(root), "num_workers": 0}}


class TestContractWithoutMasks(DataModuleContract):
    masks = False

    def config(self, root: Path) -> dict[str, Any]:
        if not any(root.iterdir()):
            write_defect_folder(root, masks=False)
        return {"class_path": CLASS, "init_args": {"root": str(root), "num_workers": 0, "defect_dirs": "crack"}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "plates"
    write_defect_folder(root)
    return root


def load(root: Path, **arguments: Any) -> DefectFolder:
    return set_up(DefectFolder(root, num_workers=0, **arguments))


def names(dataset: AnomalibDataset) -> list[str]:
    return [f"{Path(path).parent.name}/{Path(path).name}" for path in dataset.samples.image_path]


def refusal(root: Path, kind: type[Exception] = InvalidInputError, **arguments: object) -> str:
    """Return the error message of setting the data up."""
    return error_line(lambda: load(root, **arguments), kind, root)


# Valid folders


def test_the_test_split_has_all_defective_images_and_a_fifth_of_the_normal_ones(root: Path) -> None:
    datamodule = load(root)
    assert Counter(datamodule.train_data.samples.defect_type) == {"good": 8}
    assert Counter(datamodule.test_data.samples.defect_type) == {"good": 2, "crack": 3, "dent": 2}
    assert set(datamodule.train_data.samples.split) == {Split.TRAIN.value}
    assert set(datamodule.test_data.samples.split) == {Split.TEST.value}
    assert datamodule.task == "segmentation"


def test_each_image_has_the_mask_of_its_name_and_type(root: Path) -> None:
    table = load(root).test_data.samples
    defective = table[table.label_index == 1]
    assert [path.replace(f"{root}/", "") for path in defective.mask_path] == [
        "masks/crack/10.png",
        "masks/crack/11.png",
        "masks/crack/12.png",
        "masks/dent/10_mask.png",
        "masks/dent/20_mask.png",
    ]
    assert set(table[table.label_index == 0].mask_path) == {""}


def test_pixels_of_a_mask_that_are_not_black_are_defective(root: Path) -> None:
    for item in load(root).test_data:
        # write_mask marks rows 2 and 3, columns 4 to 6
        expected = [[row, column] for row in (2, 3) for column in (4, 5, 6)] if item.gt_label else []
        assert item.gt_mask.nonzero().tolist() == expected


@pytest.mark.parametrize(("ratio", "count"), [(0, 0), (0.04, 0), (0.25, 2), (0.5, 5), (0.99, 9)])
def test_the_share_of_normal_test_images_is_as_given_and_one_is_left_for_training(
    root: Path, ratio: float, count: int
) -> None:
    datamodule = load(root, test_ratio=ratio)
    assert (datamodule.test_data.samples.label_index == 0).sum() == count
    assert len(datamodule.train_data) == 10 - count


def test_a_single_normal_image_is_for_training(root: Path) -> None:
    for path in list((root / "good").iterdir())[1:]:
        path.unlink()
    datamodule = load(root, test_ratio=0.9)
    assert (len(datamodule.train_data), len(datamodule.test_data)) == (1, 5)


def test_the_split_depends_on_the_seed(root: Path) -> None:
    first, again, other = (names(load(root, seed=seed).train_data) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_copy_of_the_folder_is_split_equally(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    assert names(load(copy).train_data) == names(load(root).train_data)


def test_validation_images_are_the_test_images_by_default(root: Path) -> None:
    assert names(load(root).val_data) == names(load(root).test_data)
    split = load(root, val_split_mode="from_train", val_split_ratio=0.25)
    assert (len(split.train_data), len(split.val_data)) == (6, 2)


def test_the_results_folder_has_the_name_of_the_root_by_default(root: Path) -> None:
    assert DefectFolder(root).name == "plates"
    assert DefectFolder(root, name="steel").name == "steel"
    assert DefectFolder("/").name == "DefectFolder"


def test_without_a_mask_folder_the_task_is_classification(root: Path) -> None:
    shutil.rmtree(root / "masks")
    datamodule = load(root)
    assert datamodule.task == "classification"
    assert set(datamodule.test_data.samples.mask_path) == {""}
    assert all(item.gt_mask is None for item in datamodule.test_data)


def test_masks_can_be_ignored(root: Path) -> None:
    datamodule = load(root, mask_dir=None)
    assert datamodule.task == "classification"
    assert Counter(datamodule.test_data.samples.defect_type) == {"good": 2, "crack": 3, "dent": 2}


def test_only_the_given_defects_are_used_and_masks_of_others_are_ignored(root: Path) -> None:
    for defect_dirs in ("dent", ["dent"]):
        assert Counter(load(root, defect_dirs=defect_dirs).test_data.samples.defect_type) == {"good": 2, "dent": 2}


def test_folders_may_have_other_names_and_be_nested(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / "train" / "ok" / f"{number}.png")
    write_image(tmp_path / "test" / "hole" / "7.png")
    write_mask(tmp_path / "truth" / "hole" / "7.png")
    datamodule = load(tmp_path, normal_dir="train/ok", defect_dirs=["test/hole"], mask_dir="truth")
    assert Counter(datamodule.test_data.samples.defect_type) == {"hole": 1, "good": 1}
    assert datamodule.test_data[0].gt_mask.sum() == 6
    # By default, a parent folder of the normal images is not a defect type.
    shutil.rmtree(tmp_path / "test")
    shutil.rmtree(tmp_path / "truth")
    assert Counter(load(tmp_path, normal_dir="train/ok").test_data.samples.defect_type) == {"good": 1}


def test_masks_of_a_single_type_may_be_in_the_mask_folder_directly(root: Path) -> None:
    for name in ("dent", "masks/dent"):
        shutil.rmtree(root / name)
    for mask in (root / "masks" / "crack").iterdir():
        mask.rename(root / "masks" / mask.name)
    (root / "masks" / "crack").rmdir()
    datamodule = load(root)
    assert [Path(path).name for path in datamodule.test_data.samples.mask_path if path] == [
        "10.png",
        "11.png",
        "12.png",
    ]


def test_a_folder_of_two_types_counts_for_both(root: Path) -> None:
    (root / "dent").rename(root / "crack+dent")
    (root / "masks" / "dent").rename(root / "masks" / "crack+dent")
    datamodule = WithDefects(load(root), per_type=2)
    datamodule.setup()
    assert Counter(datamodule.train_data.samples.defect_type) == {"good": 8, "crack+dent": 2}


def test_normal_images_suffice(root: Path) -> None:
    for name in ("crack", "dent", "masks"):
        shutil.rmtree(root / name)
    datamodule = load(root)
    assert len(datamodule.train_data) == 8
    assert Counter(datamodule.test_data.samples.defect_type) == {"good": 2}


def test_other_files_are_ignored(root: Path) -> None:
    for name in ("Thumbs.db", ".DS_Store", "._10.png", "notes.txt", "10.xml"):
        for folder in ("good", "crack", "masks", "masks/crack"):
            (root / folder / name).write_text("no image")
    for name in (".git", "__MACOSX"):
        (root / name).mkdir()
    for folder in ("crack", "masks"):
        write_image(root / folder / ".cache" / "1.png")
    assert len(load(root).test_data) == 2 + 5


def test_images_of_different_sizes_keep_them_in_a_batch(root: Path) -> None:
    write_image(root / "crack" / "10.jpg", (20, 30))
    write_mask(root / "masks" / "crack" / "10.png", (20, 30))
    batch = next(iter(load(root).test_dataloader()))
    sizes = [(30, 20), *[SIZE[::-1]] * 6]
    assert [image.shape for image in batch.image] == [(3, *size) for size in sizes]
    assert [mask.shape for mask in batch.gt_mask] == sizes


def test_defects_are_trained_on_with_or_without_masks(root: Path) -> None:
    datamodule = WithDefects(load(root), real="all")
    datamodule.setup()
    assert sum(item.gt_mask.sum() for item in datamodule.train_data) == 5 * 6
    without = WithDefects(load(root, mask_dir=None), real="all")
    with pytest.raises(ConfigurationError, match=r"plates has no mask of .*crack/10\.jpg: pass --data.masks false"):
        without.setup()


# Invalid folders


def test_a_missing_folder_is_named_with_the_expected_layout(root: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere", MissingDataError) == (
        "the folder of the data ROOT does not exist; "
        "root must contain a folder of normal images and one for each defect type"
    )
    assert "the folder of normal images ROOT/ok does not exist" in refusal(root, MissingDataError, normal_dir="ok")
    assert "the folder of defective images ROOT/x does not exist" in refusal(root, MissingDataError, defect_dirs=["x"])
    assert "the folder of masks ROOT/truth does not exist" in refusal(root, MissingDataError, mask_dir="truth")


@pytest.mark.parametrize("name", ["good", "crack", "scratch"])
def test_an_empty_folder_is_named(root: Path, name: str) -> None:
    shutil.rmtree(root / name, ignore_errors=True)
    (root / name).mkdir()
    (root / name / "Thumbs.db").touch()
    assert f"the folder ROOT/{name} has no images (.jpg .jpeg .png" in refusal(root, MissingDataError)


def test_a_root_that_is_one_level_off_is_named(root: Path, tmp_path: Path) -> None:
    assert "images, but no folder of them; pass ROOT as root, which has good: root must contain" in error_line(
        lambda: load(root / "crack"), MissingDataError, root
    )
    assert "pass ROOT/parts as root, which has good: root must contain" in refusal(
        above(root, tmp_path / "one"), MissingDataError
    )
    (root / "train").mkdir()
    (root / "good").rename(root / "train" / "good")
    assert "pass ROOT/parts as root, which has train/good: " in refusal(above(root, tmp_path / "two"), MissingDataError)


def above(root: Path, folder: Path) -> Path:
    """Return a folder that has a copy of the data in the folder ``parts``."""
    shutil.copytree(root, folder / "parts")
    return folder


def test_an_image_in_a_subfolder_is_named(root: Path) -> None:
    write_image(root / "good" / "monday" / "1.png")
    assert "image ROOT/good/monday/1.png is in a subfolder" in refusal(root)


def test_a_folder_that_is_both_normal_and_defective_is_named(root: Path) -> None:
    assert "the folder ROOT/good cannot be a defect type" in refusal(root, defect_dirs=["good", "crack"])
    # The type good would label its images normal.
    (root / "crack").rename(root / "ok")
    assert "the folder ROOT/good cannot be a defect type" in refusal(root, normal_dir="ok")


def test_two_folders_of_one_type_are_named(root: Path) -> None:
    write_image(root / "old" / "crack" / "1.png")
    message = refusal(root, defect_dirs=["crack", "old/crack"])
    assert "the folders ROOT/crack and ROOT/old/crack have the same defect type" in message


def test_two_images_with_the_same_name_are_an_error_if_a_mask_would_belong_to_both(root: Path) -> None:
    write_image(root / "crack" / "10.png")
    assert "the images ROOT/crack/10.jpg and ROOT/crack/10.png have the same name" in refusal(root)
    assert len(load(root, mask_dir=None).test_data) == 2 + 6


def test_two_masks_of_one_image_are_named(root: Path) -> None:
    write_mask(root / "masks" / "crack" / "10_mask.bmp")
    assert "the masks ROOT/masks/crack/10.png and ROOT/masks/crack/10_mask.bmp have the same name" in refusal(root)


def test_an_image_whose_name_ends_like_a_mask_can_have_a_mask(root: Path) -> None:
    write_image(root / "crack" / "10_mask.jpg")
    write_mask(root / "masks" / "crack" / "10_mask.png")
    masks = load(root).test_data.samples.mask_path
    assert [Path(path).name for path in masks if "crack" in path] == ["10.png", "10_mask.png", "11.png", "12.png"]


@pytest.mark.parametrize("name", ["crack/77.png", "hole/10.png", "10.png", "crack/new/10.png"])
def test_a_mask_that_belongs_to_no_image_is_named(root: Path, name: str) -> None:
    write_mask(root / "masks" / name)
    assert f"mask ROOT/masks/{name} belongs to no image" in refusal(root)


def test_a_mask_of_a_normal_image_is_named(root: Path) -> None:
    write_mask(root / "masks" / "good" / "00.png")
    assert "mask ROOT/masks/good/00.png marks a defect of a normal image" in refusal(root)
    write_mask(root / "masks" / "good" / "00.png", value=0)
    assert len(load(root).test_data) == 2 + 5


@pytest.mark.parametrize("arguments", [{"test_ratio": 1}, {"test_ratio": -0.1}, {"seed": -1}])
def test_invalid_arguments_are_errors(root: Path, arguments: dict[str, Any]) -> None:
    assert str(next(iter(arguments.values()))) in refusal(root, **arguments)


def reading_error(root: Path, name: str) -> str:
    """Return the error message for a file, which the check before training and the loading must both name."""
    datamodule = load(root)
    dataset = datamodule.test_data
    row = next(row for row, sample in dataset.samples.iterrows() if name in (sample.image_path + sample.mask_path))
    actions = (lambda: check_samples(dataset), lambda: dataset[row])
    messages = [error_line(action, InvalidInputError, root) for action in actions]
    assert all(f"ROOT/{name}" in message for message in messages)
    return messages[0]


@pytest.mark.parametrize("kind", ["cut", "text", "empty"])
def test_a_damaged_image_is_named(root: Path, kind: Any) -> None:
    path = root / "crack" / "10.jpg"
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "text": b"no image", "empty": b""}[kind])
    assert reading_error(root, "crack/10.jpg").startswith("cannot read image ROOT/crack/10.jpg (")


def test_a_mask_of_another_size_is_named(root: Path) -> None:
    write_mask(root / "masks" / "crack" / "10.png", SIZE[::-1])
    assert "is 8x12 pixels and its image ROOT/crack/10.jpg 12x8" in reading_error(root, "masks/crack/10.png")


def test_an_empty_mask_is_named(root: Path) -> None:
    write_mask(root / "masks" / "crack" / "10.png", value=0)
    assert reading_error(root, "masks/crack/10.png").startswith("mask ROOT/masks/crack/10.png marks nothing; mark")


def test_an_empty_mask_is_named_in_a_training_set_with_defects_too(root: Path) -> None:
    write_mask(root / "masks" / "crack" / "10.png", value=0)
    datamodule = WithDefects(load(root), real="all")
    datamodule.setup()
    with pytest.raises(InvalidInputError, match=r"masks/crack/10\.png marks nothing"):
        check_samples(datamodule.train_data)


def test_a_mask_may_be_of_any_format(root: Path) -> None:
    marked = np.array(Image.open(root / "masks" / "crack" / "10.png")) > 0
    path = root / "masks" / "crack" / "11.png"
    for image in (
        Image.fromarray(marked),
        Image.fromarray(marked.astype(np.uint8)),
        Image.fromarray(marked.astype(np.uint16) * 300),
        Image.fromarray(np.where(marked[..., None], (255, 0, 0), (0, 0, 0)).astype(np.uint8)),
        # Red on a transparent layer, whose colour is ignored.
        Image.fromarray(np.where(marked[..., None], (255, 0, 0, 255), (255, 255, 255, 0)).astype(np.uint8)),
    ):
        image.save(path)
        dataset = load(root).test_data
        item = next(item for item in dataset if item.mask_path == str(path))
        assert torch.equal(item.gt_mask, torch.from_numpy(marked)), image.mode
