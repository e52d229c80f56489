"""Magnetic Tile: counts, types, tiles that stay together, the download, and errors for unusable files."""

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from datamodules import set_up
from dataset_layouts import write_magnetic_tile, write_mask
from pandas import DataFrame

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import check_samples
from anomalib_defect_plugins.data.datasets import magnetic_tile
from anomalib_defect_plugins.data.datasets.magnetic_tile import COUNTS, UNMARKED, MagneticTile, tile_of_number
from anomalib_defect_plugins.data.download import content_digest
from anomalib_defect_plugins.testing import DataModuleContract

DEFECTIVE = {"blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
"""Published numbers of defective images by type."""


class TestContract(DataModuleContract):
    def config(self, root: Path) -> dict[str, Any]:
        if not any(root.iterdir()):
            write_magnetic_tile(root, shared=3)
        arguments = {"root": str(root), "test_ratio": 0.1, "num_workers": 0}
        return {
            "class_path": "anomalib_defect_plugins.data.datasets.magnetic_tile.MagneticTile",
            "init_args": arguments,
        }


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("magnetic_tile") / "set"
    root.mkdir()
    write_magnetic_tile(root)
    return root


def load(root: Path, **arguments: Any) -> MagneticTile:
    return set_up(MagneticTile(root, num_workers=0, **arguments))


def check_counts(datamodule: MagneticTile) -> None:
    train, test = datamodule.train_data.samples, datamodule.test_data.samples
    assert set(train.defect_type) == {"good"}
    assert dict(test[test.label_index == 1].defect_type.value_counts()) == DEFECTIVE
    assert len(train) + (test.label_index == 0).sum() == 952
    assert not set(train.group) & set(test.group)
    assert (set(train.split), set(test.split)) == ({"train"}, {"test"})


def test_the_test_split_has_all_defective_images_and_a_share_of_the_normal_ones(pristine: Path) -> None:
    datamodule = load(pristine, test_ratio=0.2)
    check_counts(datamodule)
    # A fifth of 952 is 190; tiles have six images, so the last tile adds up to five more.
    assert 190 <= (datamodule.test_data.samples.label_index == 0).sum() <= 195


def test_the_seed_selects_the_test_tiles(pristine: Path) -> None:
    paths = [set(load(pristine, seed=seed).test_data.samples.image_path) for seed in (0, 0, 1)]
    assert paths[0] == paths[1] != paths[2]


def test_ratio_zero_uses_no_normal_image_for_testing_and_any_ratio_leaves_a_tile_for_training(pristine: Path) -> None:
    assert len(load(pristine, test_ratio=0).train_data) == 952
    assert len(load(pristine, test_ratio=0.999).train_data) > 0


def test_images_taken_next_to_a_defective_one_are_test_images_and_count_for_the_ratio(tmp_path: Path) -> None:
    write_magnetic_tile(tmp_path, shared=4)
    datamodule = load(tmp_path, test_ratio=0)
    check_counts(datamodule)
    # Four tiles of six images, but for the last of all, which has four: 952 is 158 * 6 + 4.
    assert len(datamodule.train_data) == 952 - (3 * 6 + 4)
    datamodule = load(tmp_path, test_ratio=0.2)
    assert 190 <= (datamodule.test_data.samples.label_index == 0).sum() <= 195


def test_close_numbers_are_one_tile() -> None:
    assert tile_of_number([5, 205, 405, 606, 7000]) == {5: 5, 205: 5, 405: 5, 606: 606, 7000: 7000}


def test_repeated_tiles_are_joined_with_all_images_of_their_series() -> None:
    tiles = tile_of_number([53011, 53049, 53080, 60000, 65001, 65017, 65067])
    assert set(tiles.values()) == {53011, 60000}
    assert tiles[65067] == 53011


def test_three_numbers_of_one_tile_are_joined() -> None:
    assert set(tile_of_number([85602, 86828, 88149]).values()) == {85602}


def test_an_empty_mask_is_an_error_unless_it_was_published_empty(root: Path) -> None:
    folder = root / "MT_Uneven" / "Imgs"
    first, second = sorted(folder.glob("*.png"))[:2]
    for mask in (first, second):
        mask.unlink()
        write_mask(mask, value=0)
    for suffix in (".jpg", ".png"):
        second.with_suffix(suffix).rename(folder / f"{UNMARKED[0]}{suffix}")
    test = load(root).test_data
    unmarked = test.samples.index[~test.samples.marked]
    assert [Path(test.samples.image_path[index]).stem for index in unmarked] == [UNMARKED[0]]
    item = test[int(unmarked[0])]
    assert item.gt_label == 1
    assert not item.gt_mask.any()
    with pytest.raises(InvalidInputError, match=rf"{first.name} marks nothing"):
        test[list(test.samples.mask_path).index(str(first))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_ratio": 1.0}, r"test_ratio is 1\.0; it must be in \[0, 1\)"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
    ],
)
def test_an_invalid_argument_is_an_error(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        MagneticTile(tmp_path, **arguments)


def test_a_missing_image_is_reported_with_its_folder_and_the_source(root: Path) -> None:
    next((root / "MT_Crack" / "Imgs").glob("*.jpg")).unlink()
    with pytest.raises(MissingDataError, match=r"MT_Crack/Imgs has 56 images, not 57; .* from https://github\.com/"):
        load(root)


def test_a_missing_folder_is_named(root: Path) -> None:
    shutil.rmtree(root / "MT_Fray")
    with pytest.raises(MissingDataError, match=r"MT_Fray/Imgs has 0 images, not 32; .* must contain MT_Free, "):
        load(root)


def test_a_missing_mask_is_named(root: Path) -> None:
    mask = next((root / "MT_Uneven" / "Imgs").glob("*.png"))
    mask.unlink()
    with pytest.raises(MissingDataError, match=rf"{mask.name} is missing; .*{mask.stem}\.jpg needs it"):
        load(root)


def test_an_image_with_an_unexpected_name_is_named(root: Path) -> None:
    (root / "MT_Free" / "Imgs" / "copy.jpg").write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"MT_Free/Imgs/copy\.jpg is not named expE_num_N\.jpg"):
        load(root)


def test_masks_of_normal_images_are_ignored(root: Path) -> None:
    image = next((root / "MT_Free" / "Imgs").glob("*.jpg"))
    image.with_suffix(".png").write_bytes(b"")
    check_counts(load(root))


def test_a_mask_of_another_size_is_named(root: Path) -> None:
    datamodule = load(root)
    index = int(datamodule.test_data.samples.label_index.to_numpy().argmax())
    mask = Path(datamodule.test_data.samples.mask_path[index])
    mask.unlink()
    write_mask(mask, (13, 8))
    with pytest.raises(InvalidInputError, match=rf"{mask.name} is 13x8 pixels and its image .* 12x8"):
        datamodule.test_data[index]


@pytest.fixture
def source(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The authors' archive as a local file with the right digest, and with additional files."""
    path = tmp_path / "master.zip"
    files = [file.relative_to(pristine).as_posix() for file in pristine.rglob("*.*")]
    with zipfile.ZipFile(path, "w") as archive:
        for name in files:
            archive.write(pristine / name, f"Magnetic-tile-defect-datasets.-master/{name}")
        archive.writestr("Magnetic-tile-defect-datasets.-master/README.md", "not unpacked")
        archive.writestr("Magnetic-tile-defect-datasets.-master/MT_Free/Imgs/exp1_num_0.png", "an empty mask")
    monkeypatch.setattr(magnetic_tile, "URL", path.as_uri())
    monkeypatch.setattr(magnetic_tile, "DIGEST", content_digest(pristine, files))
    return path


def test_a_missing_root_is_downloaded_with_a_request_for_citation(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "datasets" / "MagneticTile"
    check_counts(load(root))
    assert "ask that their paper be cited" in caplog.text
    assert sorted(path.name for path in root.iterdir()) == sorted(COUNTS)
    assert not list((root / "MT_Free").rglob("*.png"))


def test_the_real_data_set_has_the_published_counts_types_and_digest_and_no_tile_in_two_splits(data_root: Path) -> None:
    root = data_root / "magnetic_tile"
    datamodule = load(root)
    check_counts(datamodule)
    train, test = datamodule.train_data.samples, datamodule.test_data.samples
    assert 190 <= (test.label_index == 0).sum() < 215  # the largest tile has 24 images
    assert not digests(train) & digests(test)
    assert sorted(Path(path).stem for path in test[~test.marked].image_path) == sorted(UNMARKED)
    assert len(load(root, test_ratio=0).train_data) == 952 - 107
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.*")]
    published = [name for name in names if magnetic_tile.FILES.fullmatch(name)]
    assert len(published) == 952 + 2 * 392
    assert content_digest(root, published) == magnetic_tile.DIGEST


def test_only_the_four_known_masks_of_the_real_data_set_are_empty(data_root: Path) -> None:
    datamodule = load(data_root / "magnetic_tile")
    check_samples(datamodule.test_data)
    defective = datamodule.test_data.samples[datamodule.test_data.samples.label_index == 1]
    empty = [path for path in defective.mask_path if not datamodule.test_data.load_mask(path).any()]
    assert sorted(Path(path).stem for path in empty) == sorted(UNMARKED)


def digests(table: DataFrame) -> set[str]:
    return {hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in table.image_path}
