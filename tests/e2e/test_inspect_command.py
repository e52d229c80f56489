"""``anomalib-defects inspect`` from files to table: killed, on Ray, in constant memory, with an exported model."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pandas as pd
import pytest
import torch
from anomalib.data.utils import read_image
from bright_graph import bright_graph
from PIL import Image

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.inference.inspect_folder import inspect_images
from anomalib_defect_plugins.inference.predictor import InspectSettings
from anomalib_defect_plugins.inference.resumable_table import ROWS_PER_PART
from anomalib_defect_plugins.models.htpgan import HtpGan

PROGRAM = """
import argparse, resource, sys
from anomalib_defect_plugins.cli.inspect import add_parser
parser = argparse.ArgumentParser()
add_parser(parser.add_subparsers())
options = parser.parse_args(sys.argv[1:])
options.run(options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "torch" in sys.modules)
"""
"""Run the command alone, and print its peak memory and whether it has imported torch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.xml``, 32 images of 48 x 48, ``broken.png``, and a list of these images and a missing one."""
    folder = tmp_path_factory.mktemp("inspect")
    openvino.save_model(bright_graph(), folder / "model.xml", compress_to_fp16=False)
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(32):
        pixels = rng.integers(0, 100 + 4 * number, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number:02}.png")
    (folder / "images/broken.png").write_bytes((folder / "images/00.png").read_bytes()[:500])
    paths = [str(path) for path in sorted((folder / "images").iterdir())]
    (folder / "list.txt").write_text("\n".join([*paths, str(folder / "missing.png")]))
    return folder


def repeated(folder: Path, count: int, path: Path) -> Path:
    """Write a list of ``count`` images, which repeats those of the folder."""
    lines = (folder / "list.txt").read_text().splitlines()
    path.write_text("\n".join(lines[number % len(lines)] for number in range(count)))
    return path


def words(folder: Path, images: Path, out: Path, *more: str) -> list[str]:
    arguments = ["inspect", str(folder / "model.xml"), str(images), "--out", str(out), *more]
    return [sys.executable, "-c", PROGRAM, *arguments]


def results(table: Path) -> pd.DataFrame:
    """Return all columns that do not depend on the run."""
    return pd.read_parquet(table).drop(columns="seconds")


def test_a_folder_becomes_a_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = inspect_images(folder / "model.xml", folder / "images", tmp_path / "out.parquet", InspectSettings())
    table = pd.read_parquet(tmp_path / "out.parquet")
    statistics = ["brightness", "sharpness", "centre_x", "centre_y"]
    columns = ["path", "score", "pred_label", "width", "height", *statistics, "seconds", "error", "regions", "model"]
    assert list(table.columns) == columns
    assert table.path.tolist() == [str(folder / f"images/{number:02}.png") for number in range(32)] + [
        str(folder / "images/broken.png")
    ]
    assert (table.score[:32] > 0).all()
    assert (table.pred_label[:32] == (table.score[:32] > 0.5)).all()
    assert table.error[:32].isna().all()
    assert table.error[32]
    assert counts == {"images": 33, "defective": table.pred_label.sum(), "error": 1, "inspected": 33}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": "nothing.xml"}, r"nothing\.xml not found"),
        ({"model": "list.txt"}, r"list\.txt is not an OpenVINO graph"),
        ({"model": "images/broken.xml"}, r"broken\.xml cannot be read"),
        ({"images": "nothing"}, r"nothing \(No such file"),
        ({"images": "model.bin"}, r"model\.bin is not a text file"),
        ({"out": "list.txt"}, r"list\.txt exists|list\.txt is not a Parquet file"),
        ({"settings": InspectSettings(batch=0)}, r"--batch is 0"),
        ({"settings": InspectSettings(max_pixels=0)}, r"--max-pixels is 0; it must be 1 or more"),
        *(
            ({"settings": InspectSettings(threshold=value)}, rf"--threshold is {value}; it must be a finite number")
            for value in (float("nan"), float("inf"), float("-inf"))
        ),
        ({"settings": InspectSettings(threshold=1e39)}, r"--threshold is 1e\+39; it must be a finite number"),
    ],
)
def test_invalid_input_is_one_line(folder: Path, tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    (folder / "images/broken.xml").write_text("<net>")
    (folder / "images/broken.bin").touch()
    model, images = folder / changes.get("model", "model.xml"), folder / changes.get("images", "images")
    out = folder / changes["out"] if "out" in changes else tmp_path / "out.parquet"
    with pytest.raises((InvalidInputError, MissingDataError), match=line) as error:
        inspect_images(model, images, out, changes.get("settings", InspectSettings()))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.parquet").exists()


def test_a_graph_without_threshold_needs_one_and_its_scores_are_raw(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, maps = tmp_path / "model.xml", tmp_path / "maps"
    openvino.save_model(bright_graph(scale=1000, threshold=float("nan")), model, compress_to_fp16=False)
    images, out = folder / "images", tmp_path / "out.parquet"
    with pytest.raises(InvalidInputError, match=r"has no threshold, .*; pass --threshold with the score from which"):
        inspect_images(model, images, out, InspectSettings(maps=maps))
    assert not list(maps.iterdir())
    counts = inspect_images(model, images, out, InspectSettings(threshold=500, maps=maps))
    table = pd.read_parquet(out).iloc[:32]
    assert counts["defective"] == (table.score >= 500).sum() == table.pred_label.sum()
    assert 0 < counts["defective"] < 32
    assert len(list(maps.glob("*.tiff"))) == 32
    with Image.open(maps / "00.tiff") as image:
        assert np.array(image).max() > 1
    assert "model.xml has no threshold of its own: its scores are taken as raw" in capsys.readouterr().err


def test_the_options_of_the_command_reach_the_inspection(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["inspect", str(folder / "model.xml"), str(folder / "images"), "--out", str(tmp_path / "out.parquet")]
    assert main([*arguments, "--threshold", "nan"]) == 1
    assert capsys.readouterr().err == "error: --threshold is nan; it must be a finite number\n"
    assert main([*arguments, "--max-pixels", "2303", "--threshold", "0.1"]) == 0
    line = "the image has 2304 pixels, more than the limit; pass --max-pixels 2304 to inspect it"
    assert pd.read_parquet(tmp_path / "out.parquet").error.tolist()[:32] == [line] * 32


def test_a_folder_of_maps_that_is_not_empty_is_rejected(folder: Path, tmp_path: Path) -> None:
    settings = InspectSettings(maps=folder / "images")
    with pytest.raises(InvalidInputError, match="images is not empty; choose an empty or a new folder"):
        inspect_images(folder / "model.xml", folder / "images", tmp_path / "out.parquet", settings)


@pytest.mark.slow
def test_a_run_that_is_killed_repeatedly_ends_like_an_undisturbed_one(folder: Path, tmp_path: Path) -> None:
    images = repeated(folder, 4 * ROWS_PER_PART + 10, tmp_path / "list.txt")
    maps = {name: tmp_path / name / "maps" for name in ("whole", "killed")}
    outs = {name: tmp_path / f"{name}.parquet" for name in maps}
    inspect_images(folder / "model.xml", images, outs["whole"], InspectSettings(batch=3, maps=maps["whole"]))
    killed = words(folder, images, outs["killed"], "--batch", "3", "--maps", str(maps["killed"]))
    parts = tmp_path / "killed.parquet.parts"
    for finished in (1, 2):
        process = subprocess.Popen(killed, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while len(list(parts.glob("part-*.parquet"))) < finished and time.monotonic() < until:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not outs["killed"].exists()
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*.parquet")}
    assert 2 <= len(before) < 5
    counts = inspect_images(folder / "model.xml", images, outs["killed"], InspectSettings(batch=3, maps=maps["killed"]))
    assert counts["inspected"] == counts["images"] - ROWS_PER_PART * len(before)
    pd.testing.assert_frame_equal(results(outs["killed"]), results(outs["whole"]))
    whole_maps, killed_maps = (
        {path.relative_to(maps[name]): path.read_bytes() for path in maps[name].rglob("*.png")} for name in maps
    )
    assert whole_maps == killed_maps
    assert whole_maps
    assert not parts.exists()


def test_a_restart_with_other_files_is_rejected_with_a_remedy(folder: Path, tmp_path: Path) -> None:
    images, out = repeated(folder, ROWS_PER_PART + 1, tmp_path / "list.txt"), tmp_path / "out.parquet"
    process = subprocess.Popen(words(folder, images, out), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (tmp_path / "out.parquet.parts/settings.json").exists() and time.monotonic() < until:
        time.sleep(0.001)
    process.kill()
    process.wait()
    repeated(folder, ROWS_PER_PART + 2, images)
    with pytest.raises(InvalidInputError, match=r"another list of files; .* delete that folder to start again"):
        inspect_images(folder / "model.xml", images, out, InspectSettings())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images_and_torch_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    peaks = {}
    for count in (2 * ROWS_PER_PART, 20 * ROWS_PER_PART):
        images = repeated(folder, count, tmp_path / f"{count}.txt")
        done = subprocess.run(
            words(folder, images, tmp_path / f"{count}.parquet"), capture_output=True, text=True, check=True
        )
        peak, has_torch = done.stdout.split()[-2:]
        assert has_torch == "False"
        peaks[count] = int(peak)
    assert peaks[20 * ROWS_PER_PART] < 1.1 * peaks[2 * ROWS_PER_PART]


@pytest.mark.slow
@pytest.mark.long
def test_ray_writes_the_same_table(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    images = repeated(folder, 2 * ROWS_PER_PART + 5, tmp_path / "list.txt")
    for runner in ("local", "ray"):
        inspect_images(folder / "model.xml", images, tmp_path / f"{runner}.parquet", InspectSettings(), runner)
    pd.testing.assert_frame_equal(results(tmp_path / "ray.parquet"), results(tmp_path / "local.parquet"))


def test_a_missing_cluster_is_one_line(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    model, images, out = folder / "model.xml", folder / "images", tmp_path / "out.parquet"
    with pytest.raises(InvalidInputError, match=r"there is no Ray cluster at localhost:1 .*or leave it out"):
        inspect_images(model, images, out, InspectSettings(), "ray", "localhost:1")


@pytest.mark.slow
def test_scores_and_maps_of_an_exported_model_are_those_of_pytorch(folder: Path, tmp_path: Path) -> None:
    model = HtpGan(
        image_size=(40, 56),
        num_scales=2,
        min_size=24,
        width=2,
        post_processor=False,
        evaluator=False,
        visualizer=False,
    ).eval()
    path = model.to_openvino(tmp_path)
    settings = InspectSettings(threshold=0.5, batch=4, precision="f32", maps=tmp_path / "maps")
    inspect_images(path, folder / "images", tmp_path / "out.parquet", settings)
    table = pd.read_parquet(tmp_path / "out.parquet").iloc[:32]
    with torch.inference_mode():
        expected = model(torch.stack([torch.as_tensor(read_image(path, as_tensor=True)) for path in table.path]))
    np.testing.assert_allclose(table.score, expected.pred_score.flatten(), atol=1e-4)
    maps = np.stack([np.array(Image.open(tmp_path / f"maps/{row:02}.tiff")) for row in range(32)])
    np.testing.assert_allclose(maps, expected.anomaly_map.squeeze(1).numpy(), atol=1e-4)
