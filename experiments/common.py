"""Parts that the experiment scripts share: options, training, stored results and Markdown tables.

Scripts in subfolders add this folder to ``sys.path`` before they import this module.
"""

import json
import os
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.engine import Engine
from anomalib.models import Padim
from anomalib.models.components import AnomalibModule
from torch import Tensor

from anomalib_defect_plugins.core.files import write_text

PRETRAINED = "mobilenetv2_100"
"""Backbone of the methods with ImageNet weights."""

QUIET: dict[str, Any] = {"evaluator": False, "visualizer": False}

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

DIGITS = {"train s": 0, "parameters": 0, "OpenVINO ms": 1}
"""Digits of columns in :func:`mean_rows`; 3 for the others."""


def data_root(name: str) -> Path:
    """Return the folder of a data set below ``DEFECT_DATA_ROOT``."""
    return Path(os.environ["DEFECT_DATA_ROOT"]) / name


def add_run_options(parser: ArgumentParser, out: str) -> None:
    """Add the options of all scripts that train on real data."""
    parser.add_argument("--precision", default="32-true", help="for training; bf16-mixed is faster on a CPU with AMX")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="data-loading processes")
    parser.add_argument("--out", type=Path, default=Path(out))


# Runs


def create_padim(**arguments: Any) -> AnomalibModule:
    """Create the PaDiM that the methods are compared with."""
    layers = ["blocks.1", "blocks.2", "blocks.4"]
    return cast(AnomalibModule, Padim(backbone=PRETRAINED, layers=layers, n_features=100, **arguments))


def create_engine(folder: Path, precision: str = "32-true", logger: Any = False) -> Engine:
    """Create an engine that trains on one device without validation."""
    return Engine(
        default_root_dir=folder,
        accelerator="auto",
        devices=1,
        precision=precision,
        limit_val_batches=0,
        logger=logger,
        enable_progress_bar=False,
    )


def timed_fit(engine: Engine, model: AnomalibModule, data: AnomalibDataModule) -> float:
    """Train a model and return the time in seconds."""
    start = time.perf_counter()
    engine.fit(model, datamodule=data)
    return time.perf_counter() - start


def train_and_test(
    model: AnomalibModule, data: AnomalibDataModule, root: Path, trainer: Mapping[str, Any]
) -> dict[str, float]:
    """Train and test as ``anomalib train`` does; return the metrics and the training time."""
    engine = Engine(default_root_dir=root, enable_progress_bar=False, **trainer)
    seconds = timed_fit(engine, model, data)
    (metrics,) = engine.test(model, datamodule=data, verbose=False)
    return {**metrics, "train s": seconds}


def once(path: Path, work: Callable[[], Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics stored at ``path``; if the file does not exist, compute and store them first."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(work(), default=float))
    return cast(dict[str, float], json.loads(path.read_text()))


def transformed(model: AnomalibModule, dataset: AnomalibDataset) -> Iterator[tuple[Any, Tensor, Tensor | None]]:
    """Yield each item of a data set with its image and mask as transformed by a model, which is set to inference.

    The image is on :data:`DEVICE` and has the shape (1, 3, H, W), the mask (H, W).
    """
    transform = cast(Any, model.to(DEVICE).eval().pre_processor).transform
    for index in range(len(dataset)):
        item = dataset[index]
        # With a batch dimension, the mask would become a plain tensor, which the transform does not resize.
        image, mask = transform(item.image, item.gt_mask)
        yield item, image[None].to(DEVICE), mask


def best_pixel_f1(values: Tensor, truth: Tensor) -> float:
    """Compute the best F1 of one threshold for all pixels, which is an upper bound."""
    hits = truth[values.argsort(descending=True)].double().cumsum(0)
    return float((2 * hits / (torch.arange(1, len(hits) + 1) + truth.sum())).max())


# Tables


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows with equal keys as a Markdown table; floats have four digits, NaN is an empty cell."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4g}"
    return str(value)


def mean_rows(table: pd.DataFrame, by: list[str]) -> list[dict[str, Any]]:
    """Return a row per group, with means over the runs, and minimum and maximum in brackets if they differ."""
    names = [name for name in table.columns if name not in {*by, "seed"}]
    return [
        dict(zip(by, key, strict=True))
        | {"runs": len(group)}
        | {name: _spread(group[name], DIGITS.get(name, 3)) for name in names}
        for key, group in table.groupby(by, sort=False)
    ]


def _spread(values: pd.Series, digits: int) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in (values.mean(), values.min(), values.max()))
    return mean if low == high else f"{mean} ({low} to {high})"
