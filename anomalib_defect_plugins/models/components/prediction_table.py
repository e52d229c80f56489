"""Trainer callback that writes the scores of ``anomalib predict`` to a table, beside the pictures of the maps."""

import csv
import io
import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from anomalib_defect_plugins.core.files import write_text
from anomalib_defect_plugins.models.components.decision_log import has_image_threshold

logger = logging.getLogger(__name__)

COLUMNS = ("path", "score", "pred_label")


class PredictionTable(Callback):
    """Writes ``predictions.csv`` after a prediction. It must come after the post-processor.

    The columns are ``path``; ``score``, normalised if the model has a threshold, which is 0.5 then; and ``pred_label``,
    1 for a defective image and 0 for a normal one, empty without a threshold. Each process has a file of its own if
    there are several: ``predictions-0.csv`` and so on.
    """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start an empty table."""
        del trainer, pl_module
        self._rows: list[tuple[str, str, int | str]] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: object
    ) -> None:
        """Add the images of a batch."""
        del trainer, batch
        paths, scores, labels = (getattr(outputs, name, None) for name in ("image_path", "pred_score", "pred_label"))
        if paths is None or not isinstance(scores, Tensor):
            return
        found: list[int | str] = [""] * len(paths)
        if isinstance(labels, Tensor) and has_image_threshold(pl_module):
            found = [int(label) for label in labels.flatten().tolist()]
        texts = [f"{score:.9g}" for score in scores.float().flatten().tolist()]
        self._rows += zip(map(str, paths), texts, found, strict=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        if not self._rows or getattr(trainer, "fast_dev_run", False):
            return
        suffix = f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = Path(trainer.default_root_dir) / f"predictions{suffix}.csv"
        buffer = io.StringIO(newline="")
        csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *self._rows])
        write_text(path, buffer.getvalue())
        logger.info("Scores of %s: %s", pl_module.name, path)
