"""``anomalib-defects data``: the images, defect types and sizes of a data module, with a contact sheet."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from anomalib_defect_plugins.cli.datamodules import find_datamodule, print_table, set_up


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    about = "Show what is in a data module: images of each defect type and split, their sizes, and a contact sheet."
    data = commands.add_parser(
        "data",
        help="show what is in a data module",
        description=about,
        usage="anomalib-defects data NAME [--out SHEET.png] [--images N] [--json] [options of the data module]",
        epilog="Options of the data module are given as for anomalib, with or without 'data.': --data.root R or "
        "--root R. 'anomalib train --data.help NAME' lists them.",
        allow_abbrev=False,
    )
    data.add_argument("name", metavar="NAME", help="any data module that anomalib knows, such as TextureDefects")
    data.add_argument(
        "--out", type=Path, help="file for the contact sheet; NAME.png in the working folder, or none with --json"
    )
    data.add_argument(
        "--images", type=int, default=8, help="images of each type and split on the sheet; 0 for no sheet"
    )
    data.add_argument("--json", action="store_true", help="print JSON instead of a table")
    data.set_defaults(run=_run, rest=[])


def _run(options: argparse.Namespace) -> int:
    cls = find_datamodule(options.name)
    sheet = _sheet_path(options)
    datamodule = set_up(cls, options.name, options.rest)
    from anomalib_defect_plugins.data.summary import look_at

    replaced = sheet is not None and sheet.exists()
    summary = look_at(datamodule, sheet, options.images)
    if options.json:
        sys.stdout.write(json.dumps({**summary, "contact_sheet": sheet and str(sheet)}, indent=2) + "\n")
    else:
        _print_summary(summary)
        if sheet:
            sys.stdout.write(f"contact sheet: {sheet}{' (replaced)' if replaced else ''}\n")
    return 0


def _print_summary(summary: dict[str, Any]) -> None:
    from anomalib_defect_plugins.data.summary import make_table, remarks

    sys.stdout.write(" ".join(filter(None, (summary["name"], summary["category"]))) + "\n")
    print_table(make_table(summary))
    sys.stdout.writelines(f"{line}\n" for line in remarks(summary))


def _sheet_path(options: argparse.Namespace) -> Path | None:
    """Where the contact sheet goes; checked before anything is read."""
    from anomalib_defect_plugins.core.errors import InvalidInputError

    if options.images < 0:
        msg = f"--images is {options.images}; give the number of images of each type and split, 0 for no contact sheet"
        raise InvalidInputError(msg)
    if not options.images or (options.json and options.out is None):
        return None
    path = options.out or Path(f"{options.name}.png")
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        msg = f"--out {path} is no PNG file in a folder that exists; give one such as {options.name}.png"
        raise InvalidInputError(msg)
    return path
