"""Heat maps of a metric as HTML tables: a row for each model and supervision, a column for each data set."""

from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.colors import to_hex

from anomalib_defect_plugins.report.labels import MISSING, marked, metric_title, three_digits
from anomalib_defect_plugins.report.plots import HEAT_MAP_COLOURS, lowest_tenth, pair_title
from anomalib_defect_plugins.report.summary import Summary


@dataclass(frozen=True)
class HeatCell:
    """A cell of a heat map.

    Args:
        text: The metric as text, marked if its threshold has seen test labels.
        value: The metric; ``None`` if unknown.
        style: Colours as CSS; empty if the metric is unknown.
    """

    text: str
    value: float | None
    style: str


@dataclass(frozen=True)
class HeatMap:
    """A heat map.

    Args:
        title: Title of the metric.
        columns: Labels of the data sets.
        rows: Title, model and cells of each row.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, str, list[HeatCell]]]


def heat_map(name: str, summary: Summary) -> HeatMap:
    """Build the heat map of a metric."""
    values = [summary.by_data(*pair, name) for pair in summary.pairs]
    seen = [summary.data_with_seen_labels(*pair, name) for pair in summary.pairs]
    low = lowest_tenth(value for row in values for value in row.values())
    rows = [
        (pair_title(pair, summary), pair[0], [_cell(row.get(data), low, data in saw) for data in summary.data])
        for pair, row, saw in zip(summary.pairs, values, seen, strict=True)
    ]
    return HeatMap(metric_title(name), summary.data, rows)


def _cell(value: float | None, low: float, saw_labels: bool) -> HeatCell:
    if value is None:
        return HeatCell(MISSING, None, "")
    place = min(1.0, max(0.0, (value - low) / (1 - low)))
    ink = "#fff" if place < 0.5 else "#14171a"
    colour = to_hex(mpl.colormaps[HEAT_MAP_COLOURS](place))
    return HeatCell(marked(three_digits(value), saw_labels), value, f"background:{colour};color:{ink}")
