"""Plain data-parallel training of one model in two processes, which end with the same weights."""

import os
import subprocess
import sys

import pytest
import torch

from anomalib_defect_plugins.testing import write_folder_data

SCRIPT = """
import sys
import torch
from anomalib.engine import Engine
from lightning import seed_everything
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.testing import folder_datamodule

seed_everything(0)
sizes = {"channels": 4, "residual_blocks": 1, "batch_size": 2, "iterations": 4, "critic_updates": 2}
model = DefectGan((32, 32), **sizes, evaluator=False, visualizer=False)
arguments = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
engine = Engine(default_root_dir=sys.argv[2], accelerator="cpu", devices=2, strategy="ddp", **arguments)
engine.fit(model, datamodule=WithDefects(folder_datamodule(sys.argv[1]), real=2, masks=False))
torch.save({"state": model.state_dict(), "step": model.step}, f"{sys.argv[2]}/rank{model.global_rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(tmp_path):
    write_folder_data(tmp_path / "data", image_size=(40, 40))
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "train.py"), str(tmp_path / "data"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert first["step"] == second["step"] == 4
    for name, value in first["state"].items():
        if name.startswith(("generator", "discriminator", "model")):
            assert torch.equal(value, second["state"][name]), name
