"""Two processes fit the same density as one process with all images."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import timm
import torch
from anomalib.data.utils import read_image

from anomalib_defect_plugins.models.components.normal_images import normal_images
from anomalib_defect_plugins.models.cutpaste import CutPaste
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data

SCRIPT = """
import sys
from anomalib.engine import Engine
from lightning import seed_everything
from anomalib_defect_plugins.models.cutpaste import CutPaste
from anomalib_defect_plugins.testing import folder_datamodule

seed_everything(0)
model = CutPaste((64, 64), "test_resnet.r160_in1k", sys.argv[3], iterations=4, evaluator=False, visualizer=False)
arguments = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
engine = Engine(default_root_dir=sys.argv[2], accelerator="cpu", devices=2, strategy="ddp", **arguments)
engine.fit(model, datamodule=folder_datamodule(sys.argv[1], batch_size=2))
"""


def test_processes_share_the_images_without_overlap(tmp_path):
    write_folder_data(tmp_path, normal=7)
    datamodule = folder_datamodule(tmp_path, batch_size=2)
    datamodule.setup()
    paths = []
    for rank in range(3):
        trainer = SimpleNamespace(datamodule=datamodule, global_rank=rank, world_size=3)
        paths += [path for batch in normal_images(trainer) for path in batch.image_path]
    assert sorted(paths) == sorted(datamodule.train_data.samples.image_path)


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_fit_the_density_of_all_images(tmp_path):
    write_folder_data(tmp_path / "data", normal=7)
    (tmp_path / "train.py").write_text(SCRIPT)
    weights = tmp_path / "weights.pth"  # with weights, the last stage is trained in the second half of the steps
    torch.save(timm.create_model("test_resnet.r160_in1k").state_dict(), weights)
    words = [sys.executable, *map(str, (tmp_path / "train.py", tmp_path / "data", tmp_path / "results", weights))]
    subprocess.run(words, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    (path,) = (tmp_path / "results").rglob("model.ckpt")
    model = CutPaste.load_from_checkpoint(path, map_location="cpu").eval()
    fitted = {name: value.clone() for name, value in model.model.localizer.state_dict().items()}
    moments = model.model.new_moments()
    for image in sorted((tmp_path / "data" / "normal").iterdir()):
        model.model.observe(model.pre_processor.transform(read_image(image, as_tensor=True)[None]), moments)
    model.model.fit(moments)
    for name, value in model.model.localizer.state_dict().items():
        assert torch.allclose(fitted[name], value, rtol=1e-4, atol=1e-4 * float(value.abs().max())), name
