"""The ``anomalib-defects`` command line."""

import argparse
import sys
from collections.abc import Sequence

from anomalib_defect_plugins.cli import (
    benchmark,
    convert,
    data,
    demo,
    export,
    inspect,
    list_plugins,
    new,
    report,
    retrain,
    serve,
    synthesize,
    threshold,
    watch,
)
from anomalib_defect_plugins.cli.telemetry import disable_telemetry
from anomalib_defect_plugins.core.environment import show_traceback
from anomalib_defect_plugins.core.errors import error_line
from anomalib_defect_plugins.core.stop_signals import INTERRUPTED

COMMANDS = (
    *(list_plugins, data, convert, synthesize, benchmark, report, threshold),
    *(export, inspect, watch, serve, demo, retrain, new),
)
"""Modules of the subcommands, in the order of ``--help``."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Arguments after the name of the command; by default those of this process.

    Returns:
        Exit status: 0; 1 after an error, and 130 after Ctrl-C, which are printed as one line.
    """
    options = parse_arguments(arguments)
    disable_telemetry()
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        if show_traceback():
            raise
        sys.stderr.write("stopped\n")
        return INTERRUPTED
    except Exception as error:
        line = error_line(error)
        if line is None or show_traceback():
            raise
        sys.stderr.write(line + "\n")
        return 1


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; subcommands with a ``rest`` get the unknown ones, for their data module."""
    parser = _create_parser()
    options, rest = parser.parse_known_args(arguments)
    if "rest" in options:
        options.rest = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="anomalib-defects", description="Surface-defect methods for anomalib.")
    parser.add_argument("--version", action=_PrintVersion)
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


class _PrintVersion(argparse.Action):
    """Looks the version up only when it is printed."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: object, option: str | None = None
    ) -> None:
        del namespace, values, option
        from anomalib_defect_plugins import __version__

        sys.stdout.write(f"anomalib-defects {__version__}\n")
        parser.exit()
