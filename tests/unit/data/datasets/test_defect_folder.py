"""A user's own folders: what they become, and one line for whatever is wrong with them."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataset
from anomalib.data.utils import Split
from layouts import SIZE, write_defect_folder, write_image, write_mask
from PIL import Image

from anomalib_defect_plugins.data import WithDefects, check_samples
from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolder
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError
from anomalib_defect_plugins.testing import DataModuleContract

CLASS = "anomalib_defect_plugins.data.datasets.defect_folder.DefectFolder"


class TestContract(DataModuleContract):
    def config(self, root: Path) -> dict:
        if not any(root.iterdir()):
            write_defect_folder(root)
        return {"class_path": CLASS, "init_args": {"root": str(root), "num_workers": 0}}


class TestContractWithoutMasks(DataModuleContract):
    masks = False

    def config(self, root: Path) -> dict:
        if not any(root.iterdir()):
            write_defect_folder(root, masks=False)
        return {"class_path": CLASS, "init_args": {"root": str(root), "num_workers": 0, "defect_dirs": "crack"}}


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "plates"
    write_defect_folder(root)
    return root


def made(root: Path, **arguments: object) -> DefectFolder:
    datamodule = DefectFolder(root, num_workers=0, **arguments)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def names(dataset: AnomalibDataset) -> list[str]:
    return [f"{Path(path).parent.name}/{Path(path).name}" for path in dataset.samples.image_path]


def refusal(root: Path, kind: type[Exception] = InvalidInputError, **arguments: object) -> str:
    """What is said when the data is set up, which must be one line."""
    with pytest.raises(kind) as error:
        made(root, **arguments)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(root), "ROOT")


# What folders become


def test_defective_images_test_with_a_fifth_of_the_normal_ones_and_the_rest_trains(root):
    datamodule = made(root)
    assert Counter(datamodule.train_data.samples.defect_type) == {"good": 8}
    assert Counter(datamodule.test_data.samples.defect_type) == {"good": 2, "crack": 3, "dent": 2}
    assert set(datamodule.train_data.samples.split) == {Split.TRAIN.value}
    assert set(datamodule.test_data.samples.split) == {Split.TEST.value}
    assert datamodule.task == "segmentation"


def test_each_image_has_the_mask_of_its_own_name_and_type(root):
    table = made(root).test_data.samples
    defective = table[table.label_index == 1]
    assert [path.replace(f"{root}/", "") for path in defective.mask_path] == [
        "masks/crack/10.png",
        "masks/crack/11.png",
        "masks/crack/12.png",
        "masks/dent/10_mask.png",
        "masks/dent/20_mask.png",
    ]
    assert set(table[table.label_index == 0].mask_path) == {""}


def test_masks_mark_what_is_not_black(root):
    for item in made(root).test_data:
        # write_mask marks rows 2 and 3, columns 4 to 6
        expected = [[row, column] for row in (2, 3) for column in (4, 5, 6)] if item.gt_label else []
        assert item.gt_mask.nonzero().tolist() == expected


@pytest.mark.parametrize(("ratio", "count"), [(0, 0), (0.04, 0), (0.25, 2), (0.5, 5), (0.99, 9)])
def test_the_share_of_normal_test_images_is_as_asked_for_and_one_is_left_to_train(root, ratio, count):
    datamodule = made(root, test_ratio=ratio)
    assert (datamodule.test_data.samples.label_index == 0).sum() == count
    assert len(datamodule.train_data) == 10 - count


def test_a_single_normal_image_trains(root):
    for path in list((root / "good").iterdir())[1:]:
        path.unlink()
    datamodule = made(root, test_ratio=0.9)
    assert (len(datamodule.train_data), len(datamodule.test_data)) == (1, 5)


def test_one_seed_gives_one_split_and_another_seed_another(root):
    first, again, other = (names(made(root, seed=seed).train_data) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_copy_of_the_folder_is_split_alike(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    assert names(made(copy).train_data) == names(made(root).train_data)


def test_validation_images_are_the_test_images_unless_asked_otherwise(root):
    assert names(made(root).val_data) == names(made(root).test_data)
    split = made(root, val_split_mode="from_train", val_split_ratio=0.25)
    assert (len(split.train_data), len(split.val_data)) == (6, 2)


def test_the_folder_of_results_has_the_name_of_the_root(root):
    assert DefectFolder(root).name == "plates"
    assert DefectFolder(root, name="steel").name == "steel"
    assert DefectFolder("/").name == "DefectFolder"


def test_without_a_folder_of_masks_the_task_is_classification(root):
    shutil.rmtree(root / "masks")
    datamodule = made(root)
    assert datamodule.task == "classification"
    assert set(datamodule.test_data.samples.mask_path) == {""}
    assert all(item.gt_mask is None for item in datamodule.test_data)


def test_masks_can_be_left_aside(root):
    datamodule = made(root, mask_dir=None)
    assert datamodule.task == "classification"
    assert Counter(datamodule.test_data.samples.defect_type) == {"good": 2, "crack": 3, "dent": 2}


def test_only_the_defects_asked_for_are_there_and_masks_of_others_do_no_harm(root):
    for given in ("dent", ["dent"]):
        assert Counter(made(root, defect_dirs=given).test_data.samples.defect_type) == {"good": 2, "dent": 2}


def test_folders_may_have_other_names_and_be_nested(tmp_path):
    for number in range(3):
        write_image(tmp_path / "train" / "ok" / f"{number}.png")
    write_image(tmp_path / "test" / "hole" / "7.png")
    write_mask(tmp_path / "truth" / "hole" / "7.png")
    datamodule = made(tmp_path, normal_dir="train/ok", defect_dirs=["test/hole"], mask_dir="truth")
    assert Counter(datamodule.test_data.samples.defect_type) == {"hole": 1, "good": 1}
    assert datamodule.test_data[0].gt_mask.sum() == 6
    # Without names, a folder that holds the normal ones is none of defects.
    shutil.rmtree(tmp_path / "test")
    shutil.rmtree(tmp_path / "truth")
    assert Counter(made(tmp_path, normal_dir="train/ok").test_data.samples.defect_type) == {"good": 1}


def test_the_masks_of_a_single_type_may_lie_in_the_folder_of_masks_itself(root):
    for name in ("dent", "masks/dent"):
        shutil.rmtree(root / name)
    for mask in (root / "masks" / "crack").iterdir():
        mask.rename(root / "masks" / mask.name)
    (root / "masks" / "crack").rmdir()
    datamodule = made(root)
    assert [Path(path).name for path in datamodule.test_data.samples.mask_path if path] == [
        "10.png",
        "11.png",
        "12.png",
    ]


def test_a_folder_of_two_types_counts_for_both(root):
    (root / "dent").rename(root / "crack+dent")
    (root / "masks" / "dent").rename(root / "masks" / "crack+dent")
    datamodule = WithDefects(made(root), per_type=2)
    datamodule.setup()
    assert Counter(datamodule.train_data.samples.defect_type) == {"good": 8, "crack+dent": 2}


def test_normal_images_alone_are_enough(root):
    for name in ("crack", "dent", "masks"):
        shutil.rmtree(root / name)
    datamodule = made(root)
    assert len(datamodule.train_data) == 8
    assert Counter(datamodule.test_data.samples.defect_type) == {"good": 2}


def test_what_is_no_image_is_left_alone(root):
    for name in ("Thumbs.db", ".DS_Store", "._10.png", "notes.txt", "10.xml"):
        for folder in ("good", "crack", "masks", "masks/crack"):
            (root / folder / name).write_text("no image")
    for name in (".git", "__MACOSX"):
        (root / name).mkdir()
    for folder in ("crack", "masks"):
        write_image(root / folder / ".cache" / "1.png")
    assert len(made(root).test_data) == 2 + 5


def test_images_of_many_sizes_come_in_one_batch(root):
    write_image(root / "crack" / "10.jpg", (20, 30))
    write_mask(root / "masks" / "crack" / "10.png", (20, 30))
    batch = next(iter(made(root).test_dataloader()))
    assert batch.image.shape == (7, 3, 30, 20)
    assert batch.gt_mask.shape == (7, 30, 20)


def test_defects_train_with_their_masks_or_without(root):
    datamodule = WithDefects(made(root), real="all")
    datamodule.setup()
    assert sum(item.gt_mask.sum() for item in datamodule.train_data) == 5 * 6
    without = WithDefects(made(root, mask_dir=None), real="all")
    with pytest.raises(ConfigurationError, match=r"plates has no mask of .*crack/10\.jpg: pass --data.masks false"):
        without.setup()


# What is refused


def test_a_missing_folder_is_named_with_what_is_needed(root, tmp_path):
    assert refusal(tmp_path / "nowhere", MissingDataError) == (
        "the folder of the data ROOT does not exist; "
        "root must hold a folder of normal images, and one for each type of defect"
    )
    assert "the folder of normal images ROOT/ok does not exist" in refusal(root, MissingDataError, normal_dir="ok")
    assert "the folder of defective images ROOT/x does not exist" in refusal(root, MissingDataError, defect_dirs=["x"])
    assert "the folder of masks ROOT/truth does not exist" in refusal(root, MissingDataError, mask_dir="truth")


@pytest.mark.parametrize("name", ["good", "crack", "scratch"])
def test_an_empty_folder_is_named(root, name):
    shutil.rmtree(root / name, ignore_errors=True)
    (root / name).mkdir()
    (root / name / "Thumbs.db").touch()
    assert f"the folder ROOT/{name} holds no image (.jpg .jpeg .png" in refusal(root, MissingDataError)


def test_an_image_in_a_folder_of_its_own_is_named(root):
    write_image(root / "good" / "monday" / "1.png")
    assert "image ROOT/good/monday/1.png would be overlooked" in refusal(root)


def test_a_folder_that_claims_to_be_normal_and_defective_is_named(root):
    assert "the folder ROOT/good cannot be one of defects" in refusal(root, defect_dirs=["good", "crack"])
    # Its images would be taken for normal ones by their type.
    (root / "crack").rename(root / "ok")
    assert "the folder ROOT/good cannot be one of defects" in refusal(root, normal_dir="ok")


def test_two_folders_of_one_type_are_named(root):
    write_image(root / "old" / "crack" / "1.png")
    message = refusal(root, defect_dirs=["crack", "old/crack"])
    assert "the folders ROOT/crack and ROOT/old/crack are of one type" in message


def test_two_images_of_one_name_are_refused_where_a_mask_would_belong_to_both(root):
    write_image(root / "crack" / "10.png")
    assert "the images ROOT/crack/10.jpg and ROOT/crack/10.png have one name" in refusal(root)
    assert len(made(root, mask_dir=None).test_data) == 2 + 6


def test_two_masks_of_one_image_are_named(root):
    write_mask(root / "masks" / "crack" / "10_mask.bmp")
    assert "the masks ROOT/masks/crack/10.png and ROOT/masks/crack/10_mask.bmp have one name" in refusal(root)


def test_an_image_whose_own_name_ends_like_a_mask_has_a_mask_all_the_same(root):
    write_image(root / "crack" / "10_mask.jpg")
    write_mask(root / "masks" / "crack" / "10_mask.png")
    masks = made(root).test_data.samples.mask_path
    assert [Path(path).name for path in masks if "crack" in path] == ["10.png", "10_mask.png", "11.png", "12.png"]


def test_a_defective_image_without_mask_is_named(root):
    (root / "masks" / "dent" / "20_mask.png").unlink()
    message = refusal(root, MissingDataError)
    assert message.startswith("image ROOT/dent/20.tif has no mask ROOT/masks/dent/20.png; make one")
    shutil.rmtree(root / "masks" / "dent")
    assert "image ROOT/dent/10.png has no mask" in refusal(root, MissingDataError)


@pytest.mark.parametrize("name", ["crack/77.png", "hole/10.png", "10.png", "crack/new/10.png"])
def test_a_mask_that_belongs_to_no_image_is_named(root, name):
    write_mask(root / "masks" / name)
    assert f"mask ROOT/masks/{name} belongs to no image" in refusal(root)


def test_a_mask_of_a_normal_image_is_named(root):
    write_mask(root / "masks" / "good" / "00.png")
    assert "mask ROOT/masks/good/00.png is one of a normal image" in refusal(root)


@pytest.mark.parametrize("arguments", [{"test_ratio": 1}, {"test_ratio": -0.1}, {"seed": -1}])
def test_arguments_that_cannot_be_are_refused(root, arguments):
    assert str(next(iter(arguments.values()))) in refusal(root, **arguments)


def found_when_read(root: Path, name: str) -> str:
    """What is said of a broken file by the check before training, and again when the sample is read."""
    datamodule = made(root)
    dataset = datamodule.test_data
    row = next(row for row, sample in dataset.samples.iterrows() if name in (sample.image_path + sample.mask_path))
    messages = []
    for look in (lambda: check_samples(dataset), lambda: dataset[row]):
        with pytest.raises(InvalidInputError) as error:
            look()
        messages.append(str(error.value).replace(str(root), "ROOT"))
        assert "\n" not in messages[-1]
    assert all(f"ROOT/{name}" in message for message in messages)
    return messages[0]


@pytest.mark.parametrize("kind", ["cut", "text", "empty"])
def test_an_image_that_cannot_be_read_is_named(root, kind):
    path = root / "crack" / "10.jpg"
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "text": b"no image", "empty": b""}[kind])
    assert found_when_read(root, "crack/10.jpg").startswith("cannot read image ROOT/crack/10.jpg (")


def test_a_mask_of_another_size_is_named(root):
    write_mask(root / "masks" / "crack" / "10.png", SIZE[::-1])
    assert "is 8x12 pixels and its image ROOT/crack/10.jpg 12x8" in found_when_read(root, "masks/crack/10.png")


def test_a_mask_that_marks_nothing_is_named(root):
    write_mask(root / "masks" / "crack" / "10.png", value=0)
    assert found_when_read(root, "masks/crack/10.png").startswith("mask ROOT/masks/crack/10.png marks nothing; mark")


def test_a_mask_that_marks_nothing_is_named_in_a_training_set_with_defects_too(root):
    write_mask(root / "masks" / "crack" / "10.png", value=0)
    datamodule = WithDefects(made(root), real="all")
    datamodule.setup()
    with pytest.raises(InvalidInputError, match=r"masks/crack/10\.png marks nothing"):
        check_samples(datamodule.train_data)


def test_a_mask_may_be_of_any_format(root):
    marked = np.array(Image.open(root / "masks" / "crack" / "10.png")) > 0
    path = root / "masks" / "crack" / "11.png"
    for image in (
        Image.fromarray(marked),
        Image.fromarray(marked.astype(np.uint8)),
        Image.fromarray(marked.astype(np.uint16) * 300),
        Image.fromarray(np.where(marked[..., None], (255, 0, 0), (0, 0, 0)).astype(np.uint8)),
        # Red paint on a layer that is transparent, whatever colour that is said to have.
        Image.fromarray(np.where(marked[..., None], (255, 0, 0, 255), (255, 255, 255, 0)).astype(np.uint8)),
    ):
        image.save(path)
        dataset = made(root).test_data
        item = next(item for item in dataset if item.mask_path == str(path))
        assert torch.equal(item.gt_mask, torch.from_numpy(marked)), image.mode
