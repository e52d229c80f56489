"""``anomalib-defects list``: list every plugin, what it registers and whether it loaded."""

import argparse
import json
import sys
from collections.abc import Iterator
from enum import Enum

from anomalib_defect_plugins.cli.tables import print_table
from anomalib_defect_plugins.plugins import bridge
from anomalib_defect_plugins.plugins.manager import Kind, Plugin, Registration, State

COLUMNS = ("name", "kind", "supervision", "paper", "distribution", "version", "state")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    command = commands.add_parser("list", help="show every plugin, what it registers and whether it loaded")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    rows = [row for plugin in bridge.loaded_plugins() for row in describe(plugin)]
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        _print_rows(rows)
    return 0


def describe(plugin: Plugin) -> Iterator[dict[str, str | None]]:
    """Yield a row for each class that a loaded plugin registers, or one row for the plugin itself."""
    registrations: list[Registration | None] = list(plugin.registrations) if plugin.state is State.LOADED else []
    for item in registrations or [None]:
        yield {
            "name": item.name if item else plugin.name,
            "kind": item.kind.value if item else None,
            "supervision": _supervision(item.cls) if item and item.kind is Kind.MODEL else None,
            "paper": getattr(item.cls, "paper", None) if item else None,
            "plugin": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "state": plugin.state.value,
            "reason": plugin.reason or None,
        }


def _supervision(cls: type) -> str | None:
    declared = getattr(cls, "supervision", None)
    return str(declared.value) if isinstance(declared, Enum) else None


def _print_rows(rows: list[dict[str, str | None]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS)
    for row in rows:
        state = f"{row['state']}: {row['reason']}" if row["reason"] else row["state"]
        table.add_row(*(Text(str({**row, "state": state}[column] or "-")) for column in COLUMNS))
    print_table(table)
