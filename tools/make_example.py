"""Makes the model and the images that ship with the demo: trains, picks three test images, and checks their verdicts.

Usage: python tools/make_example.py

A minute on two cores. The embedded photographs are CC0.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd

from anomalib_defect_plugins.cli import main as run_command
from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.demo.resources import FOLDER
from anomalib_defect_plugins.demo.services.example_model import EXAMPLE, METRICS, load_example

MAX_BYTES = 1_000_000
"""Maximum size of all files."""

KINDS = ("good", "crack", "hole")
"""Types of the images, one of each."""


def main() -> None:
    """Make the files."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["benchmark", "--config", str(FOLDER / "example.yaml"), "--out", folder]
        if status := run_command(command):
            sys.exit(status)
        run = next(Path(folder, "runs").iterdir())
        shutil.rmtree(EXAMPLE, ignore_errors=True)
        EXAMPLE.mkdir()
        for name in ("model.xml", "model.bin"):
            shutil.copy(run / "openvino/FP16" / name, EXAMPLE)
        metrics = json.loads((run / "run.json").read_text(encoding="utf-8"))["metrics"]
        (EXAMPLE / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        _copy_images(pd.read_csv(run / "images.csv"))
    _check()


def _copy_images(table: pd.DataFrame) -> None:
    """Copy the image of each kind whose score is the median of its kind."""
    for kind in KINDS:
        of_kind = table[table.image_path.str.contains(f"/{kind}/")].sort_values("score")
        shutil.copy(of_kind.image_path.iloc[len(of_kind) // 2], EXAMPLE / f"{kind}.png")


def _check() -> None:
    model = load_example()
    for kind in KINDS:
        pixels = (255 * read_image(EXAMPLE / f"{kind}.png")[0].transpose(1, 2, 0)).round().astype("uint8")
        is_defective = model(pixels).score >= model.thresholds.image
        if is_defective != (kind != "good"):
            sys.exit(f"the model decides otherwise on {kind}.png; train longer")
    size = sum(path.stat().st_size for path in EXAMPLE.iterdir())
    if size > MAX_BYTES:
        sys.exit(f"{EXAMPLE} has {size} bytes, more than {MAX_BYTES}")
    sys.stdout.write(f"{EXAMPLE}: {size} bytes\n")


if __name__ == "__main__":
    main()
