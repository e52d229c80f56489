"""Masks of the test images are read before the resizing of the model, for every way to store and load them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from anomalib.data import AnomalibDataModule, Folder
from datamodules import set_up
from dataset_layouts import KOLEKTOR_SIZE, SIZE, write_crack_forest, write_dents, write_kolektor_sdd
from torchvision.transforms.v2 import CenterCrop, Compose, RandomHorizontalFlip, Resize

from anomalib_defect_plugins.data import CrackForest, DefectFolder, KolektorSdd, WithDefects
from anomalib_defect_plugins.data.original_masks import OriginalMasks


def for_model(datamodule: AnomalibDataModule, transform: Any) -> OriginalMasks:
    """Set a data module up for a model whose pre-processor has a transform, and return its masks."""
    model = SimpleNamespace(pre_processor=SimpleNamespace(transform=transform))
    trainer = SimpleNamespace(model=model, global_rank=0, training=False, default_root_dir="results")
    datamodule.trainer = trainer  # type: ignore[assignment]
    return OriginalMasks(set_up(datamodule), transform)


def marked(size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(size[::-1], bool)
    mask[rows, columns] = True
    return mask


def defect_folder(root: Path) -> AnomalibDataModule:
    return DefectFolder(write_dents(root), num_workers=0)


def folder(root: Path) -> AnomalibDataModule:
    write_dents(root)
    return Folder("dents", root=root, normal_dir="good", abnormal_dir="dent", mask_dir="masks/dent", num_workers=0)


def crack_forest(root: Path) -> AnomalibDataModule:
    # 2 is the label of cracks.
    write_crack_forest(root, 1 + marked(SIZE, slice(2, 4), slice(4, 7)).astype(np.uint8))
    return CrackForest(root)


def kolektor(image_size: tuple[int, int] | None) -> Callable[[Path], AnomalibDataModule]:
    def build(root: Path) -> AnomalibDataModule:
        write_kolektor_sdd(root)
        return KolektorSdd(root, dilation=5, image_size=image_size, num_workers=0)

    return build


DRAWN = marked(SIZE, slice(2, 4), slice(4, 7))
DILATED = marked(KOLEKTOR_SIZE, slice(0, 6), slice(2, 9))
KINDS: dict[str, tuple[Callable[[Path], AnomalibDataModule], np.ndarray]] = {
    "DefectFolder": (defect_folder, DRAWN),
    "Folder of anomalib": (folder, DRAWN),
    "WithDefects": (lambda root: WithDefects(folder(root), real=1), DRAWN),
    "CrackForest, .mat": (crack_forest, DRAWN),
    "KolektorSdd, dilated": (kolektor(None), DILATED),
    # The data set itself doubles the images, so this is the ground truth at any size of the model.
    "KolektorSdd, resized": (
        kolektor((2 * KOLEKTOR_SIZE[1], 2 * KOLEKTOR_SIZE[0])),
        DILATED.repeat(2, axis=0).repeat(2, axis=1),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_have_the_size_of_the_images_of_the_data_set(tmp_path: Path, kind: str) -> None:
    build, expected = KINDS[kind]
    datamodule = build(tmp_path / "data")
    masks = for_model(datamodule, Resize((3, 3)))
    data = datamodule.test_data
    table = data.samples.groupby("label_index").first()
    assert np.array_equal(masks(table.image_path[1]), expected)
    if 0 in table.index:
        normal = masks(table.image_path[0])
        assert (normal.shape, normal.any()) == (expected.shape, False)
    assert masks.resolution == "original"
    assert data[0].image.shape == (3, 3, 3), "the data set resizes for the model as before"


def test_augmentations_of_the_data_module_are_applied_as_for_the_model(tmp_path: Path) -> None:
    datamodule = DefectFolder(write_dents(tmp_path), num_workers=0, test_augmentations=RandomHorizontalFlip(1.0))
    masks = for_model(datamodule, Resize((3, 3)))
    assert np.array_equal(masks(str(tmp_path / "dent" / "0.png")), DRAWN[:, ::-1])


def test_a_model_that_crops_is_compared_at_its_own_size(tmp_path: Path) -> None:
    # Images of 12x8 are resized to 6x4, of which the columns 1 to 4 are left: the defect is in row 1, columns 2 and 3.
    transform = Compose([Resize((4, 6)), CenterCrop(4)])
    masks = for_model(DefectFolder(write_dents(tmp_path), num_workers=0), transform)
    mask = masks(str(tmp_path / "dent" / "0.png"))
    assert masks.resolution == "model"
    assert mask.shape == (4, 4)
    assert {tuple(pixel) for pixel in np.argwhere(mask).tolist()} == {(1, 1), (1, 2)}


def test_without_masks_there_are_none(tmp_path: Path) -> None:
    write_dents(tmp_path)
    for mask in (tmp_path / "masks" / "dent").iterdir():
        mask.unlink()
    (tmp_path / "masks" / "dent").rmdir()
    (tmp_path / "masks").rmdir()
    masks = for_model(DefectFolder(tmp_path, num_workers=0), Resize((3, 3)))
    assert masks(str(tmp_path / "dent" / "0.png")) is None
