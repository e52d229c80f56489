"""Trainer callback that logs the progress of a training without a terminal, and where the results of a run are."""

import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_defect_plugins.core.files import write_text
from anomalib_defect_plugins.models.components.callbacks import StopAfter
from anomalib_defect_plugins.models.components.shared_trainer import callbacks_of

logger = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between two lines."""


class ProgressLog(Callback):
    """Prints a line a minute if there is no terminal for a progress bar; logs the folders of the results after a test.

    The metrics of a test are also written to ``metrics.json``, those that are not defined as ``null``.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        del pl_module
        self._start = self._last = time.monotonic()
        self._done = progress(trainer, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Print a line if the last one is a minute old."""
        del outputs, batch
        now = time.monotonic()
        if now - self._last < INTERVAL or not trainer.is_global_zero or sys.stderr.isatty():
            return
        self._last = now
        done = progress(trainer, batch_idx + 1)
        left = (now - self._start) * (1 - done) / (done - self._done) if done > self._done else math.inf
        losses = ", ".join(f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items())
        line = f"{pl_module.name}: {done:.0%} of the training, step {trainer.global_step}, {duration(left)} left"
        print(f"{line}, {losses}" if losses else line, file=sys.stderr, flush=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the metrics of a test, and log where the results are."""
        if stage != "test" or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        folder = Path(trainer.default_root_dir)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if values:
            metrics = {name: value if math.isfinite(value) else None for name, value in values.items()}
            write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        images = getattr(getattr(pl_module, "visualizer", None), "output_dir", None) or folder / "images"
        checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", "") or trainer.ckpt_path
        results = {"heat maps": images, "checkpoint": checkpoint, "metrics": folder / "metrics.json"}
        found = [f"{name}: {path}" for name, path in results.items() if path and Path(path).exists()]
        logger.info("Results of %s: %s", pl_module.name, "; ".join(found))


def progress(trainer: Trainer, batches: int) -> float:
    """Return the completed share of a training, in [0, 1].

    Args:
        trainer: The trainer.
        batches: Number of completed batches of the epoch.
    """
    steps = min((one.iterations for one in callbacks_of(trainer) if isinstance(one, StopAfter)), default=math.inf)
    epochs = cast(int, trainer.max_epochs)
    shares = [
        trainer.global_step / min(steps, trainer.max_steps if trainer.max_steps > 0 else math.inf),
        (trainer.current_epoch + batches / trainer.num_training_batches) / epochs if epochs > 0 else 0.0,
    ]
    return min(1.0, max(shares))


def duration(seconds: float) -> str:
    """Format a time in minutes or hours."""
    if seconds == math.inf:
        return "unknown time"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
