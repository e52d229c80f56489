"""The report as one self-contained HTML page: no other files, no network, readable without scripts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.markers import MarkerStyle

from anomalib_defect_plugins.report import captions, tables
from anomalib_defect_plugins.report.assets import template_environment
from anomalib_defect_plugins.report.examples import Example, select_examples
from anomalib_defect_plugins.report.heat_map import heat_map
from anomalib_defect_plugins.report.images import as_uri, colour_scale
from anomalib_defect_plugins.report.labels import primary_metrics
from anomalib_defect_plugins.report.latency_tables import latency_overview, latency_table
from anomalib_defect_plugins.report.operating_table import operating_table
from anomalib_defect_plugins.report.plot_style import Mark, darken, marks
from anomalib_defect_plugins.report.plots import PLOTS, render
from anomalib_defect_plugins.report.summary import Summary, SummaryRow
from anomalib_defect_plugins.report.tables import Table

MAX_EXAMPLE_ROWS = 8
"""Rows of a model with example images; more would make the page very large."""

MIN_WIDE_WIDTH = 720
"""Width of the window in CSS pixels from which wide plots are shown."""

SVG = "image/svg+xml"


@dataclass(frozen=True)
class Plot:
    """A plot in four versions: wide and narrow, light and dark.

    Args:
        alt: Description for readers who cannot see it.
        sources: Media query and data URI of each version; the first that matches is shown.
        default: Data URI of the version that is shown otherwise.
    """

    alt: str
    sources: tuple[tuple[str, str], ...]
    default: str


@dataclass(frozen=True)
class ModelSection:
    """The section of a model.

    Args:
        name: Label of the model.
        anchor: Anchor of the section in the page.
        settings: Class, arguments and trainer, by name.
        metrics: Its rows of the tables of metrics.
        examples: Title and examples of each row.
        omitted: Number of its rows whose examples are not shown.
    """

    name: str
    anchor: str
    settings: list[tuple[str, str]]
    metrics: list[Table]
    examples: list[tuple[str, list[Example]]]
    omitted: int


def write_page(summary: Summary) -> str:
    """Write the page. Text from the results folder is escaped."""
    plots = {name: _plot(name, summary) for name in ("pareto", "cost", "cost_curve")}
    return (
        template_environment()
        .get_template("page.html")
        .render(
            summary=summary,
            results=summary.results,
            captions=captions,
            tables=tables,
            swatches=swatches(summary),
            metrics=tables.metric_tables(summary),
            operating=operating_table(summary),
            overview=latency_overview(summary),
            latencies=latency_table(summary),
            colour_scale=colour_scale(),
            fronts=captions.pareto_fronts(summary),
            plots={name: plot for name, plot in plots.items() if plot is not None},
            heat_maps=[heat_map(name, summary) for name in primary_metrics(summary.metrics)],
            heat_note=captions.seen_labels(summary, primary_metrics(summary.metrics)),
            models=[_section(name, f"model-{number}", summary) for number, name in enumerate(summary.models, start=1)],
        )
    )


def swatches(summary: Summary) -> dict[str, Mapping[str, str]]:
    """Return the marks of all models as SVG paths in a box of 16 by 16, and their colours."""
    return {name: {"path": _outline(mark), "colour": mark.colour} for name, mark in marks(summary.models).items()}


def _outline(mark: Mark) -> str:
    style = MarkerStyle(mark.shape)
    path = style.get_path().transformed(style.get_transform())
    polygons: list[npt.NDArray[Any]] = [np.asarray(polygon) for polygon in path.to_polygons(closed_only=True)]
    polygons = polygons or [np.asarray(path.vertices)]
    half = max(np.abs(polygon).max() for polygon in polygons)
    points = [[(8 + 6.4 * x / half, 8 - 6.4 * y / half) for x, y in polygon] for polygon in polygons]
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in polygon) + "Z" for polygon in points)


def _plot(name: str, summary: Summary) -> Plot | None:
    wide, narrow = (PLOTS[name](summary, narrow) for narrow in (False, True))
    if wide is None or narrow is None:
        return None
    wide_svg, narrow_svg = render(wide, "svg"), render(narrow, "svg")
    dark, small = "(prefers-color-scheme: dark)", f"(max-width: {MIN_WIDE_WIDTH - 1}px)"
    versions = {f"{small} and {dark}": darken(narrow_svg), small: narrow_svg, dark: darken(wide_svg)}
    sources = tuple((query, as_uri(svg, SVG)) for query, svg in versions.items())
    return Plot(captions.alt_text(name, summary), sources, as_uri(wide_svg, SVG))


def _section(name: str, anchor: str, summary: Summary) -> ModelSection:
    rows = [row for row in summary.rows if row.model == name]
    examples = [(row, selected) for row in rows if (selected := select_examples(row.records[0]))]
    metrics = [_rows_of(table, name) for table in tables.metric_tables(summary)]
    return ModelSection(
        name=name,
        anchor=anchor,
        settings=tables.settings_of(summary, name),
        metrics=[table for table in metrics if table.rows],
        examples=[(_examples_title(row), selected) for row, selected in examples[:MAX_EXAMPLE_ROWS]],
        omitted=max(0, len(examples) - MAX_EXAMPLE_ROWS),
    )


def _rows_of(table: Table, model: str) -> Table:
    rows = [row[1:] for row in table.rows if row[0].model == model]  # the section has the name of the model
    return Table(table.title, table.columns[1:], rows)


def _examples_title(row: SummaryRow) -> str:
    return f"{row.data} · {row.supervision} · seed {row.records[0].run.seed}"
