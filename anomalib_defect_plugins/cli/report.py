"""``anomalib-defects report``: write tables, plots and a web page of a benchmark's results."""

import argparse
import sys
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Write report.md, index.html (a self-contained page) and plots of a results folder. Every metric is a mean "
        "over the seeds with its spread; a model is marked as the best only if the difference is clear."
    )
    command = commands.add_parser(
        "report", help="write tables, plots and a web page of a benchmark", description=about, allow_abbrev=False
    )
    command.add_argument("results", type=Path, metavar="RESULTS", help="results folder of 'anomalib-defects benchmark'")
    command.add_argument("--out", type=Path, metavar="DIR", help="folder for the report; default: RESULTS/report")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from anomalib_defect_plugins.report import write_report

    sys.stdout.write(f"report: {write_report(options.results, options.out)}\n")
    return 0
