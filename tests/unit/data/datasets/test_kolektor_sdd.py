"""KolektorSDD: folds by object, the labels' dilation, the size, the download, and what is said of bad files."""

import hashlib
import logging
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts import KOLEKTOR_SIZE, write_image, write_kolektor_sdd, write_mask
from PIL import Image
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.data import check_samples
from anomalib_defect_plugins.data.datasets import kolektor_sdd
from anomalib_defect_plugins.data.datasets.kolektor_sdd import FOLDS, KolektorSdd, dilate, resize_mask
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.testing import DataModuleContract


class TestContract(DataModuleContract):
    def config(self, root: Path) -> dict[str, Any]:
        if not any(root.iterdir()):
            write_kolektor_sdd(root)
        arguments = {"root": str(root), "fold": 1, "dilation": 5, "image_size": [28, 12], "num_workers": 0}
        return {"class_path": "anomalib_defect_plugins.data.datasets.kolektor_sdd.KolektorSdd", "init_args": arguments}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("kolektor_sdd") / "set"
    root.mkdir()
    write_kolektor_sdd(root)
    return root


@pytest.fixture
def root(pristine, tmp_path) -> Path:
    """A copy to take files out of, or to put others in."""
    return Path(shutil.copytree(pristine, tmp_path / "set", copy_function=os.link))


def made(root: Path, **arguments: Any) -> KolektorSdd:
    datamodule = KolektorSdd(root, num_workers=0, **arguments)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def replaced(path: Path) -> Path:
    """Make place for another file, without a change of the one that it is a link to."""
    path.unlink()
    return path


def check_folds(root: Path) -> None:
    folds = [made(root, fold=fold) for fold in range(FOLDS)]
    tests = [fold.test_data.samples for fold in folds]
    assert sum(len(test) for test in tests) == 399
    # 52 over three folds.
    assert sorted(test.label_index.sum() for test in tests) == [17, 17, 18]
    # The objects that are one have 16 images, more than any other, so folds cannot be more alike than that.
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


def digests(table) -> set[str]:
    return {hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in table.image_path}


def test_three_folds_share_no_object_and_no_image_and_have_as_many_cracks(pristine):
    check_folds(pristine)


def test_the_folds_do_not_depend_on_the_seed(pristine):
    paths = [set(made(pristine, seed=seed).test_data.samples.image_path) for seed in (0, 1)]
    assert paths[0] == paths[1]


def test_images_and_masks_have_the_size_asked_for_and_the_papers_without_asking(pristine):
    item = made(pristine, image_size=(30, 6)).train_defects[0]
    assert item.image.shape == (3, 30, 6)
    assert item.gt_mask.shape == (30, 6)
    assert item.gt_mask.any()
    assert made(pristine).image_size == (1408, 512)
    normal = made(pristine, image_size=(30, 6)).train_data[0]
    assert normal.gt_mask.shape == (30, 6)
    assert not normal.gt_mask.any()


def test_without_a_size_files_are_read_as_they_are(pristine):
    item = made(pristine, image_size=None).train_defects[0]
    assert item.image.shape == (3, *KOLEKTOR_SIZE[::-1])
    assert item.gt_mask.sum() == 6  # rows 2 and 3, columns 4 to 6


def test_labels_of_all_splits_are_dilated_by_a_square_at_their_own_resolution(pristine):
    datamodule = made(pristine, image_size=None, dilation=5)
    defective = datamodule.test_data.samples.label_index.to_numpy().nonzero()[0]
    # Rows 2 and 3 and columns 4 to 6 grow by 2 on each side: rows 0 to 5, columns 2 to 8.
    for item in (datamodule.train_defects[0], datamodule.test_data[int(defective[0])]):
        assert item.gt_mask.sum() == 6 * 7
        assert item.gt_mask[0:6, 2:9].all()


def test_a_dilated_pixel_is_a_square_cut_at_the_border():
    mask = torch.zeros(20, 20, dtype=torch.uint8)
    mask[10, 10] = 1
    assert [int(dilate(Mask(mask), side).sum()) for side in (0, 5, 9, 13, 17)] == [1, 25, 81, 169, 289]
    corner = torch.zeros(20, 20, dtype=torch.uint8)
    corner[0, 0] = 1
    assert dilate(Mask(corner), 9).sum() == 5 * 5


def test_no_pixel_of_a_mask_is_lost_when_it_shrinks():
    for row in range(7):
        mask = torch.zeros(7, 4, dtype=torch.uint8)
        mask[row, 1] = 1
        assert resize_mask(Mask(mask), (2, 3)).any()


def test_a_mask_that_grows_marks_the_same_share():
    mask = Mask(torch.tensor([[0, 1], [0, 0]], dtype=torch.uint8))
    assert resize_mask(mask, (4, 4)).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": 3}, "fold is 3; choose one of 0, 1 and 2"),
        ({"dilation": 4}, "dilation is 4; choose one of 0, 5, 9, 13, 17"),
        ({"image_size": (0, 5)}, r"image_size is \(0, 5\); give height and width"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(tmp_path, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        KolektorSdd(tmp_path, **arguments)


@pytest.mark.parametrize("name", ["kos07/Part3.jpg", "kos50/Part0_label.bmp"])
def test_a_missing_file_is_named_with_the_layout_and_the_source(root, name):
    (root / name).unlink()
    with pytest.raises(MissingDataError, match=rf"{name} is missing; .*kosNN/PartM\.jpg .* from https://"):
        made(root)


def test_a_missing_object_is_named(root):
    shutil.rmtree(root / "kos13")
    with pytest.raises(MissingDataError, match=r"kos13 is missing or holds no image; .* must hold kosNN"):
        made(root)


def test_an_image_that_is_missing_with_its_label_is_missed(root):
    (root / "kos13" / "Part2.jpg").unlink()
    (root / "kos13" / "Part2_label.bmp").unlink()
    with pytest.raises(MissingDataError, match="holds 398 images, not 399"):
        made(root)


@pytest.mark.parametrize("name", ["Part1.jpg", "Part1_label.bmp"])
def test_a_file_that_is_no_image_is_named(root, name):
    replaced(root / "kos20" / name).write_text("text")
    with pytest.raises(InvalidInputError, match=rf"cannot read (image|label) .*kos20/{name}"):
        made(root)


def test_a_cut_image_is_named_when_it_is_read_or_checked(root):
    image = root / "kos20" / "Part0.jpg"
    content = image.read_bytes()
    replaced(image).write_bytes(content[:-80])
    datamodule = made(root, fold=next(fold for fold in range(3) if image_in_training(root, fold, image)))
    index = list(datamodule.train_defects.samples.image_path).index(str(image))
    with pytest.raises(InvalidInputError, match=r"cannot read image .*kos20/Part0\.jpg"):
        datamodule.train_defects[index]
    with pytest.raises(InvalidInputError, match=r"cannot read image .*kos20/Part0\.jpg"):
        check_samples(datamodule.train_defects)


def image_in_training(root: Path, fold: int, image: Path) -> bool:
    return str(image) in set(made(root, fold=fold).train_defects.samples.image_path)


def test_a_label_of_another_size_is_named(root):
    write_mask(replaced(root / "kos20" / "Part1_label.bmp"), (9, 24))
    with pytest.raises(InvalidInputError, match=r"Part1_label\.bmp is 9x24 pixels and its image .*Part1\.jpg 10x24"):
        made(root)


def test_a_sample_is_checked_at_the_size_of_its_file(root):
    datamodule = made(root, image_size=(48, 20))
    check_samples(datamodule.train_defects)
    sample = datamodule.train_defects.samples.iloc[0]
    write_image(replaced(Path(sample.image_path)), (11, 24))
    with pytest.raises(InvalidInputError, match=r"is 10x24 pixels and its image .* 11x24"):
        datamodule.train_defects[0]


def test_validation_images_split_off_the_training_set_are_of_other_objects(pristine):
    datamodule = made(pristine, val_split_mode="from_train", val_split_ratio=0.25, seed=0)
    val = set(datamodule.val_data.samples.group)
    assert val
    assert not val & set(datamodule.train_data.samples.group)
    assert not val & set(datamodule.train_defects.samples.group)


@pytest.fixture
def source(pristine, tmp_path, monkeypatch) -> Path:
    """The authors' archive, as a local file with the right digest, and with a file that is not wanted."""
    path = tmp_path / "KolektorSDD.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in pristine.rglob("*.*"):
            archive.write(file, file.relative_to(pristine).as_posix())
        archive.writestr("README.txt", "not wanted")
    monkeypatch.setattr(kolektor_sdd, "URL", path.as_uri())
    monkeypatch.setattr(kolektor_sdd, "DIGEST", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_a_missing_root_is_downloaded_with_a_word_on_the_licence(source, tmp_path, caplog):
    root = tmp_path / "datasets" / "KolektorSdd"
    with caplog.at_level(logging.WARNING):
        made(root)
        made(root)
    assert caplog.text.count("CC BY-NC-SA 4.0") == 1
    assert sorted(path.name for path in root.iterdir()) == [f"kos{number:02}" for number in range(1, 51)]


def test_another_archive_is_refused_and_the_message_says_what_to_put_where(source, tmp_path):
    source.write_bytes(source.read_bytes() + b"more")
    with pytest.raises(MissingDataError) as error:
        made(tmp_path / "root")
    message = str(error.value)
    assert "\n" not in message
    assert "KolektorSDD.zip is another archive than expected" in message
    assert f"{tmp_path / 'root'} holds kosNN/PartM.jpg and kosNN/PartM_label.bmp" in message
    assert not (tmp_path / "root").exists()


def test_the_real_data_set_has_the_published_counts_and_folds_without_a_leak(data_root):
    root = data_root / "kolektor_sdd"
    check_folds(root)
    datamodule = made(root, fold=0)
    check_samples(datamodule.train_defects)
    item = datamodule.train_defects[0]
    assert item.image.shape == (3, 1408, 512)
    assert item.gt_mask.any()
    with Image.open(item.image_path) as image:
        assert image.width == 500
