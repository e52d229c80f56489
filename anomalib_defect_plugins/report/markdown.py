"""The report in Markdown."""

import re
from collections.abc import Iterable, Iterator, Sequence

from anomalib_defect_plugins.report import captions, tables
from anomalib_defect_plugins.report.summary import Summary
from anomalib_defect_plugins.report.tables import Cell, Table


def write_markdown(summary: Summary, plots: Sequence[str]) -> str:
    """Write the report.

    Args:
        summary: The results.
        plots: Names of the plots that were made, as in ``plots/NAME.png``.
    """
    results = summary.results
    parts = [f"# {escape(results.name)}", escape(captions.overview(summary)), *map(escape, tables.remarks(summary))]
    parts += _section("Summary", captions.summary_note(summary), filter(None, [tables.summary_table(summary)]))
    parts += _section("Figures", captions.FIGURES, tables.figure_tables(summary))
    parts += _plots(["categories"], plots, summary)
    found = [tables.latency_overview(summary), tables.latency_table(summary)]
    parts += _section("Latency", captions.latency_note(summary), filter(None, found))
    parts += _bullets("", tables.unmeasured(summary))
    parts += _plots(["pareto"], plots, summary)
    parts += _bullets("Pareto front:", captions.pareto_fronts(summary))
    parts += _section("Cost", captions.COST, filter(None, [tables.cost_table(summary)]))
    parts += _plots(["cost"], plots, summary)
    parts += _section("Failed", captions.FAILED, filter(None, [tables.failed_table(summary)]))
    parts += _bullets("## Left out", results.left_out)
    parts += _section("Environment", "", filter(None, [tables.environment_table(summary)]))
    parts += ["## Settings", fenced(results.configuration, "yaml")] if results.configuration else []
    return "\n\n".join([*parts, *_commands(summary)]) + "\n"


def _section(title: str, about: str, found: Iterable[Table]) -> list[str]:
    found = list(found)
    if not found:
        return []
    return [f"## {title}", *filter(None, [escape(about)]), *(part for table in found for part in _table(table, title))]


def _table(table: Table, section: str) -> Iterator[str]:
    if table.title != section:
        yield f"### {table.title}"
    # Only a column of nothing but numbers is set right.
    numeric = [all(row[at].numeric for row in table.rows) for at in range(len(table.columns))]
    lines = [_line(map(escape, table.columns)), _line("---:" if right else "---" for right in numeric)]
    yield "\n".join([*lines, *(_line(map(_cell, row)) for row in table.rows)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return f"**{escape(cell.text)}**" if cell.bold else escape(cell.text)


def _plots(names: Iterable[str], made: Sequence[str], summary: Summary) -> list[str]:
    return [f"![{escape(captions.alt(name, summary))}](plots/{name}.png)" for name in names if name in made]


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
    """Write text such that Markdown takes no character of it for markup; lines are joined."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # An underscore or a star counts only beside a letter or a bracket; a hash or a dash only where a line begins.
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)


def fenced(text: str, language: str) -> str:
    """Write text as a block of code, with a fence longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
