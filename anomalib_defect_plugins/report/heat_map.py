"""TODO anomalib_defect_plugins/report/heat_map.py."""

from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.colors import to_hex

from anomalib_defect_plugins.report.labels import figure_title, three_digits
from anomalib_defect_plugins.report.plots import line_title, scale_of
from anomalib_defect_plugins.report.summary import Summary


@dataclass(frozen=True)
class HeatCell:
    """A cell of a heat map.

    Args:
        text: The figure.
        value: The same as a number.
        style: Its colours, as CSS; empty where there is no figure.
    """

    text: str
    value: float | None
    style: str


@dataclass(frozen=True)
class HeatMap:
    """A heat map as a table.

    Args:
        title: The figure.
        columns: Labels of the data.
        rows: Title of the row, its model, and its cells.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, str, list[HeatCell]]]


def _heat_map(name: str, summary: Summary) -> HeatMap:
    lines = summary.lines
    values = [summary.by_data(*line, name) for line in lines]
    low = scale_of(value for row in values for value in row.values())
    rows = [
        (line_title(line, summary), line[0], [_heat_cell(row.get(data), low) for data in summary.data])
        for line, row in zip(lines, values, strict=True)
    ]
    return HeatMap(figure_title(name), summary.data, rows)


def _heat_cell(value: float | None, low: float) -> HeatCell:
    if value is None:
        return HeatCell("–", None, "")
    place = min(1.0, max(0.0, (value - low) / (1 - low)))
    ink = "#fff" if place < 0.5 else "#14171a"
    return HeatCell(three_digits(value), value, f"background:{to_hex(mpl.colormaps['cividis'](place))};color:{ink}")
