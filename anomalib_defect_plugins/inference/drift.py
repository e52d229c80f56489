"""Drift check: whether the images of an inspection are like those of an earlier one.

Each quantity of an image becomes the normal quantile of its rank among the reference images, so that no distribution
is assumed, and one extreme image has a bounded effect. An exponentially weighted moving average (Roberts, Control chart
tests based on geometric moving averages, Technometrics 1959) adds up small changes. Its limit follows from simulation
for the sizes of both tables: without drift, at most one inspection of up to ``MAX_RUN`` images in a hundred raises an
alert. Neighbouring images that resemble each other
count as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.signal import lfilter
from scipy.special import ndtri

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.files import write_bytes
from anomalib_defect_plugins.core.image_statistics import COLUMNS
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.report.control_chart import draw_control_charts
from anomalib_defect_plugins.report.operating_point import render_png

QUANTITIES = ("score", *COLUMNS)
"""Columns that are compared."""

WEIGHT = 0.1
"""Weight of the newest image in the moving average."""

FALSE_ALERT_RATE = 0.01
"""Maximum probability of an alert without drift, over all quantities."""

MIN_REFERENCE = 20
"""Minimum number of reference images."""

MAX_REFERENCE = 2000
"""Reference images up to which the limit is simulated; more do not change it."""

MAX_RUN = 1000
"""Images of a run up to which the limit is simulated."""

DRAWS = 3000
"""Simulated inspections without drift."""

Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Chart:
    """The control chart of a quantity.

    Args:
        average: Moving average of each image, in standard deviations of the reference, shape (N,).
        limit: Largest absolute value without an alert.
    """

    average: Values
    limit: float

    @property
    def alert(self) -> int | None:
        """Index of the first image beyond the limit; ``None`` if there is none."""
        beyond = np.flatnonzero(np.abs(self.average) > self.limit)
        return int(beyond[0]) if len(beyond) else None

    @property
    def is_higher(self) -> bool:
        """Whether the values at the alert are higher than those of the reference."""
        return self.alert is not None and bool(self.average[self.alert] > 0)


def check_drift(reference: pd.DataFrame, table: pd.DataFrame) -> dict[str, Chart]:
    """Compare the images of a table, in their order, with those of a reference table.

    Args:
        reference: Table of ``anomalib-defects inspect`` on images of a good state of the line, at least 20.
        table: Table of the images to check.

    Returns:
        The control chart of each quantity. Images with an error are left out.

    Raises:
        InvalidInputError: If the reference has too few images.
    """
    former, present = (_complete(rows) for rows in (reference, table))
    _check_size(former)
    return {name: _chart(former[name].to_numpy(), present[name].to_numpy()) for name in QUANTITIES}


def read_reference(path: Path) -> pd.DataFrame:
    """Read a table of ``anomalib-defects inspect``.

    Raises:
        MissingDataError: If it does not exist.
        InvalidInputError: If it is no such table, one of an older version, or one of too few images.
    """
    if not path.is_file():
        msg = f"{path} not found; 'anomalib-defects inspect' on images of a good state writes a reference table"
        raise MissingDataError(msg)
    try:
        table = pd.read_parquet(path, columns=["path", *QUANTITIES])
    except (OSError, ValueError, KeyError) as error:
        msg = f"{path} has no columns {', '.join(QUANTITIES)}; inspect the reference images again (--reference)"
        raise InvalidInputError(msg) from error
    _check_size(_complete(table))
    return table


def _check_size(reference: pd.DataFrame) -> None:
    if len(reference) < MIN_REFERENCE:
        images = counted(len(reference), "image")
        msg = f"the reference table has {images}; use one of at least {MIN_REFERENCE} (--reference)"
        raise InvalidInputError(msg)


def drift_line(charts: Mapping[str, Chart], table: pd.DataFrame, images: int) -> str:
    """Describe the result in one line.

    Args:
        charts: Control chart of each quantity.
        table: Table of the images that were checked.
        images: Number of images in the reference table.
    """
    paths = _complete(table).path.tolist()
    alerts = sorted((chart.alert, name) for name, chart in charts.items() if chart.alert is not None)
    if not alerts:
        return f"drift: none found in {counted(len(paths), 'image')}, compared with {images} reference images"
    first, _ = alerts[0]
    parts = [
        f"{name} {'higher' if charts[name].is_higher else 'lower'} (from image {index + 1})" for index, name in alerts
    ]
    return f"DRIFT: {', '.join(parts)} than in {images} reference images; the first alert is at {paths[first]}"


def report_drift(reference: pd.DataFrame, out: Path) -> str:
    """Check the table of an inspection, draw its control charts beside it, and return the result in one line.

    Raises:
        InvalidInputError: If the reference has too few images, or the picture cannot be written.
    """
    table = pd.read_parquet(out, columns=["path", *QUANTITIES])
    charts = check_drift(reference, table)
    picture = out.with_suffix(".drift.png")
    figure = draw_control_charts({name: (chart.average, chart.limit) for name, chart in charts.items()})
    try:
        write_bytes(picture, render_png(figure))
    except OSError as error:
        msg = f"cannot write {picture} ({error.strerror or error}); free space, or allow writing"
        raise InvalidInputError(msg) from error
    return f"{drift_line(charts, table, len(_complete(reference)))}\ncontrol charts: {picture}"


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    return table.dropna(subset=list(QUANTITIES))


def _chart(reference: Values, values: Values) -> Chart:
    average = _moving_average(_normal_ranks(reference, values))
    # The order of the reference images shows how much neighbours resemble each other.
    length = _correlation_length(_normal_ranks(reference, reference))
    return Chart(average, _limit(min(len(reference), MAX_REFERENCE), min(max(len(values), 1), MAX_RUN), length))


def _normal_ranks(reference: Values, values: Values) -> Values:
    """Return the normal quantiles of the ranks of values among reference values, equal ones in the middle."""
    ordered = np.sort(reference)
    ranks = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    return np.asarray(ndtri((ranks + 0.5) / (len(reference) + 1)))


def _moving_average(values: Values) -> Values:
    """Return the exponentially weighted moving average along the last axis, from 0 on."""
    return np.asarray(lfilter([WEIGHT], [1, WEIGHT - 1], values, axis=-1))


def _correlation_length(values: Values) -> int:
    """Return the number of neighbouring images that count as one: those with a correlation above its standard error."""
    centred = values - values.mean()
    variance = float(np.mean(centred**2))
    length = 1
    while variance and length < len(values) // 4:
        if np.mean(centred[length:] * centred[:-length]) / variance < 1 / len(values) ** 0.5:
            break
        length += 1
    return length


@lru_cache(maxsize=64)
def _limit(reference: int, run: int, length: int) -> float:
    """Return the limit of the moving average for numbers of images.

    Args:
        reference: Number of reference images.
        run: Number of images of a run.
        length: Number of neighbouring images that are equal in the simulation.
    """
    rng = np.random.default_rng(0)

    def draw(size: int) -> Values:
        return np.repeat(rng.random(-(-size // length)), length)[:size]

    highest = [np.abs(_moving_average(_normal_ranks(draw(reference), draw(run)))).max() for _ in range(DRAWS)]
    return float(np.quantile(highest, 1 - FALSE_ALERT_RATE / len(QUANTITIES)))
