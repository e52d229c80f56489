"""Reads results for the demo: by the key of a run and the number of an image, never by a path that a client gives."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.demo.services import run_images
from anomalib_defect_plugins.demo.services.cache import Cache
from anomalib_defect_plugins.inference.run_model import LoadedModel, load_model, model_files
from anomalib_defect_plugins.report.summary import Summary, summarize
from anomalib_defect_plugins.results.image_table import FILE, read_image_table
from anomalib_defect_plugins.results.reader import read_results
from anomalib_defect_plugins.results.record import Record

KINDS: dict[str, Callable[..., np.ndarray]] = {
    "image": run_images.read_photo,
    "mask": run_images.read_mask,
    "map": run_images.read_map,
    "found": run_images.read_found,
    "overlay": run_images.read_overlay,
}
"""What can be shown of an image, and what reads it."""

TABLES, MODELS = 16, 2
"""So many tables of images and models are kept in memory."""


@dataclass(frozen=True)
class RunInfo:
    """A run that is done.

    Args:
        key: What the store knows it by: names of its results folder and of its own.
        benchmark: Name of its results folder.
        model: Label of the model, unique among models of other settings in the folder.
        data: Likewise of the data.
        supervision: Likewise of the supervision.
        record: What its ``run.json`` says.
    """

    key: str
    benchmark: str
    model: str
    data: str
    supervision: str
    record: Record

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.record.seed

    @property
    def title(self) -> str:
        """Name of the run for people."""
        return f"{self.model} · {self.data} · {self.supervision} · seed {self.seed}"

    @property
    def threshold(self) -> float | None:
        """What the score of a defective image is above, in the units of ``images.csv``."""
        return self.record.thresholds.get("image")

    @cached_property
    def has_model(self) -> bool:
        """Whether the run kept its model."""
        return any(path.is_file() for path in model_files(self.record.folder))


class Store:
    """The results below a folder, which is read again when it has changed.

    Args:
        root: A results folder as ``anomalib-defects benchmark`` writes it, or a folder of such folders. It need not
            exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._read = Cache(64)
        self._tables = Cache(TABLES)
        self._models = Cache(MODELS)

    def folders(self) -> dict[str, Path]:
        """Give the results folders by name."""
        found = [path.parent for path in (self.root / "runs", *sorted(self.root.glob("[!.]*/runs"))) if path.is_dir()]
        return {path.name: path for path in found}

    def summaries(self) -> dict[str, Summary]:
        """Give what each results folder holds, by its name; folders without a finished run are left out."""
        found = {name: self._read(name, _state(path), lambda path=path: _summary(path)) for name, path in
                 self.folders().items()}  # fmt: skip
        return {name: summary for name, summary in found.items() if summary is not None}

    def runs(self) -> list[RunInfo]:
        """Give all runs that are done, in the order of their configurations."""
        return [
            RunInfo(f"{name}/{record.key}", name, *summary.labels[record.key], record)
            for name, summary in self.summaries().items()
            for record in summary.results.done
        ]

    def run(self, key: str) -> RunInfo:
        """Give a run.

        Raises:
            InvalidInputError: There is none of that key.
        """
        for info in self.runs():
            if info.key == key:
                return info
        msg = f"there is no run {str(key)[:80]!r} in the results; choose one of the list"
        raise InvalidInputError(msg)

    def images(self, key: str) -> pd.DataFrame:
        """Give the test images of a run, in the order of the test.

        Returns:
            As :func:`~anomalib_defect_plugins.results.image_table.read_image_table`.

        Raises:
            InvalidInputError: There is no such run, or its table cannot be read.
        """
        info = self.run(key)
        folder = info.record.folder
        return self._tables(key, _stamp(folder / FILE), lambda: read_image_table(folder, info.threshold))

    def picture(self, key: str, index: int, kind: str, side: int | None = None) -> np.ndarray:
        """Give a picture of a test image.

        Args:
            key: The run.
            index: Number of the image in ``images``.
            kind: ``image``; ``mask``: the ground truth; ``map``; ``found``: where the map is above the threshold;
                ``overlay``: the map over the image.
            side: Longer side in pixels; by default that of the image, or of the map for ``map`` and ``found``.

        Returns:
            ``image`` and ``overlay``: (H, W, 3), uint8. ``mask`` and ``found``: (H, W), bool. ``map``: (H, W), float32,
            in the units of the scores.

        Raises:
            InvalidInputError: There is no such run, image or kind.
            MissingDataError: It was not kept, or the file is gone.
        """
        check_one_of("kind of the picture", kind, KINDS)
        info, row = self.run(key), self._row(key, index)
        return KINDS[kind](info.record, row, side)

    def model(self, key: str) -> LoadedModel:
        """Give the model of a run, ready to look at images.

        Raises:
            InvalidInputError: There is no such run, or the model cannot be loaded.
            MissingDataError: The run kept no model.
        """
        info = self.run(key)
        state = tuple(_stamp(path) for path in model_files(info.record.folder))
        return self._models(key, state, lambda: load_model(info.record))

    def _row(self, key: str, index: int) -> dict[str, Any]:
        table = self.images(key)
        if type(index) is not int or not 0 <= index < len(table):
            msg = f"there is no image {str(index)[:20]!r} in the run; give a number from 0 to {len(table) - 1}"
            raise InvalidInputError(msg)
        return table.iloc[index].to_dict()


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _state(folder: Path) -> tuple[int | None, ...]:
    """What changes whenever a run ends: the benchmark puts it into ``runs`` and writes the table anew."""
    return _stamp(folder / "runs"), _stamp(folder / "results.csv")


def _summary(folder: Path) -> Summary | None:
    try:
        results = read_results(folder)
    except (InvalidInputError, MissingDataError):  # nothing has ended yet
        return None
    return summarize(results) if results.done or results.failed else None
