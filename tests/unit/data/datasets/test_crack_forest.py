"""CrackForest: the published split, the crack label, the download, and what is said when files are missing."""

import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from layouts import write_crack_forest
from scipy.io import savemat

from anomalib_defect_plugins.data import CrackForest, check_samples
from anomalib_defect_plugins.data.datasets import crack_forest
from anomalib_defect_plugins.data.download import content_digest
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError

SEGMENTATION = np.array([[1, 1, 2, 2, 3], [1, 2, 2, 3, 3], [4, 2, 1, 1, 1]], np.uint8)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """The layout of the real data set with tiny files, and with images that are to be left out."""
    root = tmp_path_factory.mktemp("crack_forest") / "set"
    write_crack_forest(root, SEGMENTATION)
    return root


@pytest.fixture
def root(pristine, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(pristine, tmp_path / "set"))


def made(root: Path, **arguments: object) -> CrackForest:
    datamodule = CrackForest(root, **arguments)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def check_split(datamodule: CrackForest) -> None:
    train, test = datamodule.train_data.samples, datamodule.test_data.samples
    assert [Path(path).stem for path in train.image_path] == [str(number) for number in range(201, 209)]
    assert [Path(path).stem for path in test.image_path] == [f"{number:03}" for number in range(1, 119)]
    assert [Path(path).stem for path in test.mask_path] == [Path(path).stem for path in test.image_path]
    assert set(train.label_index) == {0}
    assert set(test.label_index) == {1}
    assert set(train.defect_type) == {"good"}
    assert set(test.defect_type) == {"crack"}


def test_the_published_split_is_kept(pristine):
    check_split(made(pristine))


def test_the_crack_is_label_2_and_no_other(pristine):
    datamodule = made(pristine)
    expected = [[0, 0, 1, 1, 0], [0, 1, 1, 0, 0], [0, 1, 0, 0, 0]]
    assert datamodule.test_data[0].gt_mask.int().tolist() == expected
    assert datamodule.train_data[0].gt_mask.int().tolist() == np.zeros((3, 5), int).tolist()


def test_validation_is_the_test_set_unless_asked_otherwise(pristine):
    assert len(made(pristine).val_data) == 118
    split = made(pristine, val_split_mode="from_train", val_split_ratio=0.25, seed=0)
    assert (len(split.train_data), len(split.val_data), len(split.test_data)) == (6, 2, 118)


def test_batches_come_out_of_the_loaders(pristine):
    batch = next(iter(made(pristine).test_dataloader()))
    assert batch.image.shape == (32, 3, 3, 5)
    assert batch.gt_mask.shape == (32, 3, 5)
    assert batch.mask_path[0].endswith("001.mat")


def test_the_folder_is_only_read(root):
    before = sorted(root.rglob("*"))
    next(iter(made(root).test_dataloader()))
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("name", ["image/007.jpg", "groundTruth/118.mat", "image/201.jpg"])
def test_a_missing_file_is_named_with_the_layout_and_the_source(root, name):
    (root / name).unlink()
    with pytest.raises(MissingDataError, match=rf"{name} is missing; .* must hold image/NNN\.jpg .* from https://"):
        made(root)


def test_a_cut_image_is_named(root):
    path = root / "image" / "003.jpg"
    path.write_bytes(path.read_bytes()[:100])
    datamodule = made(root)
    with pytest.raises(InvalidInputError, match=r"cannot read image .*003\.jpg"):
        datamodule.test_data[2]
    with pytest.raises(InvalidInputError, match=r"cannot read image .*003\.jpg"):
        check_samples(datamodule.test_data)


@pytest.mark.parametrize("content", [b"", b"no MATLAB file at all" * 20], ids=["empty", "text"])
def test_a_mask_that_is_no_mat_file_is_named(root, content):
    (root / "groundTruth" / "002.mat").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"cannot read mask .*002\.mat"):
        made(root).test_data[1]


def test_a_mat_file_of_other_content_is_named(root):
    savemat(root / "groundTruth" / "002.mat", {"mask": SEGMENTATION})
    with pytest.raises(InvalidInputError, match=r"cannot read mask .*002\.mat \(.*groundTruth"):
        made(root).test_data[1]


def test_a_mask_of_another_size_is_named(root):
    savemat(root / "groundTruth" / "002.mat", {"groundTruth": {"Segmentation": SEGMENTATION.T}})
    with pytest.raises(InvalidInputError, match=r"002\.mat is 3x5 pixels and its image .*002\.jpg 5x3"):
        made(root).test_data[1]


@pytest.fixture
def source(pristine, tmp_path, monkeypatch) -> Path:
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
def test_a_missing_or_empty_root_is_downloaded_with_a_word_on_the_licence(source, tmp_path, caplog, exists):
    root = tmp_path / "datasets" / "CrackForest"
    if exists:
        root.mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        check_split(made(root))
    assert "non-commercial research only" in caplog.text
    assert [path.name for path in root.parent.iterdir()] == ["CrackForest"]


def test_a_folder_that_is_there_is_not_downloaded_over(source, root, monkeypatch):
    monkeypatch.setattr(crack_forest, "download_files", lambda *_: pytest.fail("downloaded"))
    check_split(made(root))


def test_a_failed_download_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(crack_forest, "URL", "http://127.0.0.1:9/master.zip")
    with pytest.raises(MissingDataError) as error:
        made(tmp_path / "root")
    message = str(error.value)
    assert "\n" not in message
    assert "127.0.0.1:9/master.zip" in message
    assert f"{tmp_path / 'root'} holds image/NNN.jpg (001-118 and 201-208) and groundTruth/NNN.mat (001-118)" in message
    assert not (tmp_path / "root").exists()


def test_the_real_data_set_has_the_published_counts_masks_and_digest(data_root):
    root = data_root / "crack_forest"
    datamodule = made(root)
    check_split(datamodule)
    check_samples(datamodule.test_data)
    shares = [float(datamodule.test_data[index].gt_mask.float().mean()) for index in range(118)]
    assert min(shares) > 0
    assert np.mean(shares) == pytest.approx(0.0162, abs=5e-5)  # counted once, with scipy and numpy alone
    samples = (*datamodule.train_data.samples.itertuples(), *datamodule.test_data.samples.itertuples())
    names = [str(Path(path).relative_to(root)) for row in samples for path in (row.image_path, row.mask_path) if path]
    assert content_digest(root, names) == crack_forest.DIGEST
