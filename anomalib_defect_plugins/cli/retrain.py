"""``anomalib-defects retrain``: train a candidate on corrected images, and promote it if it is as good."""

import argparse
import sys
from pathlib import Path

from anomalib_defect_plugins.core.text import counted


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Train the recipe of a run again on its images and on corrected ones, such as the demo exports. The candidate "
        "is promoted to --out only if it makes no more misses and no more false alarms than the present model on a "
        "frozen set, which is never trained on; otherwise it stays beside --out, and the exit status is 1."
    )
    command = commands.add_parser(
        "retrain", help="train on corrected images, and keep the operating point", description=about, allow_abbrev=False
    )
    command.add_argument("model", metavar="RUN", type=Path, help="folder of a run, or results folder with one run")
    for name, required, what in (
        ("corrections", True, "folder of corrected images: good, defect types, masks"),
        ("frozen", True, "folder with good and defective images that are never trained on"),
        ("out", True, "new results folder of a promoted candidate"),
        ("data", False, "images that the model was trained on; default: those of the run"),
    ):
        command.add_argument(f"--{name}", metavar="DIR", type=Path, required=required, help=what)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from anomalib_defect_plugins.benchmark.retraining import retrain

    outcome = retrain(options.model, options.corrections, options.frozen, options.out, options.data)
    if outcome.left_out:
        sys.stdout.write(f"left out: {counted(outcome.left_out, 'image')} of the frozen set\n")
    sys.stdout.write(f"present:   {outcome.present}\ncandidate: {outcome.candidate}\n")
    verdict = "promoted" if outcome.is_promoted else "not promoted, more errors than the present model"
    sys.stdout.write(f"{verdict}: {outcome.folder}\n")
    return 0 if outcome.is_promoted else 1
