"""Data sets of synthetic defects, by a stand-in that paints squares."""

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import Folder
from layouts import write_defect_folder, write_image
from PIL import Image
from stand_ins import SquareGan

from anomalib_defect_plugins import cli
from anomalib_defect_plugins import synthesize as module
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.data.synthetic_folder import COLUMNS, normal_images, read_table, synthetic_defects
from anomalib_defect_plugins.errors import ConfigurationError, InvalidInputError, MissingDataError
from anomalib_defect_plugins.metrics import features
from anomalib_defect_plugins.metrics.features import Extractor, ResizedFeatures
from anomalib_defect_plugins.synthesize import Request, synthesize

SIZE = (32, 48)


@pytest.fixture
def gan(monkeypatch: pytest.MonkeyPatch) -> SquareGan:
    gan = SquareGan(image_size=SIZE)
    monkeypatch.setattr(module, "load", lambda *_: gan)
    return gan


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def data(tmp_path: Path) -> DefectFolder:
    write_defect_folder(tmp_path / "real")
    data = DefectFolder(tmp_path / "real", num_workers=0)
    data.setup()
    return data


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def make(gan: SquareGan, checkpoint: Path, data: DefectFolder, out: Path):
    def make(where: Path = out, **request: object) -> list[dict[str, object]]:
        return synthesize(checkpoint, data, where, Request(**{"num": 4, **request}))

    return make


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_it_writes_images_masks_and_a_table_for_each_category_in_turn(make, out: Path):
    make()
    table = pd.read_csv(out / "table.csv")
    assert tuple(table.columns) == COLUMNS
    assert list(table.image) == ["crack/00000.png", "dent/00001.png", "crack/00002.png", "dent/00003.png"]
    assert list(table["mask"]) == [f"masks/{name}" for name in table.image]
    assert (table.seed == 0).all()
    # A square of 64 of 32 * 48 pixels, in which the map is 0.9.
    assert table.defect_share.tolist() == pytest.approx([64 / 1536] * 4)
    assert table.mean_map.tolist() == pytest.approx([0.9 * 64 / 1536] * 4)
    assert all(Path(path).is_file() for path in table.source)


def test_the_mask_is_where_the_image_differs_from_its_source(make, out: Path):
    make()
    for row in read_table(out).itertuples():
        mask = np.array(Image.open(out / row.mask))
        image = np.array(Image.open(out / row.image)).astype(int)
        normals = [np.array(Image.open(path)).astype(int) for path in (out / "good").iterdir()]
        assert set(np.unique(mask)) == {0, 255}
        assert any((image == normal)[mask == 0].all() for normal in normals)


def test_defect_folder_reads_it(make, out: Path):
    make(num=6)
    data = DefectFolder(out, num_workers=0)
    data.setup()
    table = data.test_data.samples
    assert sorted(table.defect_type[table.label_index == 1]) == ["crack"] * 3 + ["dent"] * 3
    item = data.test_data[int(np.flatnonzero(table.label_index)[0])]
    assert item.gt_mask.sum() == 64


def test_anomalib_reads_it(make, out: Path):
    make(num=6)
    types = ["crack", "dent"]
    data = Folder("made", "good", out, types, mask_dir=[f"masks/{name}" for name in types], num_workers=0, seed=0)
    data.setup()
    assert data.test_data.samples.label_index.sum() + data.val_data.samples.label_index.sum() == 6


def test_it_gives_training_images(make, out: Path):
    make(restored=True)
    defects = synthetic_defects(out)
    assert sorted(defects.samples.defect_type) == ["crack", "crack", "dent", "dent"]
    assert all(defects[row].gt_mask.sum() == 64 for row in range(4))
    assert len(normal_images(out, "_restored")) == 4
    assert not normal_images(out).samples.label_index.any()


def test_restored_images_are_there_only_if_asked_for(make, out: Path):
    make()
    with pytest.raises(MissingDataError, match=r"_restored holds no image; make them: .*--restored"):
        normal_images(out, "_restored")


def test_an_image_depends_on_seed_and_number_alone(make, tmp_path: Path):
    make(tmp_path / "few", num=2)
    make(tmp_path / "many", num=5)
    make(tmp_path / "other", num=5, seed=1)
    few, many, other = (files(tmp_path / name) for name in ("few", "many", "other"))
    images = [name for name in few if name.startswith(("crack", "dent", "masks"))]
    assert len(images) == 4
    assert all(few[name] == many[name] for name in images)
    assert any(many[name] != other[name] for name in images)


def test_more_images_are_added_to_a_folder(make, out: Path, tmp_path: Path, gan: SquareGan):
    make(num=2)
    gan.controls.clear()
    make(num=5)
    assert len(gan.controls) == 3
    make(tmp_path / "at once", num=5)
    assert files(out) == files(tmp_path / "at once")


def test_a_finished_run_makes_nothing_anew(make, out: Path, gan: SquareGan):
    rows = make()
    gan.controls.clear()
    assert make() == rows
    assert make(num=2) == rows[:2]
    assert not gan.controls


@pytest.mark.parametrize("broken", ["half a row", "an image without its row", "no image", "no mask"])
def test_a_killed_run_goes_on_and_ends_as_the_undisturbed_one(make, out: Path, tmp_path: Path, broken: str):
    make(tmp_path / "undisturbed")
    make()
    table = out / "table.csv"
    lines = table.read_text().splitlines(keepends=True)
    if broken == "half a row":
        table.write_text("".join(lines)[:-10])
        (out / "dent" / ".00003.png.part").write_bytes(b"half")
    elif broken == "an image without its row":
        table.write_text("".join(lines[:-1]))
        (out / "masks" / "dent" / "00003.png").unlink()
    else:
        (out / ("" if broken == "no image" else "masks") / "dent" / "00003.png").unlink()
    make()
    assert files(out) == files(tmp_path / "undisturbed")


def test_one_category_or_several_at_once(make, out: Path, gan: SquareGan):
    make(num=2, category="dent")
    assert {row.category for row in read_table(out).itertuples()} == {"dent"}
    assert gan.controls[0].flatten().tolist() == [0, 1]
    make(out.with_name("both"), num=1, category="crack+dent")
    assert gan.controls[-1].flatten().tolist() == [1, 1]
    data = DefectFolder(out.with_name("both"), num_workers=0)
    data.setup()
    assert "crack+dent" in set(data.test_data.samples.defect_type)


def test_a_region_is_the_control_map_of_the_category(make, tmp_path: Path, gan: SquareGan):
    region = np.zeros(SIZE, np.uint8)
    region[:16, :24] = 200
    Image.fromarray(region).save(tmp_path / "region.png")
    make(num=1, category="dent", region=tmp_path / "region.png")
    control = gan.controls[0]
    assert control.shape == (1, 2, *SIZE)
    assert not control[0, 0].any()
    torch.testing.assert_close(control[0, 1], torch.from_numpy(region > 0).float())


def test_an_image_without_a_defect_is_drawn_anew(make, gan: SquareGan):
    gan.blind = 0.5
    rows = make(num=8)
    assert all(row["image"] for row in rows)
    assert len(gan.controls) > 8


def test_a_generator_that_makes_nothing_is_told_of(make, gan: SquareGan, out: Path):
    gan.blind = 1
    with pytest.raises(InvalidInputError, match=r"makes no usable defects: its maps have a mean of 0, .*train longer"):
        make(num=50)
    assert len(gan.controls) == 100  # ten images, each tried ten times
    with pytest.raises(InvalidInputError, match="has no image with a defect"):
        read_table(out)


# Bad input


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"category": "rust"}, "there is no category 'rust'; the checkpoint knows crack, dent"),
        ({"category": "crack+rust"}, "there is no category 'rust'"),
        ({"category": ""}, "there is no category ''; the checkpoint knows"),
        ({"num": 0}, "--num is 0; it must be 1 or more"),
        ({"seed": -1}, "--seed is -1; it must be 0 or more"),
        ({"threshold": 1.0}, "--threshold is 1.0; it must be"),
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
        (SIZE[::-1], 0, "is all black; mark where defects are to be"),
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
    before = files(out)
    with pytest.raises(InvalidInputError, match=f"out is in use: its images were made with {line}; give another"):
        make(**request_)
    assert files(out) == before


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
    assert files(out) == files(tmp_path / "undisturbed")


def test_a_disk_that_is_full_for_the_row_takes_the_image_back(make, out: Path, monkeypatch: pytest.MonkeyPatch):
    make(num=1)
    before = files(out)
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
    after = {name: data for name, data in files(out).items() if not name.startswith("good/")}
    assert after == {name: data for name, data in before.items() if not name.startswith("good/")}


def test_a_disk_that_is_full_from_the_start_leaves_nothing(make, out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "write_bytes", limited_disk(0))
    with pytest.raises(InvalidInputError, match="No space left on device"):
        make()
    assert not out.exists()


# The command


@pytest.mark.usefixtures("gan")
def test_the_command_prints_what_came_out(
    checkpoint: Path, data: DefectFolder, out: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--ckpt", str(checkpoint), "--data", "DefectFolder", "--root", str(data.root), "--out", str(out)]
    assert cli.main(["synthesize", *words, "--data.num_workers", "0", "--num", "3", "--seed", "7"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"crack .* 2 .* 0 .* 0.0375 .* 4.17 %", printed)
    assert printed.endswith(f"data set: {out}\n")
    assert json.loads((out / "settings.json").read_text())["seed"] == 7


@pytest.mark.usefixtures("gan")
def test_the_command_reports_on_what_came_out(
    checkpoint: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for number in range(30):
        write_image(tmp_path / "real" / ("good", "crack", "dent")[number % 3] / f"{number}.png")
    tiny = Extractor("test_resnet", ResizedFeatures("test_resnet", pre_trained=False).eval())
    monkeypatch.setattr(features, "make_extractor", lambda _: tiny)
    words = ["--ckpt", str(checkpoint), "--data", "DefectFolder", "--root", str(tmp_path / "real"), "--out", str(out)]
    assert cli.main(["synthesize", *words, "--data.num_workers=0", "--num", "2", "--report", "test_resnet"]) == 0
    assert capsys.readouterr().out.endswith(f"report: {out}/_report/report.md\n")
    data = DefectFolder(out, num_workers=0)
    data.setup()  # the report does not disturb
    assert {"crack", "dent"} == set(data.test_data.samples.defect_type) - {"good"}


@pytest.mark.usefixtures("gan")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--category", "rust"], "there is no category 'rust'; the checkpoint knows crack, dent"),
        (
            ["--data", "DefectFolders"],
            r"there is no data module 'DefectFolders'; did you mean DefectFolder or Folder\?",
        ),
        (["--colour", "x"], r"DefectFolder cannot be set up \(.*--data.colour x\); .*"),
        (["--num", "0"], "--num is 0; it must be 1 or more"),
        (["--report", "no_net"], r"timm gives no model 'no_net' with its weights \(Unknown model.*"),
    ],
)
def test_the_command_names_what_cannot_be_in_one_line(
    words: list[str],
    line: str,
    checkpoint: Path,
    data: DefectFolder,
    out: Path,
    capsys: pytest.CaptureFixture[str],
):
    given = ["--ckpt", str(checkpoint), "--data", "DefectFolder", "--root", str(data.root), "--out", str(out)]
    assert cli.main(["synthesize", *given, *words]) == 1
    assert re.fullmatch(f"error: {line}\n", capsys.readouterr().err)
    assert not out.exists()
