"""The figures of a benchmark as HTML: the table, accuracy against latency, and each model on each data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from anomalib_defect_plugins.demo.resources import TEMPLATES
from anomalib_defect_plugins.demo.theme import WIDE
from anomalib_defect_plugins.report import captions, html, tables
from anomalib_defect_plugins.report.images import as_uri
from anomalib_defect_plugins.report.labels import cost_title, figure_title, in_units, primary_figures, three_digits
from anomalib_defect_plugins.report.plot_style import darkened, marks
from anomalib_defect_plugins.report.plots import draw_pareto, render
from anomalib_defect_plugins.report.summary import Row, Summary
from anomalib_defect_plugins.report.tables import Cell, Table
from anomalib_defect_plugins.results.record import Setting, setting_title

COSTS = ("train_seconds", "parameters")
"""Costs in the table; the report has all."""


@dataclass(frozen=True)
class Choice:
    """What of a benchmark is shown; all of a kind where nothing is chosen.

    Args:
        models: Labels of models.
        data: Labels of data.
        supervisions: Labels of kinds of supervision.
        figures: Names of figures.
    """

    models: Sequence[str] = ()
    data: Sequence[str] = ()
    supervisions: Sequence[str] = ()
    figures: Sequence[str] = ()

    def holds(self, row: Row) -> bool:
        """Whether a row is shown."""
        parts = ((self.models, row.model), (self.data, row.data), (self.supervisions, row.supervision))
        return all(not wanted or label in wanted for wanted, label in parts)


@dataclass(frozen=True)
class Selection(Summary):
    """Some rows and figures of a summary. What is best, and the colour of a model, is as it is among all.

    Args:
        whole: The summary.
        choice: What of it is shown.
    """

    whole: Summary
    choice: Choice

    @cached_property
    def models(self) -> list[str]:
        """All models, so that each keeps its colour."""
        return self.whole.models

    @cached_property
    def figures(self) -> list[str]:
        """Names of the figures that are shown."""
        return [name for name in self.whole.figures if not self.choice.figures or name in self.choice.figures]

    @cached_property
    def best(self) -> set[tuple[str, str, str, str]]:
        """Where a row is clearly the best among all."""
        return self.whole.best

    @cached_property
    def setting(self) -> Setting | None:
        """What stands for the latency of all models."""
        return self.whole.setting


def select(summary: Summary, choice: Choice) -> Selection:
    """Give the rows and figures that are chosen."""
    rows = tuple(row for row in summary.rows if choice.holds(row))
    return Selection(summary.results, rows, summary.labels, summary, choice)


def benchmark_table(selection: Selection) -> Table:
    """Make the table: a row for each model, data and supervision, with its figures, its latency and its costs."""
    rows = [[*_labels(row), *_figures(row, selection), *_costs(row, selection)] for row in selection.rows]
    titles = [*map(figure_title, selection.figures), "latency, ms", *map(cost_title, COSTS), "seeds"]
    contests = [row.contest for row in selection.rows]
    breaks = frozenset(at for at in range(1, len(contests)) if contests[at] != contests[at - 1])
    return Table("Benchmark", [*tables.LABELS, *titles], rows, breaks)


def _labels(row: Row) -> list[Cell]:
    return [tables.word(row.model, row.model), tables.word(row.data), tables.word(row.supervision)]


def _figures(row: Row, selection: Selection) -> list[Cell]:
    return [
        tables.number(row.figure(name), three_digits, (row.model, *row.contest, name) in selection.best)
        for name in selection.figures
    ]


def _costs(row: Row, selection: Selection) -> list[Cell]:
    latency = selection.latency(row.model)
    values = [latency, *(in_units(name, row.cost(name)) for name in COSTS)]
    # Their spread is in the report; here it would only make the table wider.
    return [*(tables.number(value and value._replace(spread=None)) for value in values), tables.count(len(row.records))]


def show_table(selection: Selection) -> str:
    """Write the table, and what the reader has to know of it."""
    setting = "" if selection.setting is None else _setting_note(selection.setting)
    return _write(
        "table.html",
        selection,
        table=benchmark_table(selection),
        note=f"{captions.FIGURES} {setting}",
        failed=tables.failed_table(selection.whole),
        remarks=tables.remarks(selection.whole),
    )


def _setting_note(setting: Setting) -> str:
    engine, precision, device, batch = setting
    return f"Latency: median with {setting_title(engine, precision)}, {device}, batch {batch}, mean over all runs."


def show_plot(selection: Selection) -> str:
    """Write accuracy against latency: for a telephone and a desk, for light and dark."""
    drawn = {width: draw_pareto(selection, narrow=width == "narrow") for width in ("wide", "narrow")}
    plots: dict[str, dict[str, str]] = {}
    for width, figure in drawn.items():
        if figure is not None:
            svg = render(figure, "svg")
            for look, content in (("light", svg), ("dark", darkened(svg))):
                plots.setdefault(look, {})[width] = as_uri(content, "image/svg+xml")
    return _write("plot.html", selection, plots=plots, wide=WIDE, captions=captions)


def show_categories(selection: Selection) -> str:
    """Write the primary figures of each model on each data set, as heat maps."""
    maps = [html._heat_map(name, selection) for name in primary_figures(selection.figures)]
    return _write("categories.html", selection, maps=maps)


def _write(template: str, selection: Selection, **more: Any) -> str:
    swatches: Mapping[str, Mapping[str, str]] = {
        name: html.swatch(mark) for name, mark in marks(selection.models).items()
    }
    return TEMPLATES.get_template(template).render(summary=selection, swatches=swatches, **more)
