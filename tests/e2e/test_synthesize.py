"""``anomalib-defects synthesize`` as a user runs it, with a Defect-GAN trained for a few steps."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from dataset_layouts import contents
from PIL import Image

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.data import DefectFolder, WithDefects
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.synthesis.folder import read_table
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import fit, seed_all

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).with_name("anomalib-defects"))
SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write images, the checkpoint ``gan.ckpt`` whose maps mark a fifth of an image, and one of another model."""
    folder = tmp_path_factory.mktemp("synthesize")
    write_folder_data(folder / "data", normal=6)
    seed_all(0)
    data = WithDefects(folder_datamodule(folder / "data"), real=2)
    model = DefectGan((SIDE, SIDE), channels=4, residual_blocks=1, iterations=5, evaluator=False, visualizer=False)
    run = fit(model, data, folder / "run", {})
    generator = cast(Any, model.model.generator)
    with torch.no_grad():
        generator.head.weight *= 50  # the map of an untrained network is almost uniform
        image, control = cast(torch.Tensor, data.train_data[0].image)[None], torch.ones(1, len(model.categories))
        maps = model.cpu().eval().synthesize(image, control, torch.Generator().manual_seed(0)).maps
        # sigmoid(50 w x): one map is enough to know how far above 0 a fifth of the pixels is.
        share = maps.quantile(0.8).clamp(1e-3, 1 - 1e-3)
    (folder / "threshold").write_text(f"{share:.4f}")
    run.engine.trainer.save_checkpoint(folder / "gan.ckpt")
    run.engine.trainer.strategy.connect(
        HtpGan(image_size=(48, 48), num_scales=2, min_size=24, width=2, evaluator=False, visualizer=False)
    )
    run.engine.trainer.save_checkpoint(folder / "other.ckpt", weights_only=True)
    return folder


def words(folder: Path, out: Path, num: int, *more: str) -> list[str]:
    data = ["--data.name", "generated", "--data.root", str(folder / "data"), "--data.normal_dir", "normal"]
    data += ["--data.abnormal_dir", "defective", "--data.mask_dir", "masks", "--data.num_workers", "0"]
    threshold = (folder / "threshold").read_text()
    given = ["--ckpt", str(folder / "gan.ckpt"), "--data", "Folder", *data, "--out", str(out), "--num", str(num)]
    return [COMMAND, "synthesize", *given, "--threshold", threshold, *more]


def run(arguments: list[str]) -> int:
    """Run the command in this process, which takes a tenth of the time."""
    return main(arguments[1:])


def test_a_killed_run_is_resumed_with_the_result_of_an_undisturbed_one(folder: Path, tmp_path: Path) -> None:
    assert run(words(folder, tmp_path / "undisturbed", 60, "--restored")) == 0
    assert len(read_table(tmp_path / "undisturbed")) > 30
    killed = subprocess.Popen(words(folder, tmp_path / "killed", 60, "--restored"), stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(list((tmp_path / "killed").glob("masks/*/*.png"))) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert run(words(folder, tmp_path / "killed", 60, "--restored")) == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    data = DefectFolder(tmp_path / "killed", num_workers=0)
    data.setup()
    items = [cast(Any, data.test_data[index]) for index in range(len(data.test_data))]
    assert all(item.gt_mask.any() == bool(item.gt_label) for item in items)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--category", "rust"], "there is no category 'rust'; the checkpoint knows abnormal"),
        (["--ckpt", "nothing.ckpt"], "nothing.ckpt is missing; "),
        (["--ckpt", "{folder}/threshold"], "threshold is not a checkpoint of DefectGan"),
        (["--ckpt", "{folder}/other.ckpt"], "other.ckpt is not a checkpoint of DefectGan"),
        (["--threshold", "high"], "--threshold is high; it must be more than 0 and less than 1, or otsu"),
        (["--region", "{folder}/small.png"], "small.png is 8x8 pixels, and the checkpoint makes images of 64x64"),
        (["--region", "{folder}/black.png"], "black.png marks nothing"),
        (["--out", "{folder}/data"], "data contains something else"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path, tmp_path: Path, more: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(folder / "small.png")
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(folder / "black.png")
    before = contents(folder / "data")
    given = words(folder, tmp_path / "out", 3, *(word.format(folder=folder) for word in more))
    assert run(given) == 1
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert line in errors[0]
    assert not (tmp_path / "out").exists()
    assert contents(folder / "data") == before
