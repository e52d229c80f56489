"""CrackForest: the published split, the crack label, the download, and errors for missing files."""

import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datamodules import set_up
from dataset_layouts import write_crack_forest
from scipy.io import savemat

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import CrackForest, check_samples, download
from anomalib_defect_plugins.data.datasets import crack_forest
from anomalib_defect_plugins.data.download import content_digest

SEGMENTATION = np.array([[1, 1, 2, 2, 3], [1, 2, 2, 3, 3], [4, 2, 1, 1, 1]], np.uint8)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the real data set with tiny files, and with the images that are not used."""
    root = tmp_path_factory.mktemp("crack_forest") / "set"
    write_crack_forest(root, SEGMENTATION)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A copy whose files may be overwritten."""
    return Path(shutil.copytree(pristine, tmp_path / "set"))


def load(root: Path, **arguments: Any) -> CrackForest:
    return set_up(CrackForest(root, **arguments))


def check_split(datamodule: CrackForest) -> None:
    train, test = datamodule.train_data.samples, datamodule.test_data.samples
    assert [Path(path).stem for path in train.image_path] == [str(number) for number in range(201, 209)]
    assert [Path(path).stem for path in test.image_path] == [f"{number:03}" for number in range(1, 119)]
    assert [Path(path).stem for path in test.mask_path] == [Path(path).stem for path in test.image_path]
    assert set(train.label_index) == {0}
    assert set(test.label_index) == {1}
    assert set(train.defect_type) == {"good"}
    assert set(test.defect_type) == {"crack"}


def test_the_published_split_is_kept(pristine: Path) -> None:
    check_split(load(pristine))


def test_only_label_2_is_the_crack(pristine: Path) -> None:
    datamodule = load(pristine)
    expected = [[0, 0, 1, 1, 0], [0, 1, 1, 0, 0], [0, 1, 0, 0, 0]]
    assert datamodule.test_data[0].gt_mask.int().tolist() == expected
    assert datamodule.train_data[0].gt_mask.int().tolist() == np.zeros((3, 5), int).tolist()


def test_the_validation_set_is_the_test_set_by_default(pristine: Path) -> None:
    assert len(load(pristine).val_data) == 118
    split = load(pristine, val_split_mode="from_train", val_split_ratio=0.25, seed=0)
    assert (len(split.train_data), len(split.val_data), len(split.test_data)) == (6, 2, 118)


def test_the_loader_returns_batches_with_masks(pristine: Path) -> None:
    batch = next(iter(load(pristine).test_dataloader()))
    assert batch.image.shape == (8, 3, 3, 5)
    assert batch.gt_mask.shape == (8, 3, 5)
    assert batch.mask_path[0].endswith("001.mat")


def test_the_folder_is_not_changed(root: Path) -> None:
    before = sorted(root.rglob("*"))
    next(iter(load(root).test_dataloader()))
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("name", ["image/007.jpg", "groundTruth/118.mat", "image/201.jpg"])
def test_a_missing_file_is_named_with_the_layout_and_the_source(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(MissingDataError, match=rf"{name} is missing; .* must contain image/NNN\.jpg .* from https://"):
        load(root)


def test_a_truncated_image_is_named(root: Path) -> None:
    path = root / "image" / "003.jpg"
    path.write_bytes(path.read_bytes()[:100])
    datamodule = load(root)
    with pytest.raises(InvalidInputError, match=r"cannot read image .*003\.jpg"):
        datamodule.test_data[2]
    with pytest.raises(InvalidInputError, match=r"cannot read image .*003\.jpg"):
        check_samples(datamodule.test_data)


@pytest.mark.parametrize("content", [b"", b"no MATLAB file at all" * 20], ids=["empty", "text"])
def test_a_mask_that_is_not_a_mat_file_is_named(root: Path, content: bytes) -> None:
    (root / "groundTruth" / "002.mat").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"cannot read mask .*002\.mat"):
        load(root).test_data[1]


def test_a_mat_file_without_the_expected_variable_is_named(root: Path) -> None:
    savemat(root / "groundTruth" / "002.mat", {"mask": SEGMENTATION})
    with pytest.raises(InvalidInputError, match=r"cannot read mask .*002\.mat \(.*groundTruth"):
        load(root).test_data[1]


def test_a_mask_of_another_size_is_named(root: Path) -> None:
    savemat(root / "groundTruth" / "002.mat", {"groundTruth": {"Segmentation": SEGMENTATION.T}})
    with pytest.raises(InvalidInputError, match=r"002\.mat is 3x5 pixels and its image .*002\.jpg 5x3"):
        load(root).test_data[1]


@pytest.fixture
def source(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The authors' archive, as a local file with the right digest."""
    path = tmp_path / "master.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in pristine.rglob("*.*"):
            archive.write(file, f"CrackForest-dataset-master/{file.relative_to(pristine).as_posix()}")
    names = [str(file.relative_to(pristine).as_posix()) for file in pristine.rglob("*.*") if file.stem < "300"]
    monkeypatch.setattr(crack_forest, "URL", path.as_uri())
    monkeypatch.setattr(crack_forest, "DIGEST", content_digest(pristine, names))
    return path


@pytest.mark.parametrize("exists", [False, True], ids=["missing", "empty"])
def test_a_missing_or_empty_root_is_downloaded_with_a_notice_of_the_licence(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, exists: bool
) -> None:
    root = tmp_path / "datasets" / "CrackForest"
    if exists:
        root.mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        check_split(load(root))
    assert "non-commercial research only" in caplog.text
    assert [path.name for path in root.parent.iterdir()] == ["CrackForest"]


def test_an_existing_folder_is_not_downloaded(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "download_files", lambda *_: pytest.fail("downloaded"))
    check_split(load(root))


def test_the_real_data_set_has_the_published_counts_masks_and_digest(data_root: Path) -> None:
    root = data_root / "crack_forest"
    datamodule = load(root)
    check_split(datamodule)
    check_samples(datamodule.test_data)
    shares = [float(datamodule.test_data[index].gt_mask.float().mean()) for index in range(118)]
    assert min(shares) > 0
    assert np.mean(shares) == pytest.approx(0.0162, abs=5e-5)  # counted once, with scipy and numpy alone
    samples = (*datamodule.train_data.samples.itertuples(), *datamodule.test_data.samples.itertuples())
    names = [str(Path(path).relative_to(root)) for row in samples for path in (row.image_path, row.mask_path) if path]
    assert content_digest(root, names) == crack_forest.DIGEST
