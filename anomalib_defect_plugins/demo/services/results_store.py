"""Access to results by the key of a run and the index of an image, never by a path that a client sends."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.demo.services import run_images
from anomalib_defect_plugins.demo.services.cache import Cache
from anomalib_defect_plugins.inference.run_model import LoadedModel, load_model, model_files
from anomalib_defect_plugins.report.summary import Summary, summarize
from anomalib_defect_plugins.results.folder import RUNS, TABLE
from anomalib_defect_plugins.results.image_table import FILE, read_image_table
from anomalib_defect_plugins.results.reader import read_results
from anomalib_defect_plugins.results.record import RunRecord

PICTURE_KINDS: dict[str, Callable[[RunRecord, run_images.TableRow, int | None], npt.NDArray[Any]]] = {
    "image": run_images.read_test_image,
    "mask": run_images.read_mask,
    "map": run_images.read_anomaly_map,
    "pred_mask": run_images.read_pred_mask,
    "overlay": run_images.read_overlay,
}
"""Pictures of a test image, and the functions that read them."""

MAX_SUMMARIES, MAX_TABLES, MAX_MODELS = 64, 16, 2
"""Summaries, tables of images and models that are kept in memory."""


@dataclass(frozen=True)
class RunInfo:
    """A finished run.

    Args:
        key: Key in the store: names of the results folder and of the run's folder.
        benchmark: Name of the results folder.
        model: Label of the model; different settings have different labels in a results folder.
        data: Label of the data.
        supervision: Label of the supervision.
        record: Content of its ``run.json``.
    """

    key: str
    benchmark: str
    model: str
    data: str
    supervision: str
    record: RunRecord

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.record.run.seed

    @property
    def title(self) -> str:
        """Name of the run for display."""
        return f"{self.model} · {self.data} · {self.supervision} · seed {self.seed}"

    @property
    def threshold(self) -> float | None:
        """Image threshold in the units of the scores in ``images.csv``."""
        return self.record.thresholds.get("image")

    @cached_property
    def has_model(self) -> bool:
        """Whether the run has kept its model."""
        return any(path.is_file() for path in model_files(self.record.folder))


class ResultsStore:
    """The results in a folder, which are read again when they change.

    Args:
        root: A results folder of ``anomalib-defects benchmark``, or a folder of results folders. It may not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._summaries = Cache(MAX_SUMMARIES)
        self._tables = Cache(MAX_TABLES)
        self._models = Cache(MAX_MODELS)

    def folders(self) -> dict[str, Path]:
        """Return the results folders by name."""
        candidates = (self.root / RUNS, *sorted(self.root.glob(f"[!.]*/{RUNS}")))
        return {path.parent.name: path.parent for path in candidates if path.is_dir()}

    def summaries(self) -> dict[str, Summary]:
        """Return a summary of each results folder by name; folders without a finished run are left out."""
        summaries = {name: self._summary(name, folder) for name, folder in self.folders().items()}
        return {name: summary for name, summary in summaries.items() if summary is not None}

    def _summary(self, name: str, folder: Path) -> Summary | None:
        return self._summaries(name, _folder_state(folder), lambda: _summarize(folder))

    def runs(self) -> list[RunInfo]:
        """Return all finished runs, in the order of their configurations."""
        return [
            RunInfo(f"{name}/{record.key}", name, *summary.labels[record.key], record)
            for name, summary in self.summaries().items()
            for record in summary.results.done
        ]

    def run(self, key: str) -> RunInfo:
        """Return a run.

        Raises:
            InvalidInputError: If the key is unknown.
        """
        for info in self.runs():
            if info.key == key:
                return info
        msg = f"there is no run {str(key)[:80]!r} in the results; choose one of the list"
        raise InvalidInputError(msg)

    def images(self, key: str) -> pd.DataFrame:
        """Return the table of a run's test images, in the order of the test.

        Returns:
            Table as in :func:`~anomalib_defect_plugins.results.image_table.read_image_table`.

        Raises:
            InvalidInputError: If the run is unknown, or its table cannot be read.
        """
        info = self.run(key)
        folder = info.record.folder
        return self._tables(key, _mtime(folder / FILE), lambda: read_image_table(folder, info.threshold))

    def picture(self, key: str, index: int, kind: str, side: int | None = None) -> npt.NDArray[Any]:
        """Return a picture of a test image.

        Args:
            key: Key of the run.
            index: Index of the image in :meth:`images`.
            kind: ``image``, ``mask`` (ground truth), ``map``, ``pred_mask`` (map from the threshold on) or ``overlay``
                (map over the image).
            side: Maximum longer side in pixels; by default that of the image, or of the map for ``map`` and
                ``pred_mask``.

        Returns:
            ``image`` and ``overlay``: shape (H, W, 3), uint8. ``mask`` and ``pred_mask``: shape (H, W), bool. ``map``:
            shape (H, W), float32, in the units of the scores.

        Raises:
            InvalidInputError: If the run, the image or the kind is unknown.
            MissingDataError: If the file was not kept or does not exist.
        """
        check_one_of("kind of the picture", kind, PICTURE_KINDS)
        info, row = self.run(key), self._row(key, index)
        return PICTURE_KINDS[kind](info.record, row, side)

    def model(self, key: str) -> LoadedModel:
        """Return the model of a run for prediction.

        Raises:
            InvalidInputError: If the run is unknown, or its model cannot be loaded.
            MissingDataError: If the run has kept no model.
        """
        info = self.run(key)
        state = tuple(_mtime(path) for path in model_files(info.record.folder))
        return self._models(key, state, lambda: load_model(info.record))

    def _row(self, key: str, index: int) -> dict[str, Any]:
        table = self.images(key)
        if type(index) is not int or not 0 <= index < len(table):
            msg = f"there is no image {str(index)[:20]!r} in the run; choose a number from 0 to {len(table) - 1}"
            raise InvalidInputError(msg)
        return {str(name): value for name, value in table.iloc[index].items()}


def _mtime(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _folder_state(folder: Path) -> tuple[int | None, ...]:
    """Return what changes when a run ends: the benchmark moves it into the folder of runs and rewrites the table."""
    return _mtime(folder / RUNS), _mtime(folder / TABLE)


def _summarize(folder: Path) -> Summary | None:
    try:
        results = read_results(folder)
    except (InvalidInputError, MissingDataError):  # no run has ended yet
        return None
    return summarize(results) if results.done or results.failed else None
