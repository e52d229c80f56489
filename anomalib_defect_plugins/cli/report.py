"""The command ``anomalib-defects report``."""

import argparse
import sys
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    about = (
        "Write report.md, index.html (one page that needs no other file) and plots of a results folder. Every figure "
        "is the mean over the seeds with its spread; what is not clearly the best is not called so."
    )
    command = commands.add_parser(
        "report", help="write tables, plots and a page of a benchmark's results", description=about, allow_abbrev=False
    )
    command.add_argument("results", type=Path, metavar="RESULTS", help="folder that 'benchmark' wrote to")
    command.add_argument("--out", type=Path, metavar="DIR", help="folder to write to; RESULTS/report by default")
    command.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from anomalib_defect_plugins.report import write_report

    sys.stdout.write(f"report: {write_report(options.results, options.out)}\n")
    return 0
