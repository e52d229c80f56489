"""Every configuration file runs, with a shortened schedule and little data."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from anomalib.cli.cli import main
from dataset_layouts import (
    write_codebrim,
    write_crack_forest,
    write_dagm2007,
    write_image,
    write_kolektor_sdd,
    write_magnetic_tile,
    write_mask,
)

CONFIGS = sorted(
    path for path in Path(__file__).parents[2].glob("configs/**/*.yaml") if path.parent.name != "benchmark"
)
"""Configurations of ``anomalib train``; those of the benchmark have separate tests."""

SHORT: dict[str, dict[str, str]] = {
    "defectgan": {
        "iterations": "2",
        "channels": "8",
        "discriminator_channels": "8",
        "residual_blocks": "1",
        "image_size": "[64,64]",
    },
    "htpgan": {"iterations_per_scale": "1", "num_scales": "2", "image_size": "[64,64]"},
    "sidn": {"iterations": "2", "channels": "4", "pre_trained": "false", "image_size": "[64,64]"},
    "cutpaste": {"iterations": "2", "image_size": "[64,64]", "pre_trained": "false"},
    "isugan": {
        "iterations": "2",
        "pre_trained": "false",
        "width": "8",
        "residual_blocks": "1",
        "image_size": "[64,64]",
    },
    "onestage": {"iterations": "2", "width": "small", "pre_trained": "false", "image_size": "[64,64]"},
}
"""Arguments for small models and short training, by method folder."""

CROPS = {
    (split, 10 * place + photo, crop): ("Crack", "Spallation")[: photo % 3]
    for place, split in enumerate(("train", "val", "test"))
    for photo in range(6)
    for crop in range(7)
}
"""Crops of CODEBRIM: background, with a crack, and with two types of defect."""


def write_windows(root: Path) -> None:
    """Write the files of ``experiments/defectgan/windows.py``, enough to test with a twentieth of them."""
    image, mask = write_image(root / "image.png"), write_mask(root / "mask.png")
    for kind in ("good", "crack"):
        for number in range(400):
            path = root / kind / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.hardlink_to(image)
            if kind != "good":
                path = root / "masks" / kind / path.name
                path.parent.mkdir(exist_ok=True, parents=True)
                path.hardlink_to(mask)
    image.unlink()
    mask.unlink()


WRITERS = {
    "Codebrim": lambda root: write_codebrim(root, CROPS),
    "CrackForest": lambda root: write_crack_forest(root, np.tile(np.array([[1, 2]], np.uint8), (32, 20))),
    "Dagm2007": lambda root: write_dagm2007(root, 6, {"Train": (492, 83), "Test": (508, 67)}),
    "DefectFolder": write_windows,
    "KolektorSdd": write_kolektor_sdd,
    "MagneticTile": write_magnetic_tile,
}
"""Functions that write the data sets that are not generated or downloaded."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def textures(tmp_path_factory) -> Path:
    """Folder of the embedded data, which is generated once."""
    return tmp_path_factory.mktemp("textures")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_configuration_trains_and_tests(config, textures, tmp_path, monkeypatch, capsys):
    data = yaml.safe_load(config.read_text())["data"]
    inner, base = "--data.init_args", data
    if "base" in data.get("init_args", {}):
        inner, base = "--data.init_args.base.init_args", data["init_args"]["base"]
    short = {
        **{f"--model.init_args.{name}": value for name, value in SHORT[config.parent.name].items()},
        "--trainer.accelerator": "cpu",
        "--trainer.limit_val_batches": "0.05",
        "--trainer.limit_test_batches": "0.05",
        "--trainer.logger": "false",
        "--trainer.enable_progress_bar": "false",
        f"{inner}.eval_batch_size": "2",
        f"{inner}.root": str(tmp_path / "data" if base["class_path"] in WRITERS else textures),
        "--default_root_dir": str(tmp_path / "results"),
    }
    if base["class_path"] in WRITERS:
        WRITERS[base["class_path"]](tmp_path / "data")
    arguments = [word for pair in short.items() for word in pair]
    monkeypatch.setattr(sys, "argv", ["anomalib", "train", "--config", str(config), *arguments])
    main()
    metric = "image_AUROC" if base["class_path"] == "Codebrim" else "pixel_AUROC"  # it has no masks
    assert metric in capsys.readouterr().out
    assert list(tmp_path.glob("results/*/*/**/weights/lightning/model.ckpt"))


@pytest.mark.parametrize("method", SHORT)
def test_every_method_has_a_quick_and_a_paper_configuration(method):
    assert {path.stem for path in CONFIGS if path.parent.name == method} >= {"quick", "paper"}
