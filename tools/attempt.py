"""Training runs in child processes, which faults can hit. The children are forks, so that nothing is imported again."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: threads do not survive a fork
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from injuries import MarkStart
from lightning.pytorch import Callback
from small_models import make_data, make_model

from anomalib_defect_plugins.core.errors import error_line
from anomalib_defect_plugins.testing.runs import SeedByStep, fit, seed_all

SEED = 3


@dataclass
class Attempt:
    """Training run in a child process.

    Args:
        name: Name of the model.
        data: Folder of the data.
        folder: Output folder: ``results``, ``weights.pt``, ``line`` or ``traceback``, ``log``.
        callbacks: Callbacks that inject faults.
        workers: Number of data-loading processes.
        results_folder: Folder of the results, by default ``results`` in ``folder``.
    """

    name: str
    data: Path
    folder: Path
    callbacks: Sequence[Callback] = ()
    workers: int = 0
    results_folder: Path | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def results(self) -> Path:
        """Folder of the results."""
        return self.results_folder or self.folder / "results"

    @property
    def last(self) -> Path | None:
        """Latest checkpoint to resume from."""
        checkpoints = self.results.rglob("last.ckpt")
        return max(checkpoints, key=lambda path: path.stat().st_mtime_ns, default=None)

    def run(self) -> None:
        """Train, from the latest checkpoint if there is one; called in the child process."""
        last = self.last
        try:
            seed_all(SEED if last is None else 99)
            callbacks = [MarkStart(self.folder / "started"), SeedByStep(), *self.callbacks]
            model, data = make_model(self.name), make_data(self.name, self.data, workers=self.workers)
            run = fit(model, data, self.results, {}, callbacks, last)
        except BaseException as error:  # noqa: BLE001 - every way in which training ends is recorded
            line = error_line(error)
            name, text = ("traceback", traceback.format_exc()) if line is None else ("line", line)
            (self.folder / name).write_text(text)
        else:
            torch.save(run.model.state_dict(), self.folder / "weights.pt")

    def start(self) -> int:
        """Start the run and return its process id."""
        for name in ("started", "line", "traceback", "weights.pt"):
            (self.folder / name).unlink(missing_ok=True)
        return fork(self.run, self.folder / "log")

    def wait(self) -> "Attempt":
        """Run to the end."""
        os.waitpid(self.start(), 0)
        return self

    def wait_for_start(self, child: int) -> bool:
        """Wait until training has begun; return false if the process ended before."""
        while not (self.folder / "started").exists():
            if os.waitpid(child, os.WNOHANG)[0]:
                return False
            time.sleep(0.002)
        return True

    @property
    def line(self) -> str:
        """Error message, or the traceback of an unexpected error."""
        for name in ("line", "traceback"):
            if (self.folder / name).exists():
                return (self.folder / name).read_text()
        return ""

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Return the weights after training, if it ended."""
        path = self.folder / "weights.pt"
        return torch.load(path, weights_only=True) if path.exists() else None


def fork(work: Callable[[], None], log: Path) -> int:
    """Call a function in a child process that writes its output to a file, and exits with status 1 after an error."""
    gc.freeze()  # otherwise the garbage collector of each child scans all imported modules
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        torch.set_num_threads(1)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - the child must never continue with the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
