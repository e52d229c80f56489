"""Results that the demo shows in its tests, and images to upload."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
from bright_graph import bright_graph
from PIL import Image
from results_folder import Layout, write_results

# 5 models x 5 data sets x 2 kinds of supervision: 50 runs of 200 images.
MADE = Layout(
    models=("HtpGan", "PaDiM", "OneStage", "CutPaste", "Sidn"),
    data=("brick", "grass", "gravel", "steel", "wood"),
    supervisions=("normal", "masks"),
    seeds=(0,),
    images=200,
    size=(128, 96),
)

WITH_MODELS = Layout(models=("Bright", "Broken"), data=("plate",), seeds=(0,), images=6)


def write_demo(folder: Path, made: Layout) -> None:
    """Write the benchmarks ``made`` and ``models`` into ``results``, and images to upload beside it.

    Args:
        folder: Parent folder of ``results``.
        made: Layout of ``made``; ``models`` has a model that scores the brightness of an image, and a broken one.
    """
    write_results(folder / "results/made", made)
    # Both benchmarks use the same images.
    write_models(folder / "results/models", made.size)
    _write_uploads(folder)


def write_models(root: Path, size: tuple[int, int]) -> None:
    """Write a benchmark of a model that scores the brightness of an image and a broken one.

    Args:
        root: Folder of the benchmark.
        size: Width and height of the images, in pixels.
    """
    for path in write_results(root, replace(WITH_MODELS, size=size)).glob("runs/*/run.json"):
        graph = path.parent / "openvino/FP32/model.xml"
        graph.parent.mkdir(parents=True)
        openvino.save_model(bright_graph(), graph, compress_to_fp16=False)
        if json.loads(path.read_text())["run"]["model"]["name"] == "Broken":
            graph.write_text("<net>")


def _write_uploads(folder: Path) -> None:
    plate = np.full((100, 200, 3), 51, np.uint8)
    plate[10:40, 20:60] = 204  # 1200 pixels of 0.8
    plate[60:80, 150:170] = 153  # 400 pixels of 0.6
    Image.fromarray(plate).save(folder / "plate.png")
    Image.fromarray(plate // 4).save(folder / "dark.png")
    (folder / "broken.png").write_bytes((folder / "plate.png").read_bytes()[:150])
    (folder / "drawing.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(90, 160, (300, 400, 3), np.uint8)).save(folder / "surface.png")
