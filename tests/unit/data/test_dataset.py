"""Unusable files are named, when a sample is loaded and by the check of any anomalib data set."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, MVTecADDataset
from pandas import DataFrame
from PIL import Image
from torchvision.transforms.v2 import Resize

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import CheckedDataset, check_samples

SIZE = (24, 16)


class Pair(CheckedDataset):
    """A normal and a defective image."""

    def __init__(self, root: Path, task: str = "segmentation", suffix: str = "png") -> None:
        super().__init__()
        rows = [(f"{root}/good.{suffix}", "test", 0, ""), (f"{root}/holed.{suffix}", "test", 1, f"{root}/mask.png")]
        self.samples = DataFrame(rows, columns=["image_path", "split", "label_index", "mask_path"])
        self.samples.attrs["task"] = task


def save_mask(path: Path, size: tuple[int, int] = SIZE) -> None:
    """Write a mask that marks 6 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size[::-1], np.uint8)
    mask[2:5, 3:5] = 255
    Image.fromarray(mask).save(path)


def save(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(params=["png", "jpg", "bmp", "tiff"])
def suffix(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for suffix in ("png", "jpg", "bmp", "tiff"):
        save(tmp_path / f"good.{suffix}")
        save(tmp_path / f"holed.{suffix}")
    save_mask(tmp_path / "mask.png")
    return tmp_path


def test_a_sample_equals_that_of_anomalib(root: Path) -> None:
    ours, theirs = Pair(root), Pair(root)
    theirs.__class__ = MVTecADDataset  # any class with anomalib's loading
    for index in range(2):
        for field in ("image", "gt_mask", "gt_label", "image_path", "mask_path"):
            mine, reference = getattr(ours[index], field), getattr(theirs[index], field)
            assert type(mine) is type(reference)
            assert torch.equal(mine, reference) if isinstance(mine, torch.Tensor) else mine == reference
    assert ours[1].gt_mask.sum() == 6


def test_augmentations_apply_to_image_and_mask(root: Path) -> None:
    dataset = Pair(root)
    dataset.augmentations = Resize((32, 48))
    assert dataset[1].image.shape == (3, 32, 48)
    assert dataset[1].gt_mask.shape == (32, 48)


def test_a_classification_task_has_no_masks(root: Path) -> None:
    dataset = Pair(root, task="classification")
    dataset.augmentations = Resize((8, 8))
    assert dataset[1].gt_mask is None
    assert dataset[1].image.shape == (3, 8, 8)


def test_loading_a_truncated_image_names_it(root: Path, suffix: str) -> None:
    truncate(root / f"holed.{suffix}")
    with pytest.raises(InvalidInputError, match=rf"cannot read image .*holed\.{suffix} \(.+\); replace"):
        Pair(root, suffix=suffix)[1]


def test_loading_a_mask_of_another_size_names_both_files_and_sizes(root: Path) -> None:
    save_mask(root / "mask.png", (10, 12))
    with pytest.raises(InvalidInputError, match=r"mask .*mask\.png is 10x12 pixels and its image .*holed\.png 24x16"):
        Pair(root)[1]


def test_loading_a_damaged_mask_names_it(root: Path) -> None:
    (root / "mask.png").write_text("no image")
    with pytest.raises(InvalidInputError, match=r"cannot read mask .*mask\.png"):
        Pair(root)[1]


def test_loading_a_missing_file_names_it(root: Path) -> None:
    dataset = Pair(root)
    (root / "good.png").unlink()
    with pytest.raises(MissingDataError, match=r"image .*good\.png not found\. Restore it"):
        dataset[0]


def test_valid_samples_pass_the_check(root: Path, suffix: str) -> None:
    check_samples(Pair(root, suffix=suffix))


def test_the_check_names_a_truncated_image(root: Path, suffix: str) -> None:
    truncate(root / f"good.{suffix}")
    with pytest.raises(InvalidInputError, match=rf"cannot read image .*good\.{suffix}"):
        check_samples(Pair(root, suffix=suffix))


def test_the_check_names_all_unusable_files(root: Path) -> None:
    (root / "good.png").write_text("no image")
    (root / "mask.png").write_text("no image")
    with pytest.raises(InvalidInputError, match=r"2 faults in Pair: .*good\.png.*; \(2\) .*mask\.png"):
        check_samples(Pair(root))


def test_the_check_names_a_damaged_png(root: Path) -> None:
    content = bytearray((root / "good.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (root / "good.png").write_bytes(bytes(content))
    with pytest.raises(InvalidInputError, match=r"cannot read image .*good\.png"):
        check_samples(Pair(root))


@pytest.mark.parametrize("content", [b"", b"no image"], ids=["empty", "text"])
def test_the_check_names_a_file_that_is_not_an_image(root: Path, content: bytes) -> None:
    (root / "good.png").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"cannot read image .*good\.png"):
        check_samples(Pair(root))


def test_the_check_names_a_mask_of_another_size(root: Path) -> None:
    save_mask(root / "mask.png", (10, 12))
    with pytest.raises(InvalidInputError, match=r"mask .*mask\.png is 10x12 .* 24x16"):
        check_samples(Pair(root))


def test_the_check_names_a_missing_file(root: Path) -> None:
    dataset = Pair(root)
    (root / "mask.png").unlink()
    with pytest.raises(MissingDataError, match=r"mask .*mask\.png not found\. Restore it"):
        check_samples(dataset)


def test_the_check_ignores_masks_of_a_classification_task(root: Path) -> None:
    save_mask(root / "mask.png", (10, 12))
    check_samples(Pair(root, task="classification"))


def test_a_damaged_mask_in_another_format_is_found_by_its_data_set(root: Path) -> None:
    dataset = Pair(root)
    (root / "mask.mat").write_text("no matrix")
    dataset.samples["mask_path"] = ["", f"{root}/mask.mat"]
    with pytest.raises(InvalidInputError, match=r"cannot read mask .*mask\.mat"):
        check_samples(dataset)


def anomalib_folder(root: Path, masks: bool) -> Folder:
    for index in range(4):
        save(root / "normal" / f"{index}.jpg")
        save(root / "holed" / f"{index}.jpg")
        save_mask(root / "masks" / f"{index}.png")
    return Folder(
        "set",
        root=root,
        normal_dir="normal",
        abnormal_dir="holed",
        mask_dir="masks" if masks else None,
        val_split_mode="same_as_test",
    )


@pytest.mark.parametrize("masks", [True, False])
def test_the_check_works_on_anomalibs_folder(tmp_path: Path, masks: bool) -> None:
    datamodule = anomalib_folder(tmp_path, masks)
    datamodule.setup()
    check_samples(datamodule.train_data)
    check_samples(datamodule.test_data)
    truncate(tmp_path / "holed" / "2.jpg")
    with pytest.raises(InvalidInputError, match=r"holed.2\.jpg"):
        check_samples(datamodule.test_data)


def test_the_check_names_a_mask_of_another_size_in_anomalibs_folder(tmp_path: Path) -> None:
    datamodule = anomalib_folder(tmp_path, masks=True)
    save_mask(tmp_path / "masks" / "3.png", (8, 8))
    datamodule.setup()
    with pytest.raises(InvalidInputError, match=r"masks.3\.png is 8x8 pixels and its image .*3\.jpg 24x16"):
        check_samples(datamodule.test_data)
