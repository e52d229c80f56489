"""Data sets of synthetic defects: what is refused, and full disks."""

import errno
import os
from pathlib import Path

import pytest
from layouts import contents
from PIL import Image
from stand_ins import SquareGan

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.synthesis.folder import read_table
from anomalib_defect_plugins.synthesis.synthesizer import Request, synthesize


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"category": "rust"}, "there is no category 'rust'; the checkpoint knows crack, dent"),
        ({"category": "crack+rust"}, "there is no category 'rust'"),
        ({"category": ""}, "there is no category ''; the checkpoint knows"),
        ({"num": 0}, "--num is 0; it must be 1 or more"),
        ({"seed": -1}, "--seed is -1; it must be 0 or more"),
        ({"threshold": 1.0}, "--threshold is 1.0; it must be"),
        ({"threshold": "high"}, "--threshold is high; it must be more than 0 and less than 1, or otsu"),
        ({"max_share": 0.0}, "--max-share is 0.0; it must be more than 0, and 1 or less"),
        ({"max_share": 1.5}, "--max-share is 1.5; it must be"),
        ({"region": Path("no.png")}, "region mask no.png does not exist"),
    ],
)
def test_a_request_that_cannot_be_is_refused_and_nothing_is_written(make, out: Path, request_, line: str):
    with pytest.raises((InvalidInputError, MissingDataError), match=line):
        make(**request_)
    assert not out.exists()


@pytest.mark.parametrize(
    ("size", "value", "line"),
    [
        ((32, 32), 255, "is 32x32 pixels, and the checkpoint makes images of 48x32; make it as large"),
        ((48, 32), 0, "is all black; mark where defects are to be"),
    ],
)
def test_a_region_of_another_size_or_an_empty_one_is_refused(make, tmp_path: Path, size, value, line: str):
    Image.new("L", size, value).save(tmp_path / "region.png")
    with pytest.raises(InvalidInputError, match=rf"region mask .*region.png {line}"):
        make(region=tmp_path / "region.png")


def test_a_broken_region_mask_is_named(make, tmp_path: Path):
    (tmp_path / "region.png").write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match=r"cannot read region mask .*region\.png"):
        make(region=tmp_path / "region.png")


def test_a_folder_with_something_else_is_refused_and_left_alone(make, out: Path):
    out.mkdir()
    (out / "thesis.tex").touch()
    with pytest.raises(InvalidInputError, match=r"out holds something else, such as thesis\.tex; give an empty"):
        make()
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(make, out: Path):
    out.touch()
    with pytest.raises(InvalidInputError, match="out is a file; give another folder"):
        make()


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"category": "dent"}, "category None, not dent"),
        ({"restored": True}, "restored False, not True"),
    ],
)
def test_a_folder_made_with_other_settings_is_in_use(make, out: Path, request_, line: str):
    make()
    before = contents(out)
    with pytest.raises(InvalidInputError, match=f"out is in use: its images were made with {line}; give another"):
        make(**request_)
    assert contents(out) == before


@pytest.mark.parametrize("change", ["other weights", "image_size", "other normal images"])
def test_another_checkpoint_or_other_data_is_another_setting(
    make, checkpoint: Path, gan: SquareGan, data: DefectFolder, change: str
):
    make()
    if change == "other weights":
        checkpoint.write_bytes(b"other weights")
    elif change == "image_size":
        gan.image_size = (48, 48)
    else:
        data.train_data.samples = data.train_data.samples.iloc[1:].copy()
    with pytest.raises(InvalidInputError, match=f"were made with {change}[; ]"):
        make()


def test_a_checkpoint_of_other_categories_than_the_data_is_refused(make, gan: SquareGan, out: Path):
    gan.categories = ("crack", "rust")
    line = r"model\.ckpt makes defects of type crack, rust, but those of real are crack, dent; give the data"
    with pytest.raises(ConfigurationError, match=line):
        make()
    assert not out.exists()


def test_data_without_types_goes_with_any_checkpoint(gan: SquareGan, checkpoint: Path, data: DefectFolder, out: Path):
    gan.categories = ("rust",)
    normal = data.test_data.samples[data.test_data.samples.label_index == 0].copy()
    data.test_data.samples = data.val_data.samples = normal
    assert len(synthesize(checkpoint, data, out, Request(num=1))) == 1


def test_a_type_that_can_be_no_folder_is_refused(make, gan: SquareGan, data: DefectFolder):
    gan.categories = ("masks",)
    for table in (data.test_data.samples,):
        table.loc[table.defect_type != "good", "defect_type"] = "masks"
    with pytest.raises(InvalidInputError, match="'masks' cannot have a folder of that name"):
        make()


def test_data_without_normal_images_is_refused(make, data: DefectFolder):
    data.train_data.samples = data.train_data.samples.assign(label_index=1)
    with pytest.raises(InvalidInputError, match="real has no normal image in its training set"):
        make()


def limited_disk(room: int):
    """A stand-in for ``Path.write_bytes`` that writes half of what follows ``room`` whole files, and fails."""
    write, count = Path.write_bytes, 0

    def limited(path: Path, data: bytes) -> int:
        nonlocal count
        count += 1
        if count <= room:
            return write(path, data)
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    return limited


@pytest.mark.parametrize("room", [11, 12, 13])
def test_a_full_disk_leaves_whole_images_only(
    make, out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: int
):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", limited_disk(room))
        with pytest.raises(InvalidInputError, match=r"cannot write to .*out \(No space left on device\); what is fin"):
            make(num=20)
    table = read_table(out)
    assert 0 < len(table) < 20
    # Nothing but what the table has.
    images = {path.relative_to(out).as_posix() for path in out.rglob("*.png") if path.parent.name != "good"}
    assert images == {*table.image, *table["mask"]}
    assert not list(out.rglob("*.part"))
    make(num=20)
    make(tmp_path / "undisturbed", num=20)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_a_disk_that_is_full_for_the_row_takes_the_image_back(make, out: Path, monkeypatch: pytest.MonkeyPatch):
    make(num=1)
    before = contents(out)
    real = Path.open

    def full(path: Path, mode: str = "r", *rest: object, **options: object) -> object:
        file = real(path, mode, *rest, **options)
        if mode == "a":
            file.write("3,half")
            file.flush()
            file.write = lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(InvalidInputError, match="No space left on device"):
            make(num=2)
    after = {name: data for name, data in contents(out).items() if not name.startswith("good/")}
    assert after == {name: data for name, data in before.items() if not name.startswith("good/")}


def test_a_disk_that_is_full_from_the_start_leaves_nothing(make, out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "write_bytes", limited_disk(0))
    with pytest.raises(InvalidInputError, match="No space left on device"):
        make()
    assert not out.exists()
