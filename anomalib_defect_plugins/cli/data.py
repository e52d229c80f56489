"""``anomalib-defects data``: show images, defect types and sizes of a data module, and a contact sheet."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from anomalib_defect_plugins.cli.datamodules import find_datamodule, set_up
from anomalib_defect_plugins.cli.tables import print_table
from anomalib_defect_plugins.core.errors import InvalidInputError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = "Show the images of a data module by defect type and split, their sizes, and a contact sheet."
    command = commands.add_parser(
        "data",
        help="show the content of a data module",
        description=about,
        usage="anomalib-defects data NAME [--out SHEET.png] [--images N] [--json] [options of the data module]",
        epilog="Options of the data module are those of anomalib, with or without 'data.': --data.root R or --root R. "
        "'anomalib train --data.help NAME' lists them.",
        allow_abbrev=False,
    )
    command.add_argument("name", metavar="NAME", help="name of a data module, such as TextureDefects")
    command.add_argument(
        "--out",
        type=Path,
        help="file for the contact sheet; default: NAME.png in the current folder, or none with --json",
    )
    command.add_argument(
        "--images", type=int, default=8, help="images of each type and split on the sheet, 0 for no sheet; default: 8"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(run=_run, rest=[])


def _run(options: argparse.Namespace) -> int:
    cls = find_datamodule(options.name)
    sheet = _sheet_path(options)
    datamodule = set_up(cls, options.name, options.rest)
    from anomalib_defect_plugins.data.summary import summarize_datamodule

    replaced = sheet is not None and sheet.exists()
    summary = summarize_datamodule(datamodule, sheet, options.images)
    if options.json:
        sys.stdout.write(json.dumps({**summary, "contact_sheet": sheet and str(sheet)}, indent=2) + "\n")
    else:
        _print_summary(summary)
        if sheet:
            sys.stdout.write(f"contact sheet: {sheet}{' (replaced)' if replaced else ''}\n")
    return 0


def _print_summary(summary: dict[str, Any]) -> None:
    from anomalib_defect_plugins.data.summary import remarks, summary_table

    sys.stdout.write(" ".join(filter(None, (summary["name"], summary["category"]))) + "\n")
    print_table(summary_table(summary))
    sys.stdout.writelines(f"{line}\n" for line in remarks(summary))


def _sheet_path(options: argparse.Namespace) -> Path | None:
    """Return the file for the contact sheet, checked before any image is read."""
    if options.images < 0:
        msg = f"--images is {options.images}; use the number of images of each type and split, 0 for no contact sheet"
        raise InvalidInputError(msg)
    if not options.images or (options.json and options.out is None):
        return None
    path: Path = options.out or Path(f"{options.name}.png")
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        msg = f"--out {path} is not a PNG file in an existing folder; use one such as {options.name}.png"
        raise InvalidInputError(msg)
    return path
