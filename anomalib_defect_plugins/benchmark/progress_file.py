"""Progress of the current run in a file, for a program that watches a benchmark."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_defect_plugins.core.files import write_text
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining

INTERVAL_S = 0.5
"""Minimum time between two updates."""

PHASES = ("training", "testing", "measuring")
"""Phases of a run, in order."""


class RunProgress(NamedTuple):
    """Progress of a run.

    Args:
        phase: Phase of the run, of ``PHASES``.
        step: Number of finished batches of the phase.
        total: Number of its batches; 0 if unknown.
        seconds: Seconds since the phase began.
    """

    phase: str
    step: int
    total: int
    seconds: float

    @property
    def share(self) -> float:
        """Finished part of the phase, in [0, 1]."""
        return min(1.0, self.step / self.total) if self.total else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated time until the phase ends; ``None`` at its beginning."""
        return self.seconds * (1 / self.share - 1) if self.share > 0 else None


def read_progress(path: Path) -> RunProgress | None:
    """Read the progress of the current run; ``None`` if there is none yet."""
    try:
        return RunProgress(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class ProgressFile(Callback):
    """Writes the progress of a run to a file, which is replaced as a whole.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count, self._started, self._written = 0, 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the phase of training."""
        self._begin("training", _training_batches(trainer, pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        del args, kwargs
        self._advance("training", _training_batches(trainer, pl_module))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the phase of testing."""
        del pl_module
        self._begin("testing", _test_batches(trainer))

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        del pl_module, args, kwargs
        self._advance("testing", _test_batches(trainer))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the phase of measuring."""
        del trainer, pl_module
        self._begin("measuring", 0)

    def _begin(self, phase: str, total: int) -> None:
        self._count, self._started = 0, time.monotonic()
        self._write(phase, total)

    def _advance(self, phase: str, total: int) -> None:
        self._count += 1
        if time.monotonic() - self._written >= INTERVAL_S:
            self._write(phase, total)

    def _write(self, phase: str, total: int) -> None:
        self._written = time.monotonic()
        progress = RunProgress(phase, self._count, total, self._written - self._started)
        write_text(self.path, json.dumps(progress._asdict()))


def _training_batches(trainer: Trainer, module: LightningModule) -> int:
    if isinstance(module, IterativeTraining):
        return module.iterations
    batches = trainer.num_training_batches * (trainer.max_epochs or 0)
    return int(batches) if 0 < batches < float("inf") else 0


def _test_batches(trainer: Trainer) -> int:
    total = sum(trainer.num_test_batches)
    return int(total) if total < float("inf") else 0
