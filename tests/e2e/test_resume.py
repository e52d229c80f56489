"""HTP-GAN killed at any moment goes on from ``last.ckpt`` and ends with the weights of a run that was not killed.

Run as a program, this file is the trainings that get killed: ``test_resume.py DATA FOLDER``. All is imported once; the
trainings are forks.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything computes: threads do not live through a fork

import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import pytest
import torch
from fault_drill import fork
from lightning.pytorch import Callback

from anomalib_defect_plugins.core import files
from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import Run, differences, fit, seed_all

pytestmark = pytest.mark.slow

LEFT = {  # how many scales last.ckpt knows when the run is killed
    "in the first scale": 0,
    "while the first checkpoint is written": 0,
    "when the second scale starts": 1,
    "in the second scale": 1,
    "while a checkpoint is written": 1,
    "before a checkpoint takes its place": 1,
    "in validation": 2,
    "when all is done": 3,
}


def train(data: Path, results: Path, *callbacks: Callback, seed: int = 3, ckpt_path: Path | None = None) -> Run:
    """Train, with numbers that are added up in the same order in every process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seed_all(seed)
        model = HtpGan(
            image_size=(48, 64),
            num_scales=3,
            min_size=24,
            width=4,
            iterations_per_scale=6,
            threshold="reference",
            evaluator=False,
            visualizer=False,
        )
        return fit(model, folder_datamodule(data), results, {}, callbacks, ckpt_path)
    finally:
        torch.set_num_threads(threads)


def die() -> None:
    """End as by a power cut: nothing is flushed, closed or cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


class Die(Callback):
    """Dies at one of the moments of ``LEFT``."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Die in a scale, or make that writing its checkpoint will."""
        now = (self.moment, trainer.current_epoch, batch_idx)
        if now in {
            ("in the first scale", 0, 3),
            ("when the second scale starts", 1, 0),
            ("in the second scale", 1, 4),
        }:
            die()
        elif now in {("while the first checkpoint is written", 0, 5), ("while a checkpoint is written", 1, 5)}:
            files.os.fsync = _write_half
        elif now == ("before a checkpoint takes its place", 1, 5):
            files.os.replace = lambda *_: die()

    def on_validation_batch_start(self, *_: object) -> None:
        """Die when the thresholds are looked for."""
        if self.moment == "in validation":
            die()

    def on_train_end(self, *_: object) -> None:
        """Die with the work done."""
        if self.moment == "when all is done":
            die()


def _write_half(descriptor: int) -> None:
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    die()


def find_last(results: Path) -> Path | None:
    """Return ``last.ckpt`` if there is one yet."""
    return next(results.rglob("last.ckpt"), None)


def resume(data: Path, results: Path) -> Run:
    """Go on from ``last.ckpt``; start again where there is none."""
    last = find_last(results)
    return train(data, results, seed=99 if last else 3, ckpt_path=last)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_folder_data(folder)
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Run:
    """The run that nothing happens to."""
    return train(data, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory) -> Path:
    """What killed runs have left: a folder for each moment, and one for ``from outside``."""
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-W", "ignore", __file__, str(data), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("moment", LEFT)
def test_a_killed_run_goes_on_to_the_same_weights_and_thresholds(data, whole, killed, tmp_path, moment):
    results = Path(shutil.copytree(killed / moment, tmp_path / "results", symlinks=True))
    last = find_last(results)
    assert (last is not None) == (LEFT[moment] > 0)
    if last:
        assert torch.load(last, weights_only=True)["epoch"] == LEFT[moment] - 1
    resumed = resume(data, results)
    assert not differences(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.model.post_processor.pixel_threshold.isfinite()


def test_a_run_killed_from_outside_goes_on_to_the_same_weights(data, whole, killed, tmp_path):
    results = Path(shutil.copytree(killed / "from outside", tmp_path / "results", symlinks=True))
    assert not differences(resume(data, results).model.state_dict(), whole.model.state_dict())


def main(data: Path, folder: Path) -> None:
    """Train, and be killed, at each of the moments; and once as soon as there is a checkpoint."""
    for moment in (*LEFT, "from outside"):
        results = folder / moment
        results.mkdir()
        child = fork(partial(train, data, results, Die(moment)), folder / f"{moment}.log")
        while moment == "from outside" and find_last(results) is None:
            time.sleep(0.001)
        if moment == "from outside":
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"{moment}: not killed\n" + (folder / f"{moment}.log").read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
