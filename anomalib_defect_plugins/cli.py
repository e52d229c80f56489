"""The command ``anomalib-defects``."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from enum import Enum

from anomalib_defect_plugins.plugins.manager import Kind, Plugin, Registration, State

COLUMNS = ("name", "kind", "supervision", "paper", "distribution", "version", "state")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what stands after the name of the command; by default that of this process.

    Returns:
        The exit status: 0, or 1 after an error that is printed in one line.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except Exception as error:
        from anomalib_defect_plugins.console import error_line

        line = error_line(error)
        if line is None:
            raise
        sys.stderr.write(line + "\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="anomalib-defects", description="Surface-defect methods for anomalib.")
    parser.add_argument("--version", action=_PrintVersion)
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    lister = commands.add_parser("list", help="show every plugin, what it brings and what became of it")
    lister.add_argument("--json", action="store_true", help="print JSON instead of a table")
    lister.set_defaults(run=_list)
    return parser


class _PrintVersion(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: object, option: str | None = None
    ) -> None:
        del namespace, values, option
        from anomalib_defect_plugins import __version__

        sys.stdout.write(f"anomalib-defects {__version__}\n")
        parser.exit()


def _list(options: argparse.Namespace) -> int:
    from anomalib_defect_plugins.plugins.bridge import loaded_plugins

    rows = [row for plugin in loaded_plugins() for row in describe(plugin)]
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        _print_table(rows)
    return 0


def describe(plugin: Plugin) -> Iterator[dict[str, str | None]]:
    """One row for each class that a loaded plugin brings; one for the plugin itself if it brings none."""
    brought: list[Registration | None] = list(plugin.registrations) if plugin.state is State.LOADED else []
    for item in brought or [None]:
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
    return declared.value if isinstance(declared, Enum) else None


def _print_table(rows: list[dict[str, str | None]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS)
    for row in rows:
        state = f"{row['state']}: {row['reason']}" if row["reason"] else row["state"]
        table.add_row(*(Text(str({**row, "state": state}[column] or "-")) for column in COLUMNS))
    console = Console()
    if not console.is_terminal:
        # A pipe has no width of its own, and grep wants a row in one line.
        console = Console(width=console.measure(table, options=console.options.update(max_width=10_000)).maximum)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
