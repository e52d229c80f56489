"""Defects in training, from the command line and in the grid of a benchmark."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from anomalib.cli.cli import main

pytestmark = pytest.mark.slow

MODEL = ["--model", "htpgan", "--model.num_scales", "2", "--model.iterations_per_scale", "1", "--model.width", "2"]
DATA = ["--data", "WithDefects", "--data.base", "TextureDefects", "--data.base.category", "brick"]
QUICK = ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texture")


@pytest.fixture
def anomalib(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    base = ["--data.base.root", str(root), "--data.base.image_size", "64"]

    def run(*words: str) -> None:
        small = ["--model.image_size", "[64,64]", "--model.min_size", "32"]
        monkeypatch.setattr(sys, "argv", ["anomalib", "train", *MODEL, *small, *DATA, *base, *QUICK, *words])
        main()

    return run


def split_of(folder: Path) -> pd.DataFrame:
    (file,) = (path for path in folder.rglob("split.csv") if "latest" not in path.parts)
    return pd.read_csv(file)


def test_defects_move_to_training_and_the_split_can_be_repeated(anomalib: Callable[..., None], tmp_path: Path) -> None:
    anomalib("--data.real", "20", "--default_root_dir", "first")
    first = split_of(tmp_path / "first")
    assert first.groupby(["split", "label"]).size().to_dict() == {
        ("train", 0): 40,
        ("train", 1): 20,
        ("val", 0): 20,
        ("val", 1): 20,
        ("test", 0): 30,
        ("test", 1): 40,
    }
    (file,) = (path for path in (tmp_path / "first").rglob("split.csv") if "latest" not in path.parts)
    anomalib("--data.split_file", str(file), "--data.seed", "5", "--default_root_dir", "second")
    assert split_of(tmp_path / "second").equals(first)


def test_generators_take_arguments_on_the_command_line(anomalib: Callable[..., None], tmp_path: Path) -> None:
    synthetic = ["--data.synthetic", "cutpaste", "--data.synthetic.jitter", "0.2", "--data.synthetic_ratio", "0.9"]
    anomalib(*synthetic, "--default_root_dir", "run")
    assert not (split_of(tmp_path / "run").query("split == 'train'").label == 1).any()


def test_a_grid_of_anomalib_benchmark_may_vary_the_supervision(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"image_size": [64, 64], "num_scales": 2, "min_size": 32, "width": 2, "iterations_per_scale": 1}
    base = {"class_path": "TextureDefects", "init_args": {"root": str(root), "category": "brick", "image_size": 64}}
    benchmark = {
        "seed": 0,
        "model": {"class_path": "HtpGan", "init_args": {**model, "visualizer": False}},
        "data": {"class_path": "WithDefects", "init_args": {"base": base, "real": {"grid": [0, 6]}}},
    }
    configuration = tmp_path / "benchmark.json"
    configuration.write_text(json.dumps({"accelerator": "cpu", "benchmark": benchmark}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["anomalib", "benchmark", "--config", str(configuration)])
    main()
    (table,) = tmp_path.rglob("results.csv")
    results = pd.read_csv(table)
    assert sorted(results["data.init_args.real"]) == [0, 6]
    assert results.pixel_AUROC.notna().all()
