"""Components of ``anomalib-defects inspect``: reading images, checking models and writing parts."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import pandas as pd
import pytest
import torch
from anomalib.data.utils import read_image as read_as_anomalib
from bright_graph import bright_graph
from image_samples import SHAPE, TURNED
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.data.datasets.crack_forest import CrackForestDataset
from anomalib_defect_plugins.inference.inspect_folder import image_paths
from anomalib_defect_plugins.inference.openvino import Inspector
from anomalib_defect_plugins.inference.predictor import InspectSettings
from anomalib_defect_plugins.inference.resumable_table import (
    LITTLE_RANGE,
    ROWS_PER_PART,
    InspectionRow,
    ResumableTable,
    schema,
)


def save(path: Path, pixels: npt.NDArray[Any]) -> str:
    Image.fromarray(pixels).save(path)
    return str(path)


def grey(path: Path, value: int, height: int = 6, width: int = 8) -> str:
    return save(path, np.full((height, width, 3), value, np.uint8))


def inspect(
    model: openvino.Model, paths: list[str], settings: InspectSettings, size: tuple[int, int] = (6, 8)
) -> list[InspectionRow]:
    numbers, rows = zip(*Inspector(model, settings, size).inspect(enumerate(paths)), strict=True)
    assert list(numbers) == list(range(len(paths)))
    return list(rows)


def test_images_are_read_as_anomalib_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colour = save(tmp_path / "colour.png", rng.integers(0, 256, (5, 7, 3), np.uint8))
    grey_one = save(tmp_path / "grey.png", rng.integers(0, 256, (5, 7), np.uint8))
    for path in (colour, grey_one):
        image, width, height = read_image(path)
        assert (width, height) == (7, 5)
        assert image.dtype == np.float32
        expected = torch.as_tensor(read_as_anomalib(path, as_tensor=True))
        np.testing.assert_allclose(image, expected.numpy(), atol=1e-7)


def test_images_are_read_as_the_data_sets_of_this_package_read_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    deep = save(tmp_path / "deep.png", rng.integers(0, 65536, (5, 7), np.uint16))
    transparent = save(tmp_path / "transparent.png", rng.integers(0, 256, (5, 7, 4), np.uint8))
    for path in (deep, transparent):
        expected = CrackForestDataset.load_image(CrackForestDataset.__new__(CrackForestDataset), path).numpy()
        np.testing.assert_allclose(read_image(path)[0], expected, atol=1e-7)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_rows_are_in_the_order_of_the_files_for_all_sizes_and_errors(tmp_path: Path, batch: int) -> None:
    paths = [grey(tmp_path / f"{value}.png", value) for value in (0, 51, 102)]
    paths += [grey(tmp_path / "large.png", 153, 20, 10), str(tmp_path / "missing.png"), grey(tmp_path / "204.png", 204)]
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    rows = inspect(bright_graph(), [*paths, str(tmp_path / "broken.jpg"), paths[2]], InspectSettings(batch=batch))
    assert [row.get("score") for row in rows] == pytest.approx([0, 0.2, 0.4, 0.6, None, 0.8, None, 0.4])
    assert [row.get("pred_label") for row in rows] == [0, 0, 0, 1, None, 1, None, 0]
    assert rows[4]["error"] == "the file does not exist"
    assert "cannot identify image file" in rows[6]["error"]
    assert (rows[3]["width"], rows[3]["height"]) == (10, 20)
    assert all(row["seconds"] > 0 for row in rows)


def test_the_size_of_a_turned_image_is_that_of_the_picture(tmp_path: Path) -> None:
    path = TURNED["jpeg"](6).create(tmp_path)
    (row,) = inspect(bright_graph(), [str(path)], InspectSettings())
    assert (row["height"], row["width"]) == SHAPE


@pytest.mark.parametrize(("value", "marked"), [(15, True), (16, False), (128, False), (249, False), (251, True)])
def test_almost_black_and_white_images_are_marked_beside_the_table(tmp_path: Path, value: int, marked: bool) -> None:
    (row,) = inspect(bright_graph(), [grey(tmp_path / "a.png", value)], InspectSettings())
    assert (LITTLE_RANGE in row) == marked
    assert LITTLE_RANGE not in schema().names


def test_images_in_formats_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.jfif", "b.GIF", "c.heic", "sub/d.cr2", "notes.txt"):
        (tmp_path / name).touch()
    assert [Path(path).name for path in image_paths(tmp_path)] == ["a.jfif", "b.GIF"]
    assert capsys.readouterr().err == (
        f"warning: 2 files are left out, the first is {tmp_path / 'c.heic'}: that format is not read; convert such "
        "images to PNG or TIFF\n"
    )


def test_a_threshold_replaces_that_of_the_model(tmp_path: Path) -> None:
    paths = [grey(tmp_path / f"{value}.png", value) for value in (51, 204)]
    assert [row["pred_label"] for row in inspect(bright_graph(), paths, InspectSettings(threshold=0.1))] == [1, 1]
    assert [
        row["pred_label"] for row in inspect(bright_graph("pred_score"), paths, InspectSettings(threshold=0.9))
    ] == [0, 0]


@pytest.mark.parametrize(("value", "threshold", "label"), [(51, 0.2, 1), (51, 0.2000001, 0), (178, 178 / 255, 1)])
def test_a_score_at_the_threshold_is_defective(tmp_path: Path, value: int, threshold: float, label: int) -> None:
    # 51 / 255 is 0.20000000298 in single precision.
    (row,) = inspect(bright_graph(), [grey(tmp_path / "a.png", value)], InspectSettings(threshold=threshold))
    assert row["pred_label"] == label
    again = InspectSettings(threshold=row["score"])  # as copied from the table
    assert inspect(bright_graph(), [grey(tmp_path / "a.png", value)], again)[0]["pred_label"] == 1


def test_values_beyond_the_grey_ones_are_written_as_floats(tmp_path: Path) -> None:
    path = save(tmp_path / "image.png", np.array([[[255, 0, 0], [255, 255, 255]]], np.uint8))
    inspect(bright_graph(scale=-300), [path], InspectSettings(maps=tmp_path), (1, 2))
    with Image.open(tmp_path / "image.tiff") as image:
        np.testing.assert_allclose(np.array(image), [[-100, -300]], rtol=1e-6)


def test_maps_of_a_graph_without_threshold_are_written_as_floats(tmp_path: Path) -> None:
    path = save(tmp_path / "image.png", np.array([[[255, 0, 0], [255, 255, 255]]], np.uint8))
    settings = InspectSettings(threshold=1e-13, maps=tmp_path)
    (row,) = inspect(bright_graph(scale=1e-12, threshold=float("nan")), [path], settings, (1, 2))
    assert row["pred_label"] == 1
    with Image.open(tmp_path / "image.tiff") as image:
        np.testing.assert_allclose(np.array(image), [[1e-12 / 3, 1e-12]], rtol=1e-6)


def test_maps_are_written_as_grey_images_named_after_the_images(tmp_path: Path) -> None:
    path = save(tmp_path / "image.png", np.array([[[255, 0, 0], [255, 255, 255]]], np.uint8))
    inspect(bright_graph(), [path], InspectSettings(maps=tmp_path / "maps"), (1, 2))
    with Image.open(tmp_path / "maps/image.png") as image:
        assert np.array(image).tolist() == [[85, 255]]  # a third of 255, and all of it


def test_an_image_that_the_model_fails_on_is_a_row_with_an_error_and_the_others_are_inspected(tmp_path: Path) -> None:
    paths = [grey(tmp_path / "fine.png", 51), grey(tmp_path / "narrow.png", 51, 6, 2)] * 5
    rows = inspect(bright_graph(min_side=4), paths, InspectSettings())
    assert [row.get("score") for row in rows[::2]] == pytest.approx([0.2] * 5)
    assert all(row["error"].startswith("the model fails: ") for row in rows[1::2])


def test_images_are_resized_for_a_graph_of_fixed_size(tmp_path: Path) -> None:
    # Columns of 0 and 1, twice as wide as the images of the graph: each pair becomes a grey pixel.
    path = save(tmp_path / "stripes.png", np.tile(np.array([[0, 255]], np.uint8), (4, 4)))
    (row,) = inspect(bright_graph(size=(2, 4)), [path], InspectSettings(maps=tmp_path), (4, 8))
    assert (row["width"], row["height"]) == (8, 4)
    assert 0.4 < row["score"] < 0.7


def test_an_image_of_too_many_pixels_is_a_row_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in training, Pillow's limit is twice this number.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 23.5)
    path = grey(tmp_path / "bomb.png", 51)  # 48 pixels
    (row,) = inspect(bright_graph(), [path], InspectSettings())
    assert row["error"] == "the image has 48 pixels, more than the limit; pass --max-pixels 48 to inspect it"


@pytest.mark.parametrize(("own", "max_pixels", "inspected"), [(24, None, True), (30, None, True), (10, 48, True),
                                                              (10, 47, False), (100, 47, False)])  # fmt: skip
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_images_up_to_the_limit_are_inspected_without_a_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    own: int,
    max_pixels: int | None,
    inspected: bool,
    suffix: str,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", own)
    path = save(tmp_path / f"large.{suffix}", np.full((6, 8), 51, np.uint16 if suffix == "tif" else np.uint8))
    (row,) = inspect(bright_graph(), [path], InspectSettings(max_pixels=max_pixels))
    assert ("error" not in row) == inspected
    assert not recwarn.list
    assert own == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("model", "settings", "line"),
    [
        (bright_graph("anomaly_map"), InspectSettings(), "the model has no output pred_score"),
        (bright_graph("pred_score"), InspectSettings(), "no output pred_label; set --threshold"),
        (
            bright_graph(threshold=float("nan")),
            InspectSettings(),
            "no threshold, .* returns raw scores; pass --threshold",
        ),
        (
            bright_graph("pred_score", "pred_label"),
            InspectSettings(maps=Path("maps")),
            "no output anomaly_map; leave --maps and --pictures out",
        ),
        (bright_graph(batch=1), InspectSettings(batch=4), "takes 1 image at once, not 4; use --batch 1"),
    ],
)
def test_a_model_that_does_not_fit_the_settings_is_rejected(
    model: openvino.Model, settings: InspectSettings, line: str
) -> None:
    with pytest.raises(InvalidInputError, match=line):
        Inspector(model, settings)


def test_a_folder_is_searched_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/2.JPG", "a/10.jpg", "c/d/e.tif", ".hidden/x.png", ".x.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths = [Path(path).relative_to(tmp_path).as_posix() for path in image_paths(tmp_path)]
    assert paths == ["a/10.jpg", "a/2.JPG", "b.png", "c/d/e.tif"]


def test_a_list_has_one_path_per_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"b.png\r\n\n  \na image.png\nb.png")
    assert list(image_paths(tmp_path / "list.txt")) == ["b.png", "a image.png", "b.png"]


@pytest.mark.parametrize("name", ["empty", "empty.txt", "nothing.txt"])
def test_a_folder_or_list_without_images_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").touch()
    with pytest.raises(MissingDataError, match=rf"{name} (contains no images|\(No such file)"):
        list(image_paths(tmp_path / name))


def test_parts_are_joined_in_order_and_deleted(tmp_path: Path) -> None:
    paths = [f"{number}.png" for number in range(2 * ROWS_PER_PART + 3)]
    with ResumableTable(tmp_path / "out.parquet", {}).open(paths) as table:
        for number, images in reversed(list(table.missing_parts())):
            rows = [{"path": path, "error": "e"} if index else {"path": path} for index, path in images]
            table.write_part(number, rows)
        assert table.join() == {"images": 2 * ROWS_PER_PART + 3, "defective": 0, "error": 2 * ROWS_PER_PART + 2}
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    assert list(pd.read_parquet(tmp_path / "out.parquet").path) == paths


def test_parts_of_another_run_are_rejected_with_what_differs(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    settings: dict[str, Any] = {"model": "1", "--batch": 1}
    with ResumableTable(out, settings).open(["a.png"]):
        pass
    cases: list[tuple[dict[str, Any], list[str], str]] = [
        ({"model": "2"}, ["a.png"], "with another model; continue with the same, delete that folder to start again"),
        ({"--batch": 2}, ["b.png"], "with another --batch and list of files; "),
    ]
    for others, paths, line in cases:
        with pytest.raises(InvalidInputError, match=line), ResumableTable(out, settings | others).open(paths):
            pass


def test_parts_whose_folder_is_deleted_are_not_written_elsewhere(tmp_path: Path) -> None:
    table = ResumableTable(tmp_path / "out.parquet", {})
    with table.open(["a.png"]):
        shutil.rmtree(table.folder)
        with pytest.raises(InvalidInputError, match=r"out\.parquet\.parts was deleted while it was in use; run"):
            table.write_part(0, [{"path": "a.png"}])
    assert not table.folder.exists()


def test_parts_are_locked_by_one_process_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with (
        ResumableTable(out, {}).open(["a.png"]),
        pytest.raises(InvalidInputError, match="in use by another process"),
        ResumableTable(out, {}).open(["a.png"]),
    ):
        pass


def test_an_existing_table_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.parquet").touch()
    with pytest.raises(InvalidInputError, match="exists; choose another file"):
        ResumableTable(tmp_path / "out.parquet", {})


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_undecodable_file_names_are_inspected(tmp_path: Path) -> None:
    name = "caf\udce9.png"  # a byte of another encoding, as Python escapes it
    Path(grey(tmp_path / "plain.png", 51)).rename(tmp_path / name)
    with ResumableTable(tmp_path / "out.parquet", {}).open(image_paths(tmp_path)) as table:
        for number, images in table.missing_parts():
            inspector = Inspector(bright_graph(), InspectSettings())
            table.write_part(number, [row for _, row in inspector.inspect(images)])
        table.join()
    results = pd.read_parquet(tmp_path / "out.parquet")
    assert results.path[0] == str(tmp_path / "caf\ufffd.png")
    assert results.score[0] == pytest.approx(0.2)
