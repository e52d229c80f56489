"""A defect that vanishes when its mask is resized for the model is named and kept, in every data module and split."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder
from mask_samples import photo
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, RandomHorizontalFlip, Resize
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.data import DefectFolder, WithDefects
from anomalib_defect_plugins.data.lost_masks import warn_of_lost_masks
from anomalib_defect_plugins.data.mask_resize import augment, keep_thin
from anomalib_defect_plugins.data.stock_datasets import checked

SIDE, SMALL = 64, 16
"""Sides of the images, and of those that the model sees: it sees rows and columns 0, 4, 8, ..."""

LOSSES: dict[str, tuple[tuple[slice, slice], ...]] = {
    "a line between the pixels": ((slice(4, 60), slice(9, 10)),),
    "a spot": ((slice(4, 6), slice(5, 6)),),
    "one of two defects": ((slice(4, 60), slice(9, 10)), (slice(20, 40), slice(20, 40))),
}


def marks(*places: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for place in places:
        mask[place] = 255
    return mask


def folder(root: Path) -> DefectFolder:
    return DefectFolder(root, num_workers=0)


def stock_folder(root: Path) -> Folder:
    masks = {"root": root, "normal_dir": "good", "abnormal_dir": "bad", "mask_dir": "masks/bad"}
    return Folder("stock", num_workers=0, val_split_mode="same_as_test", **masks)


DATA: dict[str, Callable[[Path], AnomalibDataModule]] = {
    "DefectFolder": folder,
    "Folder": stock_folder,
    "WithDefects": lambda root: WithDefects(folder(root), real=1),
    "WithDefects around Folder": lambda root: WithDefects(stock_folder(root), real=1),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("good/0", "good/1", "bad/2", "bad/3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo((SIDE, SIDE)).save(tmp_path / f"{name}.png")
    (tmp_path / "masks/bad").mkdir(parents=True)
    return tmp_path


def write_masks(root: Path, *places: tuple[slice, slice]) -> None:
    for number in (2, 3):
        Image.fromarray(marks(*places)).save(root / f"masks/bad/{number}.png")


def set_up_for_model(datamodule: AnomalibDataModule, stage: str = "fit", size: int = SMALL) -> None:
    """Set up a data module as a trainer with a model of this image size does."""
    pre_processor: Any = SimpleNamespace(transform=Resize((size, size), antialias=True))
    model: Any = SimpleNamespace(pre_processor=pre_processor)
    datamodule.trainer = SimpleNamespace(model=model, global_rank=0, training=False, default_root_dir=".")  # type: ignore[assignment]
    datamodule.setup(stage)
    if isinstance(datamodule, Folder):  # as a model of this package does
        warn_of_lost_masks(datamodule, stage)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_defect_is_named_and_kept_in_every_split(root, loss, name, caplog):
    write_masks(root, *LOSSES[loss])
    datamodule = DATA[name](root)
    set_up_for_model(datamodule)
    (line,) = [record.getMessage() for record in caplog.records if "a defect when resized" in record.getMessage()]
    # WithDefects uses one of both for training, the other one for validation and testing.
    assert line.startswith(f"2 masks, such as {root}/masks/bad/")
    assert "resized to 16x16 pixels for the model" in line
    assert "is marked instead; use a larger image_size" in line or isinstance(datamodule, Folder)
    for dataset in (datamodule.train_data, datamodule.val_data, datamodule.test_data):
        for item in checked(dataset):
            expected = torch.from_numpy(marks(*LOSSES[loss])).view(SMALL, 4, SMALL, 4).amax((1, 3)) > 0
            vanished = torch.zeros(SMALL, SMALL, dtype=torch.bool)
            vanished[:, :5] = expected[:, :5]  # where the lost defects are; the other one is as nearest pixels are
            if item.gt_label:
                assert torch.equal(item.gt_mask[:, :5].bool(), vanished[:, :5])


@pytest.mark.parametrize("name", DATA)
def test_no_line_is_logged_where_each_defect_is_left(root, name, caplog):
    write_masks(root, (slice(4, 60), slice(8, 9)), (slice(20, 40), slice(20, 40)))
    set_up_for_model(DATA[name](root))
    assert "a defect when resized" not in caplog.text
    write_masks(root, *LOSSES["a line between the pixels"])
    set_up_for_model(DATA[name](root), size=SIDE)
    assert "a defect when resized" not in caplog.text


@pytest.mark.parametrize(("stage", "number"), [("validate", 1), ("test", 1), ("fit", 2)])
def test_a_mask_is_named_in_the_stage_that_uses_it_and_once(root, stage, number, caplog):
    write_masks(root, *LOSSES["a spot"])
    datamodule = WithDefects(folder(root), real=1)
    for _ in range(2):
        set_up_for_model(datamodule, stage)
    assert caplog.text.count("a defect when resized") == 1
    assert (f"{number} masks" in caplog.text) == (number > 1)


def test_a_model_without_masks_is_not_warned(root, caplog):
    write_masks(root, *LOSSES["a spot"])
    set_up_for_model(DefectFolder(root, mask_dir=None, num_workers=0))
    datamodule = WithDefects(folder(root), real=2, masks=False)
    set_up_for_model(datamodule)
    assert "a defect when resized" not in caplog.text


def test_only_vanished_defects_change():
    mask = Mask(torch.from_numpy(marks(*LOSSES["one of two defects"]) // 255))
    near = mask[::4, ::4]
    kept = keep_thin(mask, Mask(near))
    # The line covers rows 4 to 59 of column 9: rows 1 to 14 of column 2.
    assert kept[:, 2].tolist() == [0] + [1] * 14 + [0]
    kept[:, 2] = 0
    assert torch.equal(kept, near)


@pytest.mark.parametrize("size", [(64, 64), (100, 128), (16, 16), (64, 7)])
def test_a_mask_whose_defects_are_left_is_resized_as_by_anomalib(size):
    mask = Mask(torch.from_numpy(marks((slice(10, 50), slice(20, 60))) // 255))
    resize = Resize(size)
    _, ours = augment(resize, ImageTensor(torch.zeros(3, SIDE, SIDE)), mask)
    assert torch.equal(ours, resize(mask))


def test_steps_before_the_resizing_are_applied_once_to_image_and_mask():
    mask = Mask(torch.from_numpy(marks((slice(10, 30), slice(20, 60))) // 255))
    steps = Compose([RandomHorizontalFlip(1.0), Compose([CenterCrop(32), Resize((8, 8))])])
    image = ImageTensor(mask.repeat(3, 1, 1).float())
    expected = steps(image, mask)
    for one, other in zip(augment(steps, image, mask), expected, strict=True):
        assert torch.equal(one, other)
