"""Writer of the tables in ``docs/fault-drill.md``."""

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from anomalib_defect_plugins.core.files import write_text


def write_table(page: Path, outcomes: Mapping[str, Mapping[str, Any]], model: str) -> None:
    """Write the row of a model, and the error message of each fault.

    Args:
        page: Markdown file with the comments ``<!-- NAME -->`` and ``<!-- end of NAME -->`` around each table.
        outcomes: ``good``, ``text`` and ``line`` of each fault.
        model: Name of the model whose row is replaced.
    """
    cells = [value["text"] if value["good"] else f"**failed**: {value['text']}" for value in outcomes.values()]
    write_row(page, "outcomes", [model, *cells, today()], ["model", *outcomes, "run on"])
    for fault, outcome in outcomes.items():
        if outcome["line"]:
            write_row(page, "lines", [fault, f"`{' '.join(outcome['line'].split())}`"], ["fault", "line"])


def today() -> str:
    """Return the current date in ISO format."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def write_row(page: Path, name: str, cells: list[str], columns: list[str]) -> None:
    """Add a row to a table of the page, or replace the row with the same first cell."""
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    table = re.search(f"{re.escape(begin)}\n(.*?){re.escape(end)}", text, re.DOTALL)
    if table is None:
        msg = f"{page} has no table between {begin} and {end}"
        raise ValueError(msg)
    rows = {text.split(" | ")[0].removeprefix("| "): text for text in table[1].splitlines()[2:]}
    rows[cells[0]] = format_row(cells)
    lines = "\n".join([format_row(columns), format_row(["---"] * len(columns)), *rows.values()])
    write_text(page, f"{text[: table.start()]}{begin}\n{lines}\n{end}{text[table.end() :]}")


def format_row(cells: list[str]) -> str:
    """Format a row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
