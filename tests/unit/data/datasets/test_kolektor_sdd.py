"""KolektorSDD: folds by object, dilation of the labels, the size, the download, and errors for unusable files."""

import hashlib
import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from datamodules import error_line, set_up
from dataset_layouts import KOLEKTOR_SIZE, write_image, write_kolektor_sdd, write_mask
from pandas import DataFrame
from PIL import Image
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import check_samples
from anomalib_defect_plugins.data.datasets import kolektor_sdd
from anomalib_defect_plugins.data.datasets.kolektor_sdd import FOLDS, KolektorSdd, dilate, resize_mask
from anomalib_defect_plugins.testing import DataModuleContract


class TestContract(DataModuleContract):
    def config(self, root: Path) -> dict[str, Any]:
        if not any(root.iterdir()):
            write_kolektor_sdd(root)
        arguments = {"root": str(root), "fold": 1, "dilation": 5, "image_size": [28, 12], "num_workers": 0}
        return {"class_path": "anomalib_defect_plugins.data.datasets.kolektor_sdd.KolektorSdd", "init_args": arguments}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kolektor_sdd") / "set"
    root.mkdir()
    write_kolektor_sdd(root)
    return root


def load(root: Path, **arguments: Any) -> KolektorSdd:
    return set_up(KolektorSdd(root, num_workers=0, **arguments))


def replaced(path: Path) -> Path:
    """Remove a hard link, so that another file can be written without a change of the original."""
    path.unlink()
    return path


def check_folds(root: Path) -> None:
    folds = [load(root, fold=fold) for fold in range(FOLDS)]
    tests = [fold.test_data.samples for fold in folds]
    assert sum(len(test) for test in tests) == 399
    # 52 over three folds.
    assert sorted(test.label_index.sum() for test in tests) == [17, 17, 18]
    # The largest object, joined from two, has 16 images, which bounds how similar the folds can be.
    assert max(map(len, tests)) - min(map(len, tests)) <= 16
    for fold, test in zip(folds, tests, strict=True):
        train, defects = fold.train_data.samples, fold.train_defects.samples
        assert len(train) + len(defects) + len(test) == 399
        assert (set(train.label_index), set(defects.label_index)) == ({0}, {1})
        assert (set(train.split), set(defects.split), set(test.split)) == ({"train"}, {"train"}, {"test"})
        assert not (set(train.group) | set(defects.group)) & set(test.group)
        assert not digests(train) & digests(test)
        assert not digests(defects) & digests(test)
    groups = set.union(*(set(test.group) for test in tests))
    assert len(groups) == 48
    assert {group for group in groups if "+" in group} == {"kos08+kos19", "kos12+kos34"}
    assert sum(test.group.nunique() for test in tests) == 48


def digests(table: DataFrame) -> set[str]:
    return {hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in table.image_path}


def test_three_folds_share_no_object_and_no_image_and_have_equal_numbers_of_cracks(pristine: Path) -> None:
    check_folds(pristine)


def test_the_folds_do_not_depend_on_the_seed(pristine: Path) -> None:
    paths = [set(load(pristine, seed=seed).test_data.samples.image_path) for seed in (0, 1)]
    assert paths[0] == paths[1]


def test_images_and_masks_have_the_given_size_or_that_of_the_paper_by_default(pristine: Path) -> None:
    item = load(pristine, image_size=(30, 6)).train_defects[0]
    assert item.image.shape == (3, 30, 6)
    assert item.gt_mask.shape == (30, 6)
    assert item.gt_mask.any()
    assert load(pristine).image_size == (1408, 512)
    normal = load(pristine, image_size=(30, 6)).train_data[0]
    assert normal.gt_mask.shape == (30, 6)
    assert not normal.gt_mask.any()


def test_without_a_size_nothing_is_resized(pristine: Path) -> None:
    item = load(pristine, image_size=None).train_defects[0]
    assert item.image.shape == (3, *KOLEKTOR_SIZE[::-1])
    assert item.gt_mask.sum() == 6  # rows 2 and 3, columns 4 to 6


def test_labels_of_all_splits_are_dilated_by_a_square_at_their_own_resolution(pristine: Path) -> None:
    datamodule = load(pristine, image_size=None, dilation=5)
    defective = datamodule.test_data.samples.label_index.to_numpy().nonzero()[0]
    # Rows 2 and 3 and columns 4 to 6 grow by 2 on each side: rows 0 to 5, columns 2 to 8.
    for item in (datamodule.train_defects[0], datamodule.test_data[int(defective[0])]):
        assert item.gt_mask.sum() == 6 * 7
        assert item.gt_mask[0:6, 2:9].all()


def test_a_dilated_pixel_is_a_square_clipped_at_the_border() -> None:
    mask = torch.zeros(20, 20, dtype=torch.uint8)
    mask[10, 10] = 1
    assert [int(dilate(Mask(mask), side).sum()) for side in (0, 5, 9, 13, 17)] == [1, 25, 81, 169, 289]
    corner = torch.zeros(20, 20, dtype=torch.uint8)
    corner[0, 0] = 1
    assert dilate(Mask(corner), 9).sum() == 5 * 5


def test_a_reduced_mask_keeps_every_marked_pixel() -> None:
    for row in range(7):
        mask = torch.zeros(7, 4, dtype=torch.uint8)
        mask[row, 1] = 1
        assert resize_mask(Mask(mask), (2, 3)).any()


def test_an_enlarged_mask_marks_the_same_share() -> None:
    mask = Mask(torch.tensor([[0, 1], [0, 0]], dtype=torch.uint8))
    assert resize_mask(mask, (4, 4)).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": 3}, "fold is 3; choose one of 0, 1 and 2"),
        ({"dilation": 4}, "dilation is 4; choose one of 0, 5, 9, 13, 17"),
        ({"image_size": (0, 5)}, r"image_size is \(0, 5\); it must be height and width"),
    ],
)
def test_an_invalid_argument_is_an_error(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        KolektorSdd(tmp_path, **arguments)


@pytest.mark.parametrize("name", ["kos07/Part3.jpg", "kos50/Part0_label.bmp"])
def test_a_missing_file_is_named_with_the_layout_and_the_source(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(MissingDataError, match=rf"{name} is missing; .*kosNN/PartM\.jpg .* from https://"):
        load(root)


def test_a_missing_object_is_named(root: Path) -> None:
    shutil.rmtree(root / "kos13")
    with pytest.raises(MissingDataError, match=r"kos13 is missing or has no images; .* must contain kosNN"):
        load(root)


def test_an_image_that_is_missing_together_with_its_label_is_noticed(root: Path) -> None:
    (root / "kos13" / "Part2.jpg").unlink()
    (root / "kos13" / "Part2_label.bmp").unlink()
    with pytest.raises(MissingDataError, match="has 398 images, not 399"):
        load(root)


@pytest.mark.parametrize("name", ["Part1.jpg", "Part1_label.bmp"])
def test_a_file_that_is_not_an_image_is_named(root: Path, name: str) -> None:
    replaced(root / "kos20" / name).write_text("text")
    with pytest.raises(InvalidInputError, match=rf"cannot read (image|label) .*kos20/{name}"):
        load(root)


def test_a_truncated_image_is_named_when_it_is_read_or_checked(root: Path) -> None:
    image = root / "kos20" / "Part0.jpg"
    content = image.read_bytes()
    replaced(image).write_bytes(content[:-80])
    datamodule = load(root, fold=next(fold for fold in range(3) if image_in_training(root, fold, image)))
    index = list(datamodule.train_defects.samples.image_path).index(str(image))
    with pytest.raises(InvalidInputError, match=r"cannot read image .*kos20/Part0\.jpg"):
        datamodule.train_defects[index]
    with pytest.raises(InvalidInputError, match=r"cannot read image .*kos20/Part0\.jpg"):
        check_samples(datamodule.train_defects)


def image_in_training(root: Path, fold: int, image: Path) -> bool:
    return str(image) in set(load(root, fold=fold).train_defects.samples.image_path)


def test_a_label_of_another_size_is_named(root: Path) -> None:
    write_mask(replaced(root / "kos20" / "Part1_label.bmp"), (9, 24))
    with pytest.raises(InvalidInputError, match=r"Part1_label\.bmp is 9x24 pixels and its image .*Part1\.jpg 10x24"):
        load(root)


def test_sizes_are_compared_before_resizing(root: Path) -> None:
    datamodule = load(root, image_size=(48, 20))
    check_samples(datamodule.train_defects)
    sample = datamodule.train_defects.samples.iloc[0]
    write_image(replaced(Path(sample.image_path)), (11, 24))
    with pytest.raises(InvalidInputError, match=r"is 10x24 pixels and its image .* 11x24"):
        datamodule.train_defects[0]


def test_validation_images_from_the_training_set_show_other_objects(pristine: Path) -> None:
    datamodule = load(pristine, val_split_mode="from_train", val_split_ratio=0.25, seed=0)
    val = set(datamodule.val_data.samples.group)
    assert val
    assert not val & set(datamodule.train_data.samples.group)
    assert not val & set(datamodule.train_defects.samples.group)


def test_without_a_seed_the_validation_images_are_those_of_the_seed_of_torch(pristine: Path) -> None:
    """So ``--seed_everything`` repeats them."""
    drawn = []
    for seed in (0, 0, 1, 2, 3):
        torch.manual_seed(seed)
        datamodule = load(pristine, val_split_mode="from_train", val_split_ratio=0.25)
        drawn.append(frozenset(datamodule.val_data.samples.image_path))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


@pytest.fixture
def source(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The authors' archive as a local file with the right digest, and with an additional file."""
    path = tmp_path / "KolektorSDD.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in pristine.rglob("*.*"):
            archive.write(file, file.relative_to(pristine).as_posix())
        archive.writestr("README.txt", "not unpacked")
    monkeypatch.setattr(kolektor_sdd, "URL", path.as_uri())
    monkeypatch.setattr(kolektor_sdd, "DIGEST", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_a_missing_root_is_downloaded_with_a_notice_of_the_licence(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "datasets" / "KolektorSdd"
    with caplog.at_level(logging.WARNING):
        load(root)
        load(root)
    assert caplog.text.count("CC BY-NC-SA 4.0") == 1
    assert sorted(path.name for path in root.iterdir()) == [f"kos{number:02}" for number in range(1, 51)]


def test_another_archive_is_an_error_that_names_the_layout(source: Path, tmp_path: Path) -> None:
    source.write_bytes(source.read_bytes() + b"more")
    message = error_line(lambda: load(tmp_path / "root"), MissingDataError, tmp_path)
    assert "KolektorSDD.zip is another archive than expected" in message
    assert "ROOT/root contains kosNN/PartM.jpg and kosNN/PartM_label.bmp" in message
    assert not (tmp_path / "root").exists()


def test_the_real_data_set_has_the_published_counts_and_folds_without_a_leak(data_root: Path) -> None:
    root = data_root / "kolektor_sdd"
    check_folds(root)
    datamodule = load(root, fold=0)
    check_samples(datamodule.train_defects)
    item = datamodule.train_defects[0]
    assert item.image.shape == (3, 1408, 512)
    assert item.gt_mask.any()
    with Image.open(item.image_path) as image:
        assert image.width == 500
