"""Reads results for the demo: by the key of a run and the number of an image, never by a path that a client gives."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd

from anomalib_defect_plugins.benchmark.report.reading import Record, read_results
from anomalib_defect_plugins.benchmark.report.rows import Summary, summarize
from anomalib_defect_plugins.demo import pictures
from anomalib_defect_plugins.demo.loading import LoadedModel, load_model, model_files
from anomalib_defect_plugins.errors import InvalidInputError, MissingDataError, check_one_of

T = TypeVar("T")

KINDS: dict[str, Callable[..., np.ndarray]] = {
    "image": pictures.read_photo,
    "mask": pictures.read_mask,
    "map": pictures.read_map,
    "found": pictures.read_found,
    "overlay": pictures.read_overlay,
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
            The columns of ``images.csv``, ``score`` as a number, ``label`` as a bool; ``called``: whether the model
            calls the image defective; ``missed``: a defect that it does not; ``alarm``: a normal image that it does.

        Raises:
            InvalidInputError: There is no such run, or its table cannot be read.
        """
        info = self.run(key)
        path = info.record.folder / "images.csv"
        return self._tables(key, _stamp(path), lambda: _read_table(path, info.threshold))

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


class Cache:
    """Keeps the values that were made last, each as long as its state is the same.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: dict[Hashable, tuple[object, Any]] = {}
        self._lock = threading.Lock()
        self._making: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()

    def __call__(self, key: Hashable, state: object, make: Callable[[], T]) -> T:
        """Give what is kept, or make it; an error is not kept. What others keep or make is not waited for."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                known = self._kept.pop(key, None)
            kept = known if known and known[0] == state else (state, make())
            with self._lock:
                self._kept[key] = kept
                while len(self._kept) > self.size:
                    del self._kept[next(iter(self._kept))]
        return kept[1]


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


def _read_table(path: Path, threshold: float | None) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
        label, score = pd.to_numeric(table.label) == 1, pd.to_numeric(table.score)
        verdict = pd.to_numeric(table.verdict, errors="coerce")
        table = table.assign(label=label, score=score, called=_called(verdict, score, threshold))
    except (OSError, ValueError, AttributeError) as error:  # ValueError: what pandas raises for a file that is no table
        msg = f"the table of images of the run {path.parent.name} cannot be read; make the run again"
        raise InvalidInputError(msg) from error
    return table.assign(missed=table.label & ~table.called, alarm=~table.label & table.called)


def _called(verdict: pd.Series, score: pd.Series, threshold: float | None) -> pd.Series:
    """Say which images the model calls defective: as it said itself, or else by its threshold."""
    by_score = score > threshold if threshold is not None else pd.Series(data=False, index=score.index)
    return (verdict == 1).where(verdict.notna(), by_score)
