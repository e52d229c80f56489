"""Retraining on corrected images: a candidate replaces nothing unless it keeps the operating point on a frozen set."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from anomalib_defect_plugins.benchmark.configuration import read_benchmark
from anomalib_defect_plugins.benchmark.job import BenchmarkRuns, ExecutionSettings
from anomalib_defect_plugins.benchmark.runners import SerialRunner
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.files import write_text
from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.data.folder_reader import MASKS
from anomalib_defect_plugins.inference.labelled_images import LabelledImage, labelled_images
from anomalib_defect_plugins.inference.run_model import load_model
from anomalib_defect_plugins.results.folder import RUNS
from anomalib_defect_plugins.results.record import FILE, RunRecord, read_record

CANDIDATE = ".candidate"
"""Suffix of the folder of a model that is not promoted."""

DATA = ".parts"
"""Folder of merged images beside the results folders; hidden, since it holds no results."""


@dataclass(frozen=True)
class FrozenErrors:
    """Errors of a model at its threshold on the frozen set.

    Args:
        misses: Number of defective images that it calls normal.
        bad: Number of defective images.
        false_alarms: Number of good images that it calls defective.
        good: Number of good images.
    """

    misses: int
    bad: int
    false_alarms: int
    good: int

    def allows(self, candidate: "FrozenErrors") -> bool:
        """Whether a candidate makes no more errors of either kind."""
        return candidate.misses <= self.misses and candidate.false_alarms <= self.false_alarms

    def __str__(self) -> str:
        """Format the errors: ``misses 1 of 20, false alarms 0 of 30``."""
        return f"misses {self.misses} of {self.bad}, false alarms {self.false_alarms} of {self.good}"


@dataclass(frozen=True)
class Outcome:
    """Result of a retraining.

    Args:
        present: Errors of the present model.
        candidate: Errors of the candidate.
        folder: Results folder of the candidate: ``out`` if it is promoted, else one beside it.
        left_out: Number of corrected images that are in the frozen set, and so not trained on.
    """

    present: FrozenErrors
    candidate: FrozenErrors
    folder: Path
    left_out: int

    @property
    def is_promoted(self) -> bool:
        """Whether the candidate keeps the operating point."""
        return self.present.allows(self.candidate)


def retrain(model: Path, corrections: Path, frozen: Path, out: Path, data: Path | None = None) -> Outcome:
    """Train a candidate with the recipe of a run on its data and on corrected images, and compare it on a frozen set.

    Args:
        model: Folder of a run, or a results folder with one run.
        corrections: Folder of corrected images in the layout of ``DefectFolder``.
        frozen: Folder with ``good`` and defective images that are never trained on.
        out: New results folder of a promoted candidate.
        data: Folder of the images that the model was trained on; by default that of the run.

    Raises:
        InvalidInputError: If the run, the folders or the images do not fit.
        MissingDataError: If a folder does not exist.
    """
    if out.exists():
        msg = f"--out {out} exists already; choose a new folder"
        raise InvalidInputError(msg)
    record = find_run(model)
    good, bad = labelled_images(frozen)
    images = [*good, *bad]
    present = count_errors(record, images)
    folder = out.with_name(out.name + CANDIDATE)
    shutil.rmtree(folder, ignore_errors=True)
    merged = out.absolute().parent / DATA / out.name
    shutil.rmtree(merged, ignore_errors=True)
    frozen_digests = {_digest(image.path) for image in images}
    left_out = merge([_data_folder(record, data), corrections], merged, frozen_digests)
    candidate = count_errors(_train(record, merged, folder), images)
    outcome = Outcome(present, candidate, folder, left_out)
    if outcome.is_promoted:
        folder.rename(out)
        outcome = Outcome(present, candidate, out, left_out)
    return outcome


def find_run(folder: Path) -> RunRecord:
    """Read a run that has kept its model.

    Args:
        folder: Folder of the run, or a results folder with one run.

    Raises:
        MissingDataError: If there is none.
        InvalidInputError: If there are several.
    """
    found = [folder] if (folder / FILE).is_file() else sorted(path.parent for path in folder.glob(f"{RUNS}/*/{FILE}"))
    if not found:
        msg = f"{folder} has no run; pass the folder of one, such as results/NAME/runs/KEY"
        raise MissingDataError(msg)
    if len(found) > 1:
        msg = f"{folder} has {len(found)} runs; pass the folder of one, such as {found[0]}"
        raise InvalidInputError(msg)
    return read_record(found[0] / FILE)


def count_errors(record: RunRecord, images: Sequence[LabelledImage]) -> FrozenErrors:
    """Count the errors of a model on images whose labels are known, at its own threshold.

    Raises:
        InvalidInputError: If it has no threshold.
    """
    model = load_model(record)
    if np.isnan(model.thresholds.image):
        msg = f"the model of {record.folder} has no threshold; train it with validation images"
        raise InvalidInputError(msg)
    is_bad = np.array([image.is_bad for image in images])
    scores = [model(_pixels(image.path)).score for image in images]
    found = np.array(scores, np.float32) >= np.float32(model.thresholds.image)
    misses, alarms = int((is_bad & ~found).sum()), int((~is_bad & found).sum())
    return FrozenErrors(misses, int(is_bad.sum()), alarms, int((~is_bad).sum()))


def merge(folders: Sequence[Path], target: Path, excluded: set[str]) -> int:
    """Copy folders of images and masks into one, the last folder with the last word on an image that is in several.

    Args:
        folders: Folders in the layout of ``DefectFolder``.
        target: New folder.
        excluded: Digests of images to leave out.

    Returns:
        Number of images left out.
    """
    for folder in folders:
        if not folder.is_dir():
            msg = f"{folder} not found; pass a folder with good and defective images"
            raise MissingDataError(msg)
    images = {_digest(path): (folder, path) for folder in folders for path in _images(folder)}
    for digest, (folder, path) in images.items():
        if digest not in excluded:
            _copy(path, target / path.relative_to(folder))
            for mask in _masks(folder, path):
                _copy(mask, target / mask.relative_to(folder))
    return sum(digest in excluded for digest in images)


def _images(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*/*")) if path.is_file() and path.parent.name != MASKS]


def _masks(folder: Path, image: Path) -> list[Path]:
    masks = (folder / MASKS / image.parent.name).glob("*")
    return [path for path in masks if path.stem == image.stem or path.stem.startswith(f"{image.stem}_")]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _data_folder(record: RunRecord, data: Path | None) -> Path:
    root = data or record.run.data.init_args.get("root")
    if root is None:
        msg = f"the data of {record.folder} is no folder of images; pass one with --data"
        raise InvalidInputError(msg)
    return Path(root)


def _train(record: RunRecord, data: Path, folder: Path) -> RunRecord:
    """Train the recipe of a run on a folder of images; the results are in ``folder``."""
    run = record.run
    arguments = {**run.data.init_args, "root": str(data)}
    supervision: dict[str, Any] = {"name": run.supervision.name}
    if run.supervision.class_path is not None:
        supervision |= run.supervision.specification
    content = {
        "name": "retrain",
        "trainer": dict(run.trainer),
        "models": [{"name": run.model.name, "supervision": run.supervision.name, **run.model.specification}],
        "data": [{"class_path": "DefectFolder", "init_args": arguments}],
        "supervision": [supervision],
        "seeds": [run.seed],
        "measure": run.measure.to_dict(),
    }
    config = data.with_name(f"{data.name}.yaml")  # a results folder may hold nothing else
    write_text(config, yaml.safe_dump(content, sort_keys=False))
    benchmark = read_benchmark(config)
    settings = ExecutionSettings(folder, str(config), torch.get_num_threads())
    table = SerialRunner(BenchmarkRuns(benchmark, settings)).run()
    if table.status.iloc[0] != "done":
        msg = f"the candidate was not trained: {table.error.iloc[0]}"
        raise InvalidInputError(msg)
    return find_run(folder)


def _pixels(path: str) -> Any:
    return (255 * read_image(path)[0].transpose(1, 2, 0)).round().astype(np.uint8)


def _digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
