"""Every configuration file is run, with its schedule and its data cut short."""

import sys
from pathlib import Path

import numpy as np
import pytest
from anomalib.cli.cli import main
from layouts import write_crack_forest

CONFIGS = sorted(Path(__file__).parents[2].glob("configs/**/*.yaml"))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_configuration_trains_and_tests(config, tmp_path, monkeypatch, capsys):
    short = {
        "--model.init_args.iterations_per_scale": "1",
        "--model.init_args.num_scales": "2",
        "--trainer.accelerator": "cpu",
        "--trainer.limit_val_batches": "0.05",
        "--trainer.limit_test_batches": "0.05",
        "--trainer.logger": "false",
        "--trainer.enable_progress_bar": "false",
        "--data.init_args.eval_batch_size": "2",
        "--data.init_args.root": str(tmp_path / "data"),
        "--default_root_dir": str(tmp_path / "results"),
    }
    if config.stem == "crack_forest":
        write_crack_forest(tmp_path / "data", np.tile(np.array([[1, 2]], np.uint8), (32, 20)))
    arguments = [word for pair in short.items() for word in pair]
    monkeypatch.setattr(sys, "argv", ["anomalib", "train", "--config", str(config), *arguments])
    main()
    assert "pixel_AUROC" in capsys.readouterr().out
    assert list(tmp_path.glob("results/HtpGan/*/**/weights/lightning/model.ckpt"))


def test_there_are_configurations():
    assert {path.stem for path in CONFIGS} >= {"quick", "paper", "crack_forest"}
