"""HTP-GAN, killed at any moment, resumes from ``last.ckpt`` and ends with the weights of an uninterrupted run.

As a program, ``test_resume.py DATA FOLDER`` starts the runs to kill. They are forks, so that imports run only once.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any computation: threads do not survive a fork

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
from attempt import fork
from lightning.pytorch import Callback

from anomalib_defect_plugins.core import files
from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import Run, differences, fit, seed_all

pytestmark = pytest.mark.slow

COMPLETED_SCALES = {  # in last.ckpt when the run is killed
    "in the first scale": 0,
    "while the first checkpoint is written": 0,
    "when the second scale starts": 1,
    "in the second scale": 1,
    "while a checkpoint is written": 1,
    "before a checkpoint is moved to its path": 1,
    "in validation": 2,
    "when training has ended": 3,
}


def train(data: Path, results: Path, *callbacks: Callback, seed: int = 3, ckpt_path: Path | None = None) -> Run:
    """Train on one thread, so that sums have the same order in every process."""
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


def kill_self() -> None:
    """Kill this process without flushing, closing or cleaning up."""
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt(Callback):
    """Kills the process at one of the moments of ``COMPLETED_SCALES``."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Kill the process within a scale, or while its checkpoint is written."""
        now = (self.moment, trainer.current_epoch, batch_idx)
        if now in {
            ("in the first scale", 0, 3),
            ("when the second scale starts", 1, 0),
            ("in the second scale", 1, 4),
        }:
            kill_self()
        elif now in {("while the first checkpoint is written", 0, 5), ("while a checkpoint is written", 1, 5)}:
            files.os.fsync = _write_half
        elif now == ("before a checkpoint is moved to its path", 1, 5):
            files.os.replace = lambda *_: kill_self()

    def on_validation_batch_start(self, *_: object) -> None:
        """Kill the process while thresholds are computed."""
        if self.moment == "in validation":
            kill_self()

    def on_train_end(self, *_: object) -> None:
        """Kill the process after training."""
        if self.moment == "when training has ended":
            kill_self()


def _write_half(descriptor: int) -> None:
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    kill_self()


def find_last(results: Path) -> Path | None:
    """Return the path of ``last.ckpt``, if it exists."""
    return next(results.rglob("last.ckpt"), None)


def resume(data: Path, results: Path) -> Run:
    """Resume from ``last.ckpt``, or start anew without one."""
    last = find_last(results)
    return train(data, results, seed=99 if last else 3, ckpt_path=last)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_folder_data(folder)
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Run:
    """The uninterrupted run."""
    return train(data, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory) -> Path:
    """Results of killed runs: a folder per moment, and ``from outside``."""
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-W", "ignore", __file__, str(data), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("moment", COMPLETED_SCALES)
def test_a_killed_run_resumes_to_the_same_weights_and_thresholds(data, whole, killed, tmp_path, moment):
    results = Path(shutil.copytree(killed / moment, tmp_path / "results", symlinks=True))
    last = find_last(results)
    assert (last is not None) == (COMPLETED_SCALES[moment] > 0)
    if last:
        assert torch.load(last, weights_only=True)["epoch"] == COMPLETED_SCALES[moment] - 1
    resumed = resume(data, results)
    assert not differences(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.model.post_processor.pixel_threshold.isfinite()


def test_a_run_killed_from_outside_resumes_to_the_same_weights(data, whole, killed, tmp_path):
    results = Path(shutil.copytree(killed / "from outside", tmp_path / "results", symlinks=True))
    assert not differences(resume(data, results).model.state_dict(), whole.model.state_dict())


def main(data: Path, folder: Path) -> None:
    """Start a run for each moment, and one that is killed as soon as there is a checkpoint."""
    for moment in (*COMPLETED_SCALES, "from outside"):
        results = folder / moment
        results.mkdir()
        child = fork(partial(train, data, results, KillAt(moment)), folder / f"{moment}.log")
        while moment == "from outside" and find_last(results) is None:
            time.sleep(0.001)
        if moment == "from outside":
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"{moment}: not killed\n" + (folder / f"{moment}.log").read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
