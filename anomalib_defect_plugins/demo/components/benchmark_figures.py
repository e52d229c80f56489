"""Table and plots of a benchmark as HTML: metrics, accuracy against latency, and heat maps by data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from anomalib_defect_plugins.demo.resources import render_template
from anomalib_defect_plugins.demo.theme import MIN_DESKTOP_WIDTH
from anomalib_defect_plugins.report import captions, html, tables
from anomalib_defect_plugins.report.heat_map import heat_map
from anomalib_defect_plugins.report.images import as_uri
from anomalib_defect_plugins.report.labels import cost_title, in_units, metric_title, primary_metrics
from anomalib_defect_plugins.report.plot_style import darken
from anomalib_defect_plugins.report.plots import draw_pareto, render
from anomalib_defect_plugins.report.summary import Summary, SummaryRow
from anomalib_defect_plugins.report.tables import Cell, Table
from anomalib_defect_plugins.results.record import LatencySetting, setting_title

COSTS = ("train_seconds", "parameters")
"""Costs in the table; the report shows all of them."""


@dataclass(frozen=True)
class Filters:
    """Labels of the rows and names of the metrics to show. An empty sequence shows all.

    Args:
        models: Labels of models.
        data: Labels of data sets.
        supervisions: Labels of kinds of supervision.
        metrics: Names of metrics.
    """

    models: Sequence[str] = ()
    data: Sequence[str] = ()
    supervisions: Sequence[str] = ()
    metrics: Sequence[str] = ()

    def matches(self, row: SummaryRow) -> bool:
        """Return whether a row is shown."""
        pairs = ((self.models, row.model), (self.data, row.data), (self.supervisions, row.supervision))
        return all(not selected or label in selected for selected, label in pairs)


@dataclass(frozen=True)
class Selection(Summary):
    """Part of a summary. The best results, the colours of models and the latency setting are those of the whole.

    Args:
        whole: The whole summary.
        filters: Rows and metrics to show.
    """

    whole: Summary
    filters: Filters

    @cached_property
    def models(self) -> list[str]:
        """All models, so that each keeps its colour."""
        return self.whole.models

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the selected metrics."""
        return [name for name in self.whole.metrics if not self.filters.metrics or name in self.filters.metrics]

    @cached_property
    def best(self) -> set[tuple[str, str, str, str]]:
        """Rows and metrics where a row is clearly the best of the whole summary."""
        return self.whole.best

    @cached_property
    def latency_setting(self) -> LatencySetting | None:
        """Setting that the latency of all models refers to."""
        return self.whole.latency_setting


def select(summary: Summary, filters: Filters) -> Selection:
    """Return the part of a summary that matches the filters."""
    rows = tuple(row for row in summary.rows if filters.matches(row))
    return Selection(summary.results, rows, summary.labels, summary, filters)


def benchmark_table(selection: Selection) -> Table:
    """Build the table: one row per model, data set and supervision, with metrics, latency and costs."""
    rows = [[*tables.label_cells(row), *_metrics(row, selection), *_costs(row, selection)] for row in selection.rows]
    titles = [*map(metric_title, selection.metrics), "latency, ms", *map(cost_title, COSTS), "seeds"]
    breaks = tables.group_breaks([row.group for row in selection.rows])
    return Table("Benchmark", [*tables.LABELS, *titles], rows, breaks)


def _metrics(row: SummaryRow, selection: Selection) -> list[Cell]:
    return [tables.metric_cell(selection, row, name) for name in selection.metrics]


def _costs(row: SummaryRow, selection: Selection) -> list[Cell]:
    latency = selection.latency(row.model)
    values = [latency, *(in_units(name, row.cost(name)) for name in COSTS)]
    # The report shows the spread; here it would only widen the table.
    cells = [tables.number_cell(value and value._replace(spread=None)) for value in values]
    return [*cells, tables.seeds_cell(row)]


def render_table(selection: Selection) -> str:
    """Render the table, notes on how to read it, and failed runs."""
    setting = "" if selection.latency_setting is None else _setting_note(selection.latency_setting)
    return _render(
        "benchmark_table.html",
        selection,
        table=benchmark_table(selection),
        note=" ".join(filter(None, [captions.METRICS, captions.seen_labels(selection, selection.metrics), setting])),
        failed=tables.failed_table(selection.whole),
        remarks=tables.remarks(selection.whole),
    )


def _setting_note(setting: LatencySetting) -> str:
    engine, precision, device, batch = setting
    return f"Latency: median with {setting_title(engine, precision)}, {device}, batch {batch}, mean over all runs."


def render_pareto_plot(selection: Selection) -> str:
    """Render accuracy against latency, for narrow and wide pages and for both colour schemes."""
    drawings = {width: draw_pareto(selection, narrow=width == "narrow") for width in ("wide", "narrow")}
    plots: dict[str, dict[str, str]] = {}
    for width, drawing in drawings.items():
        if drawing is not None:
            svg = render(drawing, "svg")
            for scheme, content in (("light", svg), ("dark", darken(svg))):
                plots.setdefault(scheme, {})[width] = as_uri(content, "image/svg+xml")
    return _render("pareto_plot.html", selection, plots=plots, min_desktop_width=MIN_DESKTOP_WIDTH, captions=captions)


def render_heat_maps(selection: Selection) -> str:
    """Render the primary metrics of each model on each data set as heat maps."""
    names = primary_metrics(selection.metrics)
    note = captions.seen_labels(selection, names)
    return _render("heat_maps.html", selection, heat_maps=[heat_map(name, selection) for name in names], note=note)


def _render(template: str, selection: Selection, **values: Any) -> str:
    return render_template(template, summary=selection, swatches=html.swatches(selection), **values)
