"""Inspection of images tile by tile and within a region of interest."""

import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import tifffile
from bright_graph import bright_graph
from PIL import Image

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.core.image_rows import write_grey_png
from anomalib_defect_plugins.core.tiling import grid
from anomalib_defect_plugins.inference import whole_image
from anomalib_defect_plugins.inference.openvino import Inspector, InspectSettings
from anomalib_defect_plugins.inference.resumable_table import InspectionRow

SHAPE = (75, 90)
TILES = {"tile": 32, "overlap": 8}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A dark image with one bright pixel."""
    pixels = np.random.default_rng(0).integers(0, 100, (*SHAPE, 3), np.uint8)
    pixels[50, 70] = 204
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def inspect(path: Path, model: openvino.Model | None = None, **settings: Any) -> InspectionRow:
    inspector = Inspector(model or bright_graph(), InspectSettings(**settings))
    ((_, row),) = inspector.inspect([(3, str(path))])
    return row


def read_map(folder: Path) -> Any:
    (path,) = folder.iterdir()
    assert path.stem in {"image", "small"}
    return tifffile.imread(path) if path.suffix == ".tiff" else np.asarray(Image.open(path)) / 255


@pytest.mark.parametrize(("batch", "strip"), [(1, 4096), (4, 4096), (4, 20)])
def test_the_map_of_tiles_is_that_of_the_whole_image(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, batch: int, strip: int
) -> None:
    monkeypatch.setattr(whole_image, "STRIP", strip)
    (tmp_path / "maps").mkdir()
    row = inspect(image, maps=tmp_path / "maps", batch=batch, **TILES)
    assert (row["height"], row["width"]) == SHAPE
    assert row["score"] == pytest.approx(0.8)
    assert row["pred_label"] == 1
    np.testing.assert_allclose(read_map(tmp_path / "maps"), read_image(image)[0].mean(0), atol=0.51 / 255)


def test_maps_of_raw_values_are_written_without_rounding(tmp_path: Path, image: Path) -> None:
    (tmp_path / "maps").mkdir()
    graph = bright_graph("pred_score", "anomaly_map", scale=3)
    row = inspect(image, graph, maps=tmp_path / "maps", threshold=2.0, **TILES)
    assert row["score"] == pytest.approx(2.4)
    np.testing.assert_allclose(read_map(tmp_path / "maps"), 3 * read_image(image)[0].mean(0), rtol=1e-5)


def test_tiles_are_resized_for_a_graph_of_fixed_size(tmp_path: Path, image: Path) -> None:
    (tmp_path / "maps").mkdir()
    inspect(image, bright_graph(size=(64, 64), batch=1), maps=tmp_path / "maps", **TILES)
    assert read_map(tmp_path / "maps").shape == SHAPE


def test_a_small_image_is_one_tile(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), (51, 51, 51)).save(tmp_path / "small.png")
    (tmp_path / "maps").mkdir()
    row = inspect(tmp_path / "small.png", bright_graph(min_side=32), maps=tmp_path / "maps", **TILES)
    assert row["score"] == pytest.approx(0.2)
    assert read_map(tmp_path / "maps").shape == (10, 20)


def test_every_tile_is_inferred_once_if_no_map_is_written(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_image, "STRIP", 20)
    inspector = Inspector(bright_graph(), InspectSettings(batch=1, **TILES))
    tiles = []
    infer = inspector._infer_tiles
    monkeypatch.setattr(inspector, "_infer_tiles", lambda batch: tiles.append(batch) or infer(batch))
    ((_, row),) = inspector.inspect([(0, str(image))])
    assert row["score"] == pytest.approx(0.8)
    assert len(tiles) == len(list(grid(*SHAPE, TILES["tile"], TILES["overlap"])))


@pytest.mark.parametrize(("tiles", "strip"), [({}, 4096), (TILES, 4096), (TILES, 20)])
def test_what_is_outside_the_region_changes_no_bit(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, tiles: dict[str, int], strip: int
) -> None:
    monkeypatch.setattr(whole_image, "STRIP", strip)
    region = np.zeros(SHAPE, np.uint8)
    region[:40, 20:60] = 255
    Image.fromarray(region).save(tmp_path / "roi.png")
    pixels = np.asarray(Image.open(image)).copy()
    results = []
    for name, value in (("a", 0), ("b", 255)):
        pixels[region == 0] = value
        Image.fromarray(pixels).save(tmp_path / "image.png")
        (tmp_path / name).mkdir()
        row = inspect(image, maps=tmp_path / name, roi_mask=tmp_path / "roi.png", **tiles)
        results.append((row["score"], row["pred_label"], read_map(tmp_path / name)))
    assert results[0][:2] == results[1][:2]
    assert np.array_equal(results[0][2], results[1][2])
    assert results[0][0] < 0.5
    inside = results[0][2][region > 0]
    assert (results[0][2][region == 0] == inside.min()).all()


def test_regions_of_single_images_are_found_by_name(tmp_path: Path, image: Path) -> None:
    region = np.zeros(SHAPE, np.uint8)
    region[45:55, 65:75] = 255
    (tmp_path / "roi").mkdir()
    Image.fromarray(region).save(tmp_path / "roi/image.png")
    assert inspect(image, roi_mask=tmp_path / "roi", **TILES)["score"] == pytest.approx(0.8)
    Image.fromarray(255 - region).save(tmp_path / "roi/image.png")
    (tmp_path / "other").mkdir()
    assert "has no region of" in inspect(image, roi_mask=tmp_path / "other", **TILES)["error"]


def test_a_broken_file_is_a_row_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "maps").mkdir()
    assert "cannot identify image file" in inspect(tmp_path / "broken.png", maps=tmp_path / "maps", **TILES)["error"]
    write_grey_png(tmp_path / "cut.png", 90, 75, iter([np.zeros((30, 90), np.uint8)]))
    row = inspect(tmp_path / "cut.png", maps=tmp_path / "maps", **TILES)
    assert row["error"] == "image file is truncated"
    assert not list((tmp_path / "maps").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile", "4"], "--tile is 4; tiles must have a side of 16 pixels or more"),
        (["--tile", "64", "--overlap", "64"], "--overlap is 64; it must be from 0 to half of the size, 32"),
        (["--overlap", "8"], "--overlap 8 is that of tiles; add --tile with their size"),
        (["--roi-mask", "none.png"], "none.png not found; pass a mask"),
    ],
)
def test_wrong_options_end_in_one_line(
    tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    openvino.save_model(bright_graph(), tmp_path / "model.xml")
    command = ["inspect", str(tmp_path / "model.xml"), str(image.parent), "--out", str(tmp_path / "o.parquet")]
    assert main([*command, *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


PROGRAM = """
import resource, sys
from pathlib import Path
from anomalib_defect_plugins.core.openvino_core import openvino_core
import openvino
from anomalib_defect_plugins.core.tiling import grid
from anomalib_defect_plugins.inference import whole_image
from anomalib_defect_plugins.inference.openvino import Inspector, InspectSettings
settings = InspectSettings(tile=256, overlap=64, maps=Path(sys.argv[3]), batch=4)
inspector = Inspector(openvino_core().read_model(sys.argv[1]), settings, (256, 256), 1)
((_, row),) = inspector.inspect([(0, sys.argv[2])])
assert "error" not in row, row
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [[(2048, 1024), (2048, 16384)], pytest.param([(4096, 512), (16384, 512)], marks=pytest.mark.long)],
    ids=["high", "wide"],
)
def test_memory_does_not_depend_on_the_size_of_the_image(tmp_path: Path, sizes: list[tuple[int, int]]) -> None:
    openvino.save_model(bright_graph(), tmp_path / "model.xml", compress_to_fp16=False)
    peaks = []
    for width, height in sizes:
        rows = (np.random.default_rng(0).integers(0, 99, (256, width), np.uint8) for _ in range(height // 256))
        write_grey_png(tmp_path / "large.png", width, height, chain(rows))
        maps = tmp_path / f"maps{width}x{height}"
        maps.mkdir()
        arguments = [str(path) for path in (tmp_path / "model.xml", tmp_path / "large.png", maps)]
        run = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout))
    # At once, the tall image and its map would take 500 MB, and two bands of the wide one 130 MB more.
    assert peaks[1] - peaks[0] < 30_000
