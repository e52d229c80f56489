"""Reading images, checking models and keeping parts: what ``inspect`` is made of."""

import sys
from pathlib import Path

import numpy as np
import openvino
import pandas as pd
import pytest
from anomalib.data.utils import read_image as read_as_anomalib
from bright_graph import bright_graph
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.data.datasets.crack_forest import CrackForestDataset
from anomalib_defect_plugins.inference import inspect_folder as command
from anomalib_defect_plugins.inference.openvino import Inspector, Settings
from anomalib_defect_plugins.inference.resumable_table import ROWS, Parts


def save(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels).save(path)
    return str(path)


def grey(path: Path, value: int, height: int = 6, width: int = 8) -> str:
    return save(path, np.full((height, width, 3), value, np.uint8))


def look(model: openvino.Model, paths: list[str], settings: Settings, size: tuple[int, int] = (6, 8)) -> list[dict]:
    numbers, rows = zip(*Inspector(model, settings, size).inspect(enumerate(paths)), strict=True)
    assert list(numbers) == list(range(len(paths)))
    return list(rows)


def test_images_are_read_as_anomalib_reads_them(tmp_path: Path):
    rng = np.random.default_rng(0)
    colour = save(tmp_path / "colour.png", rng.integers(0, 256, (5, 7, 3), np.uint8))
    grey_one = save(tmp_path / "grey.png", rng.integers(0, 256, (5, 7), np.uint8))
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, which anomalib does not do
    Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).save(turned, exif=exif)
    for path in (colour, grey_one, str(turned)):
        image, width, height = read_image(path)
        assert (width, height) == (7, 5)
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, read_as_anomalib(path, as_tensor=True).numpy(), atol=1e-7)


def test_images_are_read_as_the_data_sets_here_read_them(tmp_path: Path):
    rng = np.random.default_rng(0)
    deep = save(tmp_path / "deep.png", rng.integers(0, 65536, (5, 7), np.uint16))
    clear = save(tmp_path / "clear.png", rng.integers(0, 256, (5, 7, 4), np.uint8))
    for path in (deep, clear):
        expected = CrackForestDataset.load_image(None, path).numpy()
        np.testing.assert_allclose(read_image(path)[0], expected, atol=1e-7)


def test_the_suffixes_of_images_are_those_of_anomalib():
    assert set(IMG_EXTENSIONS) == command.SUFFIXES


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_rows_have_the_order_of_the_files_whatever_their_sizes_and_errors(tmp_path: Path, batch: int):
    paths = [grey(tmp_path / f"{value}.png", value) for value in (0, 51, 102)]
    paths += [grey(tmp_path / "large.png", 153, 20, 10), str(tmp_path / "gone.png"), grey(tmp_path / "204.png", 204)]
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    rows = look(bright_graph(), [*paths, str(tmp_path / "broken.jpg"), paths[2]], Settings(batch=batch))
    assert [row.get("score") for row in rows] == pytest.approx([0, 0.2, 0.4, 0.6, None, 0.8, None, 0.4])
    assert [row.get("verdict") for row in rows] == [0, 0, 0, 1, None, 1, None, 0]
    assert rows[4]["error"] == "the file does not exist"
    assert "cannot identify image file" in rows[6]["error"]
    assert (rows[3]["width"], rows[3]["height"]) == (10, 20)
    assert all(row["seconds"] > 0 for row in rows)


def test_a_threshold_takes_the_place_of_the_models_own(tmp_path: Path):
    paths = [grey(tmp_path / f"{value}.png", value) for value in (51, 204)]
    assert [row["verdict"] for row in look(bright_graph(), paths, Settings(threshold=0.1))] == [1, 1]
    assert [row["verdict"] for row in look(bright_graph("pred_score"), paths, Settings(threshold=0.9))] == [0, 0]


def test_maps_are_written_as_grey_images_named_by_row(tmp_path: Path):
    paths = [save(tmp_path / "image.png", np.array([[[255, 0, 0], [255, 255, 255]]], np.uint8))] * 2
    look(bright_graph(), paths, Settings(maps=tmp_path), (1, 2))
    with Image.open(tmp_path / "00000001.png") as image:
        assert np.array(image).tolist() == [[85, 255]]  # a third of 255, and all of it


def test_an_image_that_the_model_fails_on_is_a_row_and_the_next_ones_are_well(tmp_path: Path):
    paths = [grey(tmp_path / "fine.png", 51), grey(tmp_path / "narrow.png", 51, 6, 2)] * 5
    rows = look(bright_graph(least_side=4), paths, Settings())
    assert [row.get("score") for row in rows[::2]] == pytest.approx([0.2] * 5)
    assert all(row["error"].startswith("the model fails: ") for row in rows[1::2])


def test_a_graph_of_one_size_gets_images_of_that_size(tmp_path: Path):
    # Columns of 0 and 1, twice as wide as the graph: each pair is a grey pixel.
    path = save(tmp_path / "stripes.png", np.tile(np.array([[0, 255]], np.uint8), (4, 4)))
    (row,) = look(bright_graph(size=(2, 4)), [path], Settings(maps=tmp_path), (4, 8))
    assert (row["width"], row["height"]) == (8, 4)
    assert 0.4 < row["score"] < 0.7


def test_an_image_of_too_many_pixels_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    (row,) = look(bright_graph(), [grey(tmp_path / "bomb.png", 51)], Settings())
    assert "exceeds limit of 30 pixels" in row["error"]


@pytest.mark.parametrize(
    ("model", "settings", "line"),
    [
        (bright_graph("anomaly_map"), Settings(), "the model has no output pred_score"),
        (bright_graph("pred_score"), Settings(), "no output pred_label; give --threshold"),
        (
            bright_graph("pred_score", "pred_label"),
            Settings(maps=Path("maps")),
            "no output anomaly_map; leave --maps out",
        ),
        (bright_graph(batch=1), Settings(batch=4), "takes 1 images at once, not 4; give --batch 1"),
    ],
)
def test_a_model_that_cannot_do_it_is_refused(model: openvino.Model, settings: Settings, line: str):
    with pytest.raises(InvalidInputError, match=line):
        Inspector(model, settings)


def test_a_folder_is_searched_in_sorted_order(tmp_path: Path):
    for name in ("b.png", "a/2.JPG", "a/10.jpg", "c/d/e.tif", ".hidden/x.png", ".x.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [Path(path).relative_to(tmp_path).as_posix() for path in command._paths(tmp_path)]
    assert found == ["a/10.jpg", "a/2.JPG", "b.png", "c/d/e.tif"]


def test_a_list_has_a_path_a_line(tmp_path: Path):
    (tmp_path / "list.txt").write_bytes(b"b.png\r\n\n  \na image.png\nb.png")
    assert list(command._paths(tmp_path / "list.txt")) == ["b.png", "a image.png", "b.png"]


@pytest.mark.parametrize("name", ["empty", "empty.txt", "nothing.txt"])
def test_no_images_are_an_error(tmp_path: Path, name: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").touch()
    with pytest.raises(MissingDataError, match=rf"{name} (holds no image|\(No such file)"):
        list(command._paths(tmp_path / name))


def test_parts_are_joined_in_order_and_taken_away(tmp_path: Path):
    paths = [f"{number}.png" for number in range(2 * ROWS + 3)]
    with Parts(tmp_path / "out.parquet", {}).open(paths) as parts:
        for number, items in reversed(list(parts.missing())):
            parts.write(number, [{"path": path, "error": "e"} if index else {"path": path} for index, path in items])
        assert parts.join() == {"images": 2 * ROWS + 3, "defective": 0, "error": 2 * ROWS + 2}
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    assert list(pd.read_parquet(tmp_path / "out.parquet").path) == paths


def test_parts_of_another_run_are_refused_with_what_differs(tmp_path: Path):
    out = tmp_path / "out.parquet"
    settings = {"model": "1", "--batch": 1}
    with Parts(out, settings).open(["a.png"]):
        pass
    for others, paths, line in [
        ({"model": "2"}, ["a.png"], "with another model; go on with the same, delete that folder to start again"),
        ({"--batch": 2}, ["b.png"], "with another --batch and list of files; "),
    ]:
        with pytest.raises(InvalidInputError, match=line), Parts(out, settings | others).open(paths):
            pass


def test_parts_serve_one_process_at_a_time(tmp_path: Path):
    out = tmp_path / "out.parquet"
    with (
        Parts(out, {}).open(["a.png"]),
        pytest.raises(InvalidInputError, match="in use by another process"),
        Parts(out, {}).open(["a.png"]),
    ):
        pass


def test_an_existing_table_is_not_overwritten(tmp_path: Path):
    (tmp_path / "out.parquet").touch()
    with pytest.raises(InvalidInputError, match="exists; give another file"):
        Parts(tmp_path / "out.parquet", {})


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_odd_file_names_do_no_harm(tmp_path: Path):
    name = "caf\udce9.png"  # the byte of another encoding, as Python has it
    Path(grey(tmp_path / "plain.png", 51)).rename(tmp_path / name)
    with Parts(tmp_path / "out.parquet", {}).open(command._paths(tmp_path)) as parts:
        for number, items in parts.missing():
            parts.write(number, [row for _, row in Inspector(bright_graph(), Settings()).inspect(items)])
        parts.join()
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table.path[0] == str(tmp_path / "caf\ufffd.png")
    assert table.score[0] == pytest.approx(0.2)
