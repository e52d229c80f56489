"""Magnetic Tile: counts, types, tiles that stay together, the download, and what is said of bad files."""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from layouts import write_magnetic_tile, write_mask

from anomalib_defect_plugins.data import check_samples
from anomalib_defect_plugins.data.datasets import magnetic_tile
from anomalib_defect_plugins.data.download import content_digest
from anomalib_defect_plugins.data.datasets.magnetic_tile import COUNTS, UNMARKED, MagneticTile, tile_of_number
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.testing import DataModuleContract

DEFECTIVE = {"blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
"""Published counts."""


class TestContract(DataModuleContract):
    def config(self, root: Path) -> dict[str, Any]:
        if not any(root.iterdir()):
            write_magnetic_tile(root, shared=3)
        arguments = {"root": str(root), "test_ratio": 0.1, "num_workers": 0}
        return {"class_path": "anomalib_defect_plugins.data.datasets.magnetic_tile.MagneticTile", "init_args": arguments}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("magnetic_tile") / "set"
    root.mkdir()
    write_magnetic_tile(root)
    return root


@pytest.fixture
def root(pristine, tmp_path) -> Path:
    """A copy to take files out of, or to put others in."""
    return Path(shutil.copytree(pristine, tmp_path / "set", copy_function=os.link))


def made(root: Path, **arguments: Any) -> MagneticTile:
    datamodule = MagneticTile(root, num_workers=0, **arguments)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def check_counts(datamodule: MagneticTile) -> None:
    train, test = datamodule.train_data.samples, datamodule.test_data.samples
    assert set(train.defect_type) == {"good"}
    assert dict(test[test.label_index == 1].defect_type.value_counts()) == DEFECTIVE
    assert len(train) + (test.label_index == 0).sum() == 952
    assert not set(train.group) & set(test.group)
    assert (set(train.split), set(test.split)) == ({"train"}, {"test"})


def test_all_defective_images_and_a_share_of_the_others_test(pristine):
    datamodule = made(pristine, test_ratio=0.2)
    check_counts(datamodule)
    # A fifth of 952 is 190; tiles have six images, so the last of them brings up to five more.
    assert 190 <= (datamodule.test_data.samples.label_index == 0).sum() <= 195


def test_the_seed_chooses_the_tiles_that_test(pristine):
    paths = [set(made(pristine, seed=seed).test_data.samples.image_path) for seed in (0, 0, 1)]
    assert paths[0] == paths[1] != paths[2]


def test_no_image_without_a_defect_tests_at_ratio_zero_and_a_tile_trains_at_any(pristine):
    assert len(made(pristine, test_ratio=0).train_data) == 952
    assert len(made(pristine, test_ratio=0.999).train_data) > 0


def test_images_taken_next_to_a_defective_one_test_too_and_count(tmp_path):
    write_magnetic_tile(tmp_path, shared=4)
    datamodule = made(tmp_path, test_ratio=0)
    check_counts(datamodule)
    # Four tiles of six images, but for the last of all, which has four: 952 is 158 * 6 + 4.
    assert len(datamodule.train_data) == 952 - (3 * 6 + 4)
    datamodule = made(tmp_path, test_ratio=0.2)
    assert 190 <= (datamodule.test_data.samples.label_index == 0).sum() <= 195


def test_numbers_close_to_each_other_are_one_tile():
    assert tile_of_number([5, 205, 405, 606, 7000]) == {5: 5, 205: 5, 405: 5, 606: 606, 7000: 7000}


def test_tiles_that_were_seen_again_are_one_with_all_that_was_taken_in_their_series():
    tiles = tile_of_number([53011, 53049, 53080, 60000, 65001, 65017, 65067])
    assert set(tiles.values()) == {53011, 60000}
    assert tiles[65067] == 53011


def test_a_tile_that_takes_part_in_two_pairs_joins_all_three():
    assert set(tile_of_number([85602, 86828, 88149]).values()) == {85602}


def test_a_mask_that_marks_nothing_is_refused_unless_it_was_published_so(root):
    folder = root / "MT_Uneven" / "Imgs"
    first, second = sorted(folder.glob("*.png"))[:2]
    for mask in (first, second):
        mask.unlink()
        write_mask(mask, value=0)
    for suffix in (".jpg", ".png"):
        second.with_suffix(suffix).rename(folder / f"{UNMARKED[0]}{suffix}")
    test = made(root).test_data
    unmarked = test.samples.index[~test.samples.marked]
    assert [Path(test.samples.image_path[index]).stem for index in unmarked] == [UNMARKED[0]]
    item = test[int(unmarked[0])]
    assert item.gt_label == 1
    assert not item.gt_mask.any()
    with pytest.raises(InvalidInputError, match=rf"{first.name} marks nothing"):
        test[list(test.samples.mask_path).index(str(first))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"test_ratio": 1.0}, r"test_ratio is 1\.0; it must be in \[0, 1\)"), ({"seed": -1}, "must be 0 or more, not -1")],
)
def test_an_argument_that_cannot_be_is_refused(tmp_path, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        MagneticTile(tmp_path, **arguments)


def test_a_missing_image_is_missed_in_its_folder_with_the_source(root):
    next((root / "MT_Crack" / "Imgs").glob("*.jpg")).unlink()
    with pytest.raises(MissingDataError, match=r"MT_Crack/Imgs holds 56 images, not 57; .* from https://github\.com/"):
        made(root)


def test_a_missing_folder_is_missed(root):
    shutil.rmtree(root / "MT_Fray")
    with pytest.raises(MissingDataError, match=r"MT_Fray/Imgs holds 0 images, not 32; .* must hold MT_Free, "):
        made(root)


def test_a_missing_mask_is_named(root):
    mask = next((root / "MT_Uneven" / "Imgs").glob("*.png"))
    mask.unlink()
    with pytest.raises(MissingDataError, match=rf"{mask.name} is missing; .*{mask.stem}\.jpg needs it"):
        made(root)


def test_an_image_with_another_name_is_named(root):
    (root / "MT_Free" / "Imgs" / "copy.jpg").write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"MT_Free/Imgs/copy\.jpg is not named as expE_num_N\.jpg"):
        made(root)


def test_masks_of_images_without_a_defect_are_neither_needed_nor_in_the_way(root):
    image = next((root / "MT_Free" / "Imgs").glob("*.jpg"))
    image.with_suffix(".png").write_bytes(b"")
    check_counts(made(root))


def test_a_mask_of_another_size_is_named(root):
    datamodule = made(root)
    index = int(datamodule.test_data.samples.label_index.to_numpy().argmax())
    mask = Path(datamodule.test_data.samples.mask_path[index])
    mask.unlink()
    write_mask(mask, (13, 8))
    with pytest.raises(InvalidInputError, match=rf"{mask.name} is 13x8 pixels and its image .* 12x8"):
        datamodule.test_data[index]


@pytest.fixture
def source(pristine, tmp_path, monkeypatch) -> Path:
    """The authors' archive, as a local file with the right digest, and with files that are not wanted."""
    path = tmp_path / "master.zip"
    files = [file.relative_to(pristine).as_posix() for file in pristine.rglob("*.*")]
    with zipfile.ZipFile(path, "w") as archive:
        for name in files:
            archive.write(pristine / name, f"Magnetic-tile-defect-datasets.-master/{name}")
        archive.writestr("Magnetic-tile-defect-datasets.-master/README.md", "not wanted")
        archive.writestr("Magnetic-tile-defect-datasets.-master/MT_Free/Imgs/exp1_num_0.png", "an empty mask")
    monkeypatch.setattr(magnetic_tile, "URL", path.as_uri())
    monkeypatch.setattr(magnetic_tile, "DIGEST", content_digest(pristine, files))
    return path


def test_a_missing_root_is_downloaded_with_a_word_on_its_authors_wish(source, tmp_path, caplog):
    root = tmp_path / "datasets" / "MagneticTile"
    check_counts(made(root))
    assert "ask that their paper be cited" in caplog.text
    assert sorted(path.name for path in root.iterdir()) == sorted(COUNTS)
    assert not list((root / "MT_Free").rglob("*.png"))


def test_a_failed_download_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(magnetic_tile, "URL", "http://127.0.0.1:9/master.zip")
    with pytest.raises(MissingDataError) as error:
        made(tmp_path / "root")
    message = str(error.value)
    assert "\n" not in message
    assert "127.0.0.1:9/master.zip" in message
    assert f"{tmp_path / 'root'} holds MT_Free, MT_Blowhole" in message
    assert not (tmp_path / "root").exists()


def test_the_real_data_set_has_the_published_counts_types_and_digest_and_no_tile_in_two_splits(data_root):
    root = data_root / "magnetic_tile"
    datamodule = made(root)
    check_counts(datamodule)
    train, test = datamodule.train_data.samples, datamodule.test_data.samples
    assert 190 <= (test.label_index == 0).sum() < 215  # the largest tile has 24 images
    assert not digests(train) & digests(test)
    assert sorted(Path(path).stem for path in test[~test.marked].image_path) == sorted(UNMARKED)
    assert len(made(root, test_ratio=0).train_data) == 952 - 107
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.*")]
    wanted = [name for name in names if magnetic_tile.FILES.fullmatch(name)]
    assert len(wanted) == 952 + 2 * 392
    assert content_digest(root, wanted) == magnetic_tile.DIGEST


def test_masks_of_the_real_data_set_mark_something_but_for_the_four_known(data_root):
    datamodule = made(data_root / "magnetic_tile")
    check_samples(datamodule.test_data)
    defective = datamodule.test_data.samples[datamodule.test_data.samples.label_index == 1]
    empty = [path for path in defective.mask_path if not datamodule.test_data.load_mask(path).any()]
    assert sorted(Path(path).stem for path in empty) == sorted(UNMARKED)


def digests(table) -> set[str]:
    return {hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in table.image_path}
