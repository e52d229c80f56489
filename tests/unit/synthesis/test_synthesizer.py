"""Data sets of synthetic defects: refused input, and full disks."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dataset_layouts import contents
from fake_synthesizer import FakeSynthesizer, MakeImages
from PIL import Image

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.synthesis.folder import read_table
from anomalib_defect_plugins.synthesis.synthesizer import SynthesisRequest, synthesize


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"category": "rust"}, "there is no category 'rust'; the checkpoint knows crack, dent"),
        ({"category": "crack+rust"}, "there is no category 'rust'"),
        ({"category": ""}, "there is no category ''; the checkpoint knows"),
        (
            {"category": "as-trained"},
            "the checkpoint does not know the types of its training images, which --category as-t",
        ),
        ({"num": 0}, "--num is 0; it must be 1 or more"),
        ({"seed": -1}, "--seed is -1; it must be 0 or more"),
        ({"threshold": 1.0}, "--threshold is 1.0; it must be"),
        ({"threshold": "high"}, "--threshold is high; it must be more than 0 and less than 1, or otsu"),
        ({"max_share": 0.0}, "--max-share is 0.0; it must be more than 0, and 1 or less"),
        ({"max_share": 1.5}, "--max-share is 1.5; it must be"),
        ({"region": Path("no.png")}, "region mask no.png not found"),
    ],
)
def test_an_invalid_request_is_refused_and_nothing_is_written(
    make: MakeImages, out: Path, request_: dict[str, Any], line: str
) -> None:
    with pytest.raises((InvalidInputError, MissingDataError), match=line):
        make(**request_)
    assert not out.exists()


@pytest.mark.parametrize(
    ("size", "value", "line"),
    [
        ((32, 32), 255, "is 32x32 pixels, and the checkpoint makes images of 48x32; make it as large"),
        ((48, 32), 0, "marks nothing; mark where defects are to be"),
    ],
)
def test_a_region_of_another_size_or_an_empty_one_is_refused(
    make: MakeImages, tmp_path: Path, size: tuple[int, int], value: int, line: str
) -> None:
    Image.new("L", size, value).save(tmp_path / "region.png")
    with pytest.raises(InvalidInputError, match=rf"region mask .*region.png {line}"):
        make(region=tmp_path / "region.png")


def test_a_broken_region_mask_is_named(make: MakeImages, tmp_path: Path) -> None:
    (tmp_path / "region.png").write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match=r"cannot read region mask .*region\.png"):
        make(region=tmp_path / "region.png")


def test_a_folder_with_something_else_is_refused_and_not_changed(make: MakeImages, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").touch()
    with pytest.raises(InvalidInputError, match=r"out contains something else, such as thesis\.tex; choose an empty"):
        make()
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(make: MakeImages, out: Path) -> None:
    out.touch()
    with pytest.raises(InvalidInputError, match="out is a file; choose another folder"):
        make()


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"category": "dent"}, "category None, not dent"),
        ({"restored": True}, "restored False, not True"),
    ],
)
def test_a_folder_with_other_settings_is_refused_and_not_changed(
    make: MakeImages, out: Path, request_: dict[str, Any], line: str
) -> None:
    make()
    before = contents(out)
    with pytest.raises(InvalidInputError, match=f"out is in use: its images were made with {line}; choose another"):
        make(**request_)
    assert contents(out) == before


@pytest.mark.parametrize("change", ["other weights", "image_size", "other normal images"])
def test_another_checkpoint_or_other_data_count_as_other_settings(
    make: MakeImages, checkpoint: Path, fake: FakeSynthesizer, data: DefectFolder, change: str
) -> None:
    make()
    if change == "other weights":
        checkpoint.write_bytes(b"other weights")
    elif change == "image_size":
        fake.image_size = (48, 48)
    else:
        data.train_data.samples = data.train_data.samples.iloc[1:].copy()
    with pytest.raises(InvalidInputError, match=f"were made with {change}[; ]"):
        make()


def test_a_checkpoint_of_other_categories_than_the_data_is_refused(
    make: MakeImages, fake: FakeSynthesizer, out: Path
) -> None:
    fake.categories = ("crack", "rust")
    line = r"model\.ckpt makes defects of type crack, rust, but those of real are crack, dent; use the data"
    with pytest.raises(ConfigurationError, match=line):
        make()
    assert not out.exists()


def test_data_without_defect_types_fits_any_checkpoint(
    fake: FakeSynthesizer, checkpoint: Path, data: DefectFolder, out: Path
) -> None:
    fake.categories = ("rust",)
    normal = data.test_data.samples[data.test_data.samples.label_index == 0].copy()
    data.test_data.samples = data.val_data.samples = normal
    assert len(synthesize(checkpoint, data, out, SynthesisRequest(num=1))) == 1


def test_a_type_that_cannot_name_a_folder_is_refused(
    make: MakeImages, fake: FakeSynthesizer, data: DefectFolder
) -> None:
    fake.categories = ("masks",)
    for table in (data.test_data.samples,):
        table.loc[table.defect_type != "good", "defect_type"] = "masks"
    with pytest.raises(InvalidInputError, match="'masks' cannot have a folder of that name"):
        make()


def test_data_without_normal_images_is_refused(make: MakeImages, data: DefectFolder) -> None:
    data.train_data.samples = data.train_data.samples.assign(label_index=1)
    with pytest.raises(InvalidInputError, match="real has no normal image in its training set"):
        make()


def limited_disk(room: int) -> Callable[[Path, bytes], int]:
    """Return a ``Path.write_bytes`` that fails after ``room`` files, with half of the next one written."""
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
def test_a_full_disk_leaves_complete_images_only(
    make: MakeImages, out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", limited_disk(room))
        with pytest.raises(InvalidInputError, match=r"cannot write to .*out \(No space left on device\); finished im"):
            make(num=20)
    table = read_table(out)
    assert 0 < len(table) < 20
    images = {path.relative_to(out).as_posix() for path in out.rglob("*.png") if path.parent.name != "good"}
    assert images == {*table.image, *table["mask"]}
    assert not list(out.rglob("*.part"))
    make(num=20)
    make(tmp_path / "undisturbed", num=20)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_the_image_is_removed_if_the_disk_is_full_for_its_row(
    make: MakeImages, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(num=1)
    before = contents(out)
    real = Path.open

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        file: Any = real(path, mode, **options)
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


def test_a_disk_that_is_full_from_the_start_leaves_no_folder(
    make: MakeImages, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", limited_disk(0))
    with pytest.raises(InvalidInputError, match="No space left on device"):
        make()
    assert not out.exists()
