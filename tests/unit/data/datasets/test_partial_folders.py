"""Folders with what there is: some masks, no normal images, a fixed split, several images of one object."""

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataset
from anomalib.models import Padim
from datamodules import error_line, set_up
from dataset_layouts import write_defect_folder, write_image, write_mask

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolder
from anomalib_defect_plugins.data.loading import check_normal_images
from anomalib_defect_plugins.data.mask_batches import MaskBatches


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "plates"
    write_defect_folder(root)
    return root


def load(root: Path, **arguments: Any) -> DefectFolder:
    return set_up(DefectFolder(root, num_workers=0, **arguments))


def names(dataset: AnomalibDataset) -> set[str]:
    return {Path(path).stem for path in dataset.samples.image_path}


# Masks of some images


@pytest.fixture
def partial(root: Path) -> Path:
    """Folder of five defective images, of which crack/11 and dent/10 have no mask."""
    (root / "masks" / "crack" / "11.png").unlink()
    (root / "masks" / "dent" / "10_mask.png").unlink()
    return root


def test_images_without_a_mask_are_named_and_have_none(partial, caplog):
    datamodule = load(partial)
    without = [item.image_path for item in datamodule.test_data if item.gt_mask is None]
    assert [Path(path).name for path in without] == ["11.bmp", "10.png"]
    assert f"2 of 5 defective images have no mask, the first is {partial}/crack/11.bmp" in caplog.text
    assert datamodule.task == "segmentation"


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_a_batch_has_masks_of_all_its_images_or_of_none(partial, size):
    loader = load(partial, eval_batch_size=size).test_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader)
    assert sum(len(batch.image) for batch in batches) == 7
    for batch in batches:
        without = {"11.bmp", "10.png"} & {Path(path).name for path in batch.image_path if "good" not in path}
        assert (batch.gt_mask is None) == bool(without)


def test_batches_of_a_distributed_sampler_are_apart_too(partial):
    sampler = torch.utils.data.DistributedSampler(load(partial).test_data, num_replicas=1, rank=0, shuffle=False)
    batches = list(MaskBatches(sampler, 8, drop_last=False))
    assert sorted(map(len, batches)) == [2, 5]


def test_defects_without_a_mask_train_as_image_labels_only(partial):
    masks = set_up(WithDefects(load(partial), real="all"))
    assert (masks.train_data.samples.label_index.sum(), masks.test_data.samples.label_index.sum()) == (3, 2)
    assert all(item.gt_mask.any() == item.gt_label for item in masks.train_data)
    labels = set_up(WithDefects(load(partial), real="all", masks=False))
    assert labels.train_data.samples.label_index.sum() == 5
    with pytest.raises(InvalidInputError, match="of images with masks, has 3 defective images"):
        set_up(WithDefects(load(partial), real=4))


def test_masks_beside_some_images_are_used(root):
    shutil.rmtree(root / "masks")
    write_mask(root / "dent" / "10_GT.png")
    assert [Path(path).name for path in load(root).test_data.samples.mask_path if path] == ["10_GT.png"]


def test_an_empty_folder_of_masks_is_none_unless_it_was_chosen(root):
    shutil.rmtree(root / "masks")
    (root / "masks").mkdir()
    write_mask(root / "dent" / "10_GT.png")
    assert sum(map(bool, load(root).test_data.samples.mask_path)) == 1
    (root / "truth").mkdir()
    message = error_line(lambda: load(root, mask_dir="truth"), MissingDataError, root)
    assert message.startswith("the folder of masks ROOT/truth has no images; pass another --data.mask_dir")


# No normal images


@pytest.fixture
def defects(root: Path) -> Path:
    shutil.rmtree(root / "good")
    return root


def test_without_normal_images_a_share_of_each_type_is_for_training(defects, caplog):
    datamodule = load(defects, test_ratio=0.34)
    assert Counter(datamodule.train_data.samples.defect_type) == {"crack": 2, "dent": 1}
    assert Counter(datamodule.test_data.samples.defect_type) == {"crack": 1, "dent": 1}
    assert "there are no normal images: all 5 count as defective (crack, dent)" in caplog.text
    assert not names(datamodule.train_data) & names(datamodule.test_data) - {"10"}


def test_without_normal_images_those_without_masks_are_for_testing(defects):
    (defects / "masks" / "crack" / "11.png").unlink()
    datamodule = load(defects, test_ratio=0.1)
    assert all(datamodule.train_data.samples.mask_path)
    assert "11" in names(datamodule.test_data)


@pytest.mark.parametrize("name", ["ok", "OK", "normal", "defect_free", "no defects"])
def test_a_folder_of_normal_images_may_have_another_usual_name(root, name):
    (root / "good").rename(root / name)
    assert Counter(load(root).train_data.samples.defect_type) == {"good": 8}


def test_two_folders_that_may_be_normal_are_named(root):
    (root / "good").rename(root / "ok")
    write_image(root / "normal" / "1.png")
    message = error_line(lambda: load(root), InvalidInputError, root)
    assert message.startswith("the folders ROOT/normal and ROOT/ok may both hold normal images; merge them, or pass")


@pytest.mark.parametrize("needs", [Supervision.ONE_SHOT, Supervision.NORMAL, Supervision.IMAGE_LABELS, None])
def test_a_model_of_normal_images_says_what_it_needs(defects, needs):
    model = Padim(pre_trained=False) if needs is None else SimpleNamespace(name="Model", supervision=needs)
    datamodule = load(defects)
    with pytest.raises(ConfigurationError, match="trains on normal images, of which the training split of plates has"):
        check_normal_images(model, datamodule)
    datamodule.trainer = SimpleNamespace(lightning_module=model, default_root_dir=".", global_rank=0, model=model)  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="trains on normal images"):
        datamodule.setup("fit")


def test_a_model_of_masks_needs_no_normal_images(defects):
    for model in (SimpleNamespace(supervision=Supervision.PIXEL_MASKS), SimpleNamespace(supervised=True)):
        check_normal_images(model, load(defects))


def test_images_in_no_folder_are_named(tmp_path):
    write_image(tmp_path / "1.png")
    message = error_line(lambda: load(tmp_path), MissingDataError, tmp_path)
    assert message.startswith("the folder ROOT has images, but no folder of them; root must contain a folder of normal")


def test_the_root_of_a_fixed_split_is_not_advised_again(tmp_path):
    write_image(tmp_path / "train" / "good" / "1.png")
    write_image(tmp_path / "test" / "1.png")
    message = error_line(lambda: load(tmp_path), MissingDataError, tmp_path)
    assert message.startswith("the folder ROOT/test has images, but no folder of them; root must contain")


def test_nothing_to_train_on_is_named(tmp_path):
    write_image(tmp_path / "train" / "notes" / "1.txt.png")
    write_image(tmp_path / "test" / "crack" / "1.png")
    shutil.rmtree(tmp_path / "train" / "notes")
    assert "ROOT/train has no folder of images" in error_line(lambda: load(tmp_path), MissingDataError, tmp_path)


# A fixed split


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    """Folder in the layout of MVTec AD, with a defective training image."""
    root = tmp_path / "fixed"
    for number in range(4):
        write_image(root / "train" / "good" / f"{number}.png")
    for name in ("train/crack/9", "test/good/0", "test/crack/0", "test/crack/1"):
        write_image(root / f"{name}.png")
    for number in (0, 1, 9):
        write_mask(root / "ground_truth" / "crack" / f"{number}_mask.png")
    return root


def test_a_fixed_split_is_kept(fixed, caplog):
    write_image(fixed / "val" / "good" / "7.png")
    datamodule = load(fixed)
    assert f"images of {fixed}/val are not used" in caplog.text
    assert names(datamodule.train_data) == {"0", "1", "2", "3"}
    assert Counter(datamodule.test_data.samples.defect_type) == {"good": 1, "crack": 2}
    assert [item.gt_mask.sum() for item in datamodule.test_data if item.gt_label] == [6, 6]
    assert names(datamodule.train_defects) == {"9"}
    trained = set_up(WithDefects(load(fixed), real="all"))
    assert sum(int(item.gt_mask.sum()) for item in trained.train_data) == 6
    assert len(trained.test_data) == 3


def test_masks_of_a_fixed_split_may_be_split_too(fixed):
    (fixed / "ground_truth" / "crack").rename(fixed / "crack")
    write_image(fixed / "train" / "crack" / "0.png")
    for split, number in (("train", 9), ("train", 0), ("test", 0), ("test", 1)):
        write_mask(fixed / "masks" / split / "crack" / f"{number}.png")
    shutil.rmtree(fixed / "ground_truth")
    shutil.rmtree(fixed / "crack")
    datamodule = load(fixed)
    assert {Path(path).parent.parent.name for path in datamodule.train_defects.samples.mask_path} == {"train"}
    assert {Path(path).parent.parent.name for path in datamodule.test_data.samples.mask_path if path} == {"test"}


def test_one_mask_of_two_images_of_a_fixed_split_is_named(fixed):
    write_image(fixed / "train" / "crack" / "0.png")
    message = error_line(lambda: load(fixed), InvalidInputError, fixed)
    assert "the folder ROOT/ground_truth may hold masks" in message
    message = error_line(lambda: load(fixed, mask_dir="ground_truth"), InvalidInputError, fixed)
    assert "the images ROOT/train/crack/0.png and ROOT/test/crack/0.png have the same name" in message


# Several images of one object


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Folder of ten parts with four views each; one view of parts 0 and 1 has a defect."""
    root = tmp_path / "parts"
    for part in range(10):
        for view in range(4):
            write_image(root / ("dent" if part < 2 and view == 0 else "good") / f"part{part}_view{view}.png")
    return root


@pytest.mark.parametrize("pattern", [r"part\d+", r"(part\d+)_view", r"^(.+)_"])
def test_all_images_of_an_object_are_in_one_split(parts, pattern):
    datamodule = load(parts, group_by=pattern, test_ratio=0.25)
    of_split = [{name.split("_")[0] for name in names(data)} for data in (datamodule.train_data, datamodule.test_data)]
    assert not of_split[0] & of_split[1]
    # Parts with a defect are tested on, with their normal views.
    assert {"part0", "part1"} < of_split[1]
    assert (len(datamodule.train_data), len(datamodule.test_data)) == (24, 16)


def test_if_all_objects_have_a_defect_some_are_trained_on(parts):
    for part in range(2, 10):
        (parts / "good" / f"part{part}_view0.png").rename(parts / "dent" / f"part{part}_view0.png")
    datamodule = load(parts, group_by=r"part\d+")
    assert (len(datamodule.train_data), len(datamodule.train_defects), len(datamodule.test_data)) == (24, 8, 8)


def test_groups_that_names_suggest_are_named(parts, caplog):
    load(parts)
    assert r"such as part0_view1.png suggest that several images show one object" in caplog.text
    assert r"such as 'part\d+'" in caplog.text
    caplog.clear()
    load(parts, group_by="part.")
    assert "suggest" not in caplog.text


@pytest.mark.parametrize(
    "form", ["IMG_{:04}", "{:05}", "plate {}", "2023-01-{:02}_12-30-{:02}", "scratch_{}", "exp1_num_{}"]
)
def test_names_that_are_numbers_suggest_no_groups(tmp_path, form, caplog):
    for number in range(20):
        write_image(tmp_path / "good" / f"{form.format(number, number * 7 % 60)}.png")
    load(tmp_path)
    assert "suggest" not in caplog.text


def test_a_pattern_that_fits_not_all_names_or_is_invalid_is_named(parts):
    message = error_line(lambda: load(parts, group_by=r"part[1-9]"), InvalidInputError, parts)
    assert message == (
        "the name of image ROOT/good/part0_view1.png, and 3 more, does not match group_by 'part[1-9]'; "
        "change the pattern"
    )
    with pytest.raises(InvalidInputError, match="which is no regular expression"):
        DefectFolder(parts, group_by="(")


def test_an_object_in_both_splits_is_named(fixed):
    message = error_line(lambda: load(fixed, group_by=r"\d"), InvalidInputError, fixed)
    assert "ROOT/train/good/0.png and ROOT/test/good/0.png show one object ('0'), but are in train and test" in message


# Faults, sizes, regions to ignore


def test_all_faults_of_a_folder_are_named_at_once(root):
    write_mask(root / "masks" / "crack" / "77.png")
    write_mask(root / "masks" / "hole" / "1.png")
    write_image(root / "good" / "monday" / "1.png")
    (root / "empty").mkdir()
    message = error_line(lambda: load(root), InvalidInputError, root)
    assert message.startswith("4 faults in ROOT: (1) ")
    for fault in ("good/monday/1.png is in a subfolder", "ROOT/empty has no images", "crack/77.png belongs to no image",
                  "hole/1.png belongs to no image"):  # fmt: skip
        assert fault in message


def test_the_table_has_the_size_of_a_pixel_where_it_is_known(root):
    assert "mm_per_pixel" not in load(root).test_data.samples
    datamodule = load(root, mm_per_pixel=0.05)
    assert set(datamodule.train_data.samples.mm_per_pixel) == {0.05}
    for value in (0, -1, float("nan")):
        with pytest.raises(InvalidInputError, match="mm_per_pixel is"):
            DefectFolder(root, mm_per_pixel=value)


def test_regions_to_ignore_are_loaded_for_training(root):
    write_mask(root / "ignore" / "crack" / "10_mask.png")
    datamodule = load(root)
    items = {Path(item.image_path).name: item for item in datamodule.test_data}
    assert items["10.jpg"].ignore_mask.sum() == 6
    assert not items["11.bmp"].ignore_mask.any()
    # Images of two sizes keep theirs.
    write_image(root / "crack" / "11.bmp", (20, 30))
    write_mask(root / "masks" / "crack" / "11.png", (20, 30))
    batch = next(iter(load(root).test_dataloader()))
    assert {mask.shape for mask in batch.ignore_mask} == {image.shape[1:] for image in batch.image}
    assert load(root, ignore_dir=None, defect_dirs=["crack"]).test_data[0].ignore_mask is None


def test_regions_to_ignore_are_checked(root):
    write_mask(root / "ignore" / "crack" / "99.png")
    assert "ROOT/ignore/crack/99.png belongs to no image" in error_line(lambda: load(root), InvalidInputError, root)
    (root / "ignore" / "crack" / "99.png").unlink()
    write_mask(root / "ignore" / "crack" / "10.png", (5, 5))
    dataset = load(root).test_data
    row = next(row for row, path in enumerate(dataset.samples.image_path) if path.endswith("10.jpg"))
    assert "is 5x5 pixels and its image" in error_line(lambda: dataset[row], InvalidInputError, root)


def test_an_image_in_training_has_its_region_to_ignore_at_the_size_of_the_model(root):
    from torchvision.transforms.v2 import Resize

    write_mask(root / "ignore" / "crack" / "10.png")
    datamodule = set_up(WithDefects(load(root), real="all"))
    datamodule.train_data.augmentations = Resize((16, 24))
    item = next(item for item in datamodule.train_data if item.image_path.endswith("10.jpg"))
    # write_mask marks rows 2 and 3, columns 4 to 6.
    expected = np.zeros((16, 24), bool)
    expected[4:8, 8:14] = True
    assert np.array_equal(item.ignore_mask, expected)


# Faults


def test_faults_of_names_and_files_are_named_at_once(root):
    write_mask(root / "masks" / "crack" / "unknown.png", (8, 8))
    (root / "crack" / "11.bmp").write_text("no image")
    with pytest.raises(InvalidInputError, match=r"2 faults in .*unknown\.png belongs to no image.*image .*11\.bmp"):
        load(root)
