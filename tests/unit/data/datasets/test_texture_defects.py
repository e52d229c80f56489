"""The embedded data set: reproducible, with exact masks, separate splits and clear errors."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
import torch
from anomalib.data.utils import Split
from PIL import Image
from skimage import data as photographs

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import TextureDefects, check_samples
from anomalib_defect_plugins.data.datasets import texture_defects
from anomalib_defect_plugins.generators import KINDS

SPLITS = (Split.TRAIN, Split.VAL, Split.TEST)


@pytest.fixture(scope="module")
def datamodule(tmp_path_factory: pytest.TempPathFactory) -> TextureDefects:
    """The whole data set at the smallest size."""
    datamodule = TextureDefects(tmp_path_factory.mktemp("textures"), image_size=64)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the number of images to build."""
    monkeypatch.setattr(texture_defects, "COUNTS", {Split.TRAIN: (2, 0), Split.VAL: (1, 1), Split.TEST: (1, 6)})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def built(root: Path, **arguments: object) -> dict[str, bytes]:
    datamodule = TextureDefects(root, image_size=64, **arguments)
    datamodule.prepare_data()
    return contents(datamodule.folder)


def test_splits_have_their_counts_and_every_kind_of_defect(datamodule: TextureDefects) -> None:
    kinds = {split: Counter(getattr(datamodule, f"{split.value}_data").samples.defect_type) for split in SPLITS}
    assert kinds[Split.TRAIN] == {"good": 40}
    assert kinds[Split.VAL] == {"good": 20} | dict.fromkeys(KINDS, 3) | dict.fromkeys(KINDS[:2], 4)
    assert kinds[Split.TEST] == {"good": 30} | dict.fromkeys(KINDS, 10)


def test_the_table_has_anomalibs_columns_and_labels(datamodule: TextureDefects) -> None:
    samples = datamodule.test_data.samples
    assert set(samples) == {"image_path", "split", "label", "label_index", "mask_path", "defect_type"}
    assert samples.attrs["task"] == "segmentation"
    good = samples.defect_type == "good"
    assert (samples[good].label_index == 0).all()
    assert (samples[good].mask_path == "").all()
    assert (samples[~good].label_index == 1).all()
    assert datamodule.task == "segmentation"


def test_files_are_rgb_images_and_black_and_white_masks_of_the_given_size(datamodule: TextureDefects) -> None:
    check_samples(datamodule.test_data)
    for sample in datamodule.test_data.samples.itertuples():
        with Image.open(sample.image_path) as image:
            assert (image.mode, image.size) == ("RGB", (64, 64))
        if sample.mask_path:
            with Image.open(sample.mask_path) as mask:
                assert mask.mode == "L"
                assert set(np.unique(mask)) == {0, 255}


def test_the_loader_returns_batches_with_masks(datamodule: TextureDefects) -> None:
    batch = next(iter(datamodule.test_dataloader()))
    assert batch.image.shape == (8, 3, 64, 64)
    assert batch.gt_mask.shape == (8, 64, 64)
    assert torch.equal(batch.gt_mask.flatten(1).any(dim=1), batch.gt_label.bool())


def test_no_image_is_in_two_splits(datamodule: TextureDefects) -> None:
    sets = [set(getattr(datamodule, f"{split.value}_data").samples.image_path) for split in SPLITS]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 40 + 40 + 90
    pictures = [Path(path).read_bytes() for path in set.union(*sets)]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("mode", ["same_as_test", "from_test", "from_train", "synthetic"])
def test_anomalibs_other_validation_modes_work(datamodule: TextureDefects, mode: str) -> None:
    other = TextureDefects(datamodule.root, image_size=64, val_split_mode=mode)
    other.setup()
    assert len(other.val_data) > 0
    assert not any("/val/" in path for path in other.val_data.samples.image_path)


@pytest.mark.parametrize("category", texture_defects.CATEGORIES)
def test_training_and_test_regions_share_no_pixel_of_the_photograph(category: str) -> None:
    photo = getattr(photographs, category)()
    positions = np.arange(photo.size).reshape(photo.shape)
    train, val, test = (texture_defects.region(positions, split) for split in SPLITS)
    assert min(train.shape + test.shape) >= texture_defects.CROP
    assert not np.intersect1d(train, test).size
    assert not np.intersect1d(train, val).size


def test_a_defective_image_is_the_normal_crop_outside_its_mask() -> None:
    texture = np.random.default_rng(0).random((300, 280))
    for kind in KINDS:
        normal, empty = texture_defects.draw_sample(texture, "good", 128, np.random.default_rng(3))
        defective, mask = texture_defects.draw_sample(texture, kind, 128, np.random.default_rng(3))
        assert not empty.any()
        assert np.array_equal(mask, (normal != defective).any(axis=2))


@pytest.mark.parametrize("category", texture_defects.CATEGORIES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_different_ones(
    tmp_path: Path, few: None, category: str
) -> None:
    first = built(tmp_path / "a", category=category)
    again = built(tmp_path / "b", category=category)
    other = built(tmp_path / "a", category=category, seed=1)
    assert first == again
    assert set(first) == set(other)
    assert all(first[name] != other[name] for name in first)


def test_each_version_of_the_images_has_a_folder_with_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TextureDefects(tmp_path).folder
    changes = ({"category": "grass"}, {"seed": 1}, {"image_size": 64})
    others = [TextureDefects(tmp_path, **change).folder for change in changes]
    (tmp_path / "newer.py").write_text("other code")
    monkeypatch.setattr(texture_defects.procedural, "__file__", str(tmp_path / "newer.py"))
    assert len({plain, *others, TextureDefects(tmp_path).folder}) == 5


def test_built_images_are_reused(tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = built(tmp_path)
    monkeypatch.setattr(texture_defects, "build", lambda *_: pytest.fail("built twice"))
    assert built(tmp_path) == before


def test_an_interrupted_build_leaves_no_files_and_can_be_repeated(
    tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(texture_defects.procedural, "draw_defect", interrupt)
        with pytest.raises(KeyboardInterrupt):
            built(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(built(tmp_path)) == 11 + 7  # images and masks


def test_setup_alone_builds_missing_images(tmp_path: Path, few: None) -> None:
    datamodule = TextureDefects(tmp_path, image_size=64)
    datamodule.setup()
    assert len(datamodule.train_data) == 2


def test_the_default_folder_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    assert TextureDefects().folder.is_relative_to(tmp_path / "anomalib-defect-plugins")


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path, few: None) -> None:
    datamodule = TextureDefects(tmp_path, image_size=64)
    datamodule.prepare_data()
    (datamodule.folder / "ground_truth" / "test" / "crack" / "002.png").unlink()
    with pytest.raises(MissingDataError, match=r"test.crack.002\.png is missing; delete the folder .* to build"):
        datamodule.setup()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "wood"}, r"category is 'wood'; it must be one of brick, grass, gravel"),
        ({"image_size": 63}, r"image_size is 63; it must be from 64 to 1024"),
        ({"image_size": 1025}, r"image_size is 1025; it must be from 64 to 1024"),
        ({"seed": -1}, r"seed is -1; it must be 0 or more"),
    ],
)
def test_invalid_arguments_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TextureDefects(**arguments)


def test_a_root_that_is_not_writable_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match=r"cannot write to .*file"):
        TextureDefects(tmp_path / "file").prepare_data()
