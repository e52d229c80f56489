"""The report as one HTML page that needs nothing else: no other file, no host, no script to be read."""

from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.markers import MarkerStyle

from anomalib_defect_plugins.report import TEMPLATES, captions, tables
from anomalib_defect_plugins.report.examples import Example, examples_of
from anomalib_defect_plugins.report.heat_map import _heat_map
from anomalib_defect_plugins.report.images import as_uri
from anomalib_defect_plugins.report.labels import primary_figures
from anomalib_defect_plugins.report.plot_style import Mark, darkened, marks
from anomalib_defect_plugins.report.plots import PLOTS, render
from anomalib_defect_plugins.report.summary import Row, Summary
from anomalib_defect_plugins.report.tables import Table

EXAMPLES_OF_A_MODEL = 8
"""So many rows of a model have example images; more would make a page of hundreds of them."""

WIDE = 720
"""Width of a page in CSS pixels from which plots are drawn for a wide one."""


@dataclass(frozen=True)
class Plot:
    """A plot in its four looks.

    Args:
        alt: What it shows.
        sources: Media query and data URI of each look; the first that applies counts.
        default: Data URI of the look for all others.
    """

    alt: str
    sources: tuple[tuple[str, str], ...]
    default: str


@dataclass(frozen=True)
class Model:
    """The section of a model.

    Args:
        name: Its label.
        anchor: Name of the section in the page.
        settings: What it was made with.
        figures: Its rows of the tables of figures.
        examples: Examples by row, and the seed they are from.
        without: How many of its rows have examples that are not shown.
    """

    name: str
    anchor: str
    settings: list[tuple[str, str]]
    figures: list[Table]
    examples: list[tuple[str, list[Example]]]
    without: int


def write_page(summary: Summary) -> str:
    """Write the page; every text from the results folder is escaped."""
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = marks(summary.models)
    return environment.get_template("page.html").render(
        summary=summary,
        results=summary.results,
        captions=captions,
        tables=tables,
        swatches={name: swatch(mark) for name, mark in style.items()},
        figures=tables.figure_tables(summary),
        fronts=captions.pareto_fronts(summary),
        plots={name: plot for name in ("pareto", "cost") if (plot := _plot(name, summary)) is not None},
        heat_maps=[_heat_map(name, summary) for name in primary_figures(summary.figures)],
        models=[_model(name, at, summary) for at, name in enumerate(summary.models)],
        wide=WIDE,
    )


def _plot(name: str, summary: Summary) -> Plot | None:
    wide, narrow = (PLOTS[name](summary, narrow) for narrow in (False, True))
    if wide is None or narrow is None:
        return None
    wide, narrow = render(wide, "svg"), render(narrow, "svg")
    dark, small = "(prefers-color-scheme: dark)", f"(max-width: {WIDE - 1}px)"
    sources = {f"{small} and {dark}": darkened(narrow), small: narrow, dark: darkened(wide)}
    uris = tuple((query, as_uri(svg, "image/svg+xml")) for query, svg in sources.items())
    return Plot(captions.alt(name, summary), uris, as_uri(wide, "image/svg+xml"))


def _model(name: str, at: int, summary: Summary) -> Model:
    rows = [row for row in summary.rows if row.model == name]
    found = [(row, examples) for row in rows if (examples := examples_of(row.records[0]))]
    figures = [_rows_of(table, name) for table in tables.figure_tables(summary)]
    return Model(
        name=name,
        anchor=f"model-{at + 1}",
        settings=tables.settings_of(summary, name),
        figures=[table for table in figures if table.rows],
        examples=[(_examples_title(row), examples) for row, examples in found[:EXAMPLES_OF_A_MODEL]],
        without=max(0, len(found) - EXAMPLES_OF_A_MODEL),
    )


def _rows_of(table: Table, model: str) -> Table:
    rows = [row[1:] for row in table.rows if row[0].model == model]  # in a table of its own it needs no name
    return Table(table.title, table.columns[1:], rows)


def _examples_title(row: Row) -> str:
    return f"{row.data} · {row.supervision} · seed {row.records[0].seed}"


def swatch(mark: Mark) -> Mapping[str, str]:
    """Give a mark as the outline of an SVG drawing, in a box of 16 by 16."""
    style = MarkerStyle(mark.shape)
    outline = style.get_path().transformed(style.get_transform())
    polygons = outline.to_polygons(closed_only=True) or [outline.vertices]
    half = max(abs(polygon).max() for polygon in polygons)
    points = [[(8 + 6.4 * x / half, 8 - 6.4 * y / half) for x, y in polygon] for polygon in polygons]
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in polygon) + "Z" for polygon in points)
    return {"path": path, "colour": mark.colour}
