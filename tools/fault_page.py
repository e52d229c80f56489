"""The page ``docs/fault-drill.md``: its tables are made by commands, the text around them by people."""

import os
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def write_table(page: Path, outcomes: Mapping[str, Mapping[str, Any]], model: str) -> None:
    """Write the row of a model, and an example of the line that each fault ends with.

    Args:
        page: The page; it has the marks ``<!-- NAME -->`` and ``<!-- end of NAME -->`` around each table.
        outcomes: By fault: ``good``, ``text`` and ``line``.
        model: The model, whose row is replaced.
    """
    cells = [it["text"] if it["good"] else f"**failed**: {it['text']}" for it in outcomes.values()]
    row(page, "outcomes", [model, *cells, today()], ["model", *outcomes, "run on"])
    for fault, outcome in outcomes.items():
        if outcome["line"]:
            row(page, "lines", [fault, f"`{' '.join(outcome['line'].split())}`"], ["fault", "line"])


def today() -> str:
    """Give the date."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def row(page: Path, name: str, cells: list[str], columns: list[str]) -> None:
    """Put a row into one of the tables of the page, in the place of the one that begins alike; atomically."""
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    found = re.search(f"{re.escape(begin)}\n(.*?){re.escape(end)}", text, re.DOTALL)
    if found is None:
        msg = f"{page} has no table between {begin} and {end}"
        raise ValueError(msg)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in found[1].splitlines()[2:]}
    rows[cells[0]] = line(cells)
    table = "\n".join([line(columns), line(["---"] * len(columns)), *rows.values()])
    partial = page.with_name(f"{page.name}.part")
    partial.write_text(f"{text[: found.start()]}{begin}\n{table}\n{end}{text[found.end() :]}", encoding="utf-8")
    os.replace(partial, page)


def line(cells: list[str]) -> str:
    """Write a row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
