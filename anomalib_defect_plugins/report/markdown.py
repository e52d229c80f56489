"""The report in Markdown."""

import re
from collections.abc import Iterable, Iterator, Sequence

from anomalib_defect_plugins.report import captions, tables
from anomalib_defect_plugins.report.latency_tables import latency_overview, latency_table
from anomalib_defect_plugins.report.operating_table import operating_table
from anomalib_defect_plugins.report.summary import Summary
from anomalib_defect_plugins.report.tables import Cell, Table


def write_markdown(summary: Summary, plots: Sequence[str]) -> str:
    """Write the report.

    Args:
        summary: The results.
        plots: Names of the plots that exist, as in ``plots/NAME.png``.
    """
    results = summary.results
    parts = [f"# {escape(results.name)}", escape(captions.overview(summary)), *map(escape, tables.remarks(summary))]
    parts += _section("Summary", captions.summary_note(summary), filter(None, [tables.summary_table(summary)]))
    parts += _section("Data sets", captions.with_images(captions.DATA_SETS, summary), tables.data_tables(summary))
    parts += _section("Metrics", captions.with_images(captions.METRICS, summary), tables.metric_tables(summary))
    parts += _section("Operating points", captions.OPERATING_POINTS, filter(None, [operating_table(summary)]))
    parts += [*_plots(["cost_curve"], plots, summary), escape(captions.COST_CURVE)] if "cost_curve" in plots else []
    parts += _plots(["categories"], plots, summary)
    latencies = [latency_overview(summary), latency_table(summary)]
    parts += _section("Latency", captions.latency_note(summary), filter(None, latencies))
    parts += _bullets("", tables.unmeasured(summary))
    parts += _plots(["pareto"], plots, summary)
    parts += [escape(captions.PARETO), *_bullets("", captions.pareto_fronts(summary))] if "pareto" in plots else []
    parts += _section("Cost", captions.COST, filter(None, [tables.cost_table(summary)]))
    parts += _plots(["cost"], plots, summary)
    parts += _section("Failed", captions.FAILED, filter(None, [tables.failed_table(summary)]))
    parts += _bullets("## Left out", results.left_out)
    parts += _section("Environment", "", filter(None, [tables.environment_table(summary)]))
    parts += ["## Settings", fenced(results.configuration, "yaml")] if results.configuration else []
    return "\n\n".join([*parts, *_commands(summary)]) + "\n"


def _section(title: str, about: str, content: Iterable[Table]) -> list[str]:
    parts = [part for table in content for part in _table(table, title)]
    return [f"## {title}", *filter(None, [escape(about)]), *parts] if parts else []


def _table(table: Table, section: str) -> Iterator[str]:
    if table.title != section:
        yield f"### {table.title}"
    # Columns of numbers only are aligned right.
    numeric = [all(row[index].numeric for row in table.rows) for index in range(len(table.columns))]
    lines = [_line(map(escape, table.columns)), _line("---:" if right else "---" for right in numeric)]
    yield "\n".join([*lines, *(_line(map(_cell, row)) for row in table.rows)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return f"**{escape(cell.text)}**" if cell.bold else escape(cell.text)


def _plots(names: Iterable[str], existing: Sequence[str], summary: Summary) -> list[str]:
    return [f"![{escape(captions.alt_text(name, summary))}](plots/{name}.png)" for name in names if name in existing]


def _bullets(title: str, lines: Sequence[str]) -> list[str]:
    return [*filter(None, [title]), "\n".join(f"- {escape(line)}" for line in lines)] if lines else []


def _commands(summary: Summary) -> Iterator[str]:
    yield "## Repeat"
    yield captions.REPEAT
    for model, rows in tables.commands(summary).items():
        yield f"### {escape(model)}"
        for row, runs in rows.items():
            yield f"{escape(row)}:"
            yield fenced("\n".join(f"{command}  # {seed}" for seed, command in runs), "sh")


def escape(text: str) -> str:
    """Escape text for Markdown, and join its lines."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Hashes and dashes are markup only at the beginning of a line, so they stay.
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)


def fenced(text: str, language: str) -> str:
    """Format text as a code block, with a fence longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
