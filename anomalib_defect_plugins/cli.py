"""The command ``anomalib-defects``."""

import argparse
import contextlib
import inspect
import json
import os
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_defect_plugins.benchmark.commands_benchmark import add_parser as add_benchmark
from anomalib_defect_plugins.benchmark.commands_report import add_parser as add_report
from anomalib_defect_plugins.benchmark.inspect import add_parser as add_inspect
from anomalib_defect_plugins.demo.commands_demo import add_parser as add_demo
from anomalib_defect_plugins.new.commands_new import add_parser as add_new
from anomalib_defect_plugins.plugins.manager import Kind, Plugin, Registration, State

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule
    from rich.table import Table

COLUMNS = ("name", "kind", "supervision", "paper", "distribution", "version", "state")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what stands after the name of the command; by default that of this process.

    Returns:
        The exit status: 0, or 1 after an error that is printed in one line.
    """
    options = _parse(arguments)
    from anomalib_defect_plugins.console import TRACEBACK_VARIABLE, error_line, send_nothing

    send_nothing()
    try:
        return options.run(options)
    except Exception as error:
        line = error_line(error)
        if line is None or os.environ.get(TRACEBACK_VARIABLE, "0") not in {"", "0"}:
            raise
        sys.stderr.write(line + "\n")
        return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if "rest" in options:
        options.rest = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="anomalib-defects", description="Surface-defect methods for anomalib.")
    parser.add_argument("--version", action=_PrintVersion)
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    lister = commands.add_parser("list", help="show every plugin, what it brings and what became of it")
    lister.add_argument("--json", action="store_true", help="print JSON instead of a table")
    lister.set_defaults(run=_list)
    _add_data(commands)
    _add_synthesize(commands)
    add_benchmark(commands)
    add_report(commands)
    add_inspect(commands)
    add_demo(commands)
    add_new(commands)
    return parser


def _add_data(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
    data.set_defaults(run=_data, rest=[])


def _add_synthesize(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = (
        "Put defects on normal training images with a trained Defect-GAN, and write images, masks and a table in the "
        "layout of DefectFolder. A run that was stopped goes on where it was; a greater --num adds images."
    )
    command = commands.add_parser(
        "synthesize",
        help="make a data set of synthetic defects",
        description=about,
        usage="anomalib-defects synthesize --ckpt MODEL.ckpt --data NAME --out DIR [--num N] [--category TYPE] "
        "[--region MASK.png] [--seed S] [--threshold T] [--max-share P] [--restored] [--report EXTRACTOR] "
        "[options of the data module]",
        epilog="Options of the data module are given as for anomalib: --data.root R, or --root R where it is none of "
        "the above. 'anomalib train --data.help NAME' lists them.",
        allow_abbrev=False,
    )
    command.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a trained DefectGan")
    command.add_argument("--data", metavar="NAME", required=True, help="data module that gives the normal images")
    command.add_argument("--out", type=Path, required=True, help="folder to write to: new, empty, or begun before")
    command.add_argument("--num", type=int, default=500, help="number of images")
    command.add_argument("--category", help="type of the defects, or several joined by '+'; each in turn by default")
    command.add_argument("--region", type=Path, help="image, black where no defect is wanted; anywhere by default")
    command.add_argument("--seed", type=int, default=0, help="image i depends on it and on i alone")
    command.add_argument(
        "--threshold",
        type=_number_or_word,
        default=0.5,
        metavar="NUMBER|otsu",
        help="the map above it is defect in the mask; otsu: of each map its own",
    )
    command.add_argument(
        "--max-share", type=float, default=0.5, help="images with a defect on more of them than this are drawn anew"
    )
    command.add_argument("--restored", action="store_true", help="keep the images with the defect taken away too")
    command.add_argument(
        "--report", metavar="EXTRACTOR", help="write how real they are, by the features of inception or a timm model"
    )
    command.set_defaults(run=_synthesize, rest=[])


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


def _data(options: argparse.Namespace) -> int:
    cls = _find_datamodule(options.name)
    sheet = _sheet_path(options)
    datamodule = _set_up(cls, options.name, options.rest)
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
    _print_whole(make_table(summary))
    sys.stdout.writelines(f"{line}\n" for line in remarks(summary))


def _sheet_path(options: argparse.Namespace) -> Path | None:
    """Where the contact sheet goes; checked before anything is read."""
    from anomalib_defect_plugins.errors import InvalidInputError

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


def _find_datamodule(name: str) -> "type[AnomalibDataModule]":
    from anomalib.data.datamodules.base.video import AnomalibVideoDataModule

    from anomalib_defect_plugins.errors import InvalidInputError

    known = _datamodules()
    of_images = {other: cls for other, cls in known.items() if not issubclass(cls, AnomalibVideoDataModule)}
    if name in of_images:
        return of_images[name]
    if name in known:
        msg = f"{name} holds videos; 'anomalib-defects data' shows data modules of images"
    else:
        msg = f"there is no data module {name!r}; {_advise(name, sorted(of_images))}"
    raise InvalidInputError(msg)


def _advise(name: str, known: Sequence[str]) -> str:
    import difflib

    lower = {other.lower(): other for other in known}
    close = [name.lower()] if name.lower() in lower else difflib.get_close_matches(name.lower(), lower)
    if not close:
        return f"choose one of {', '.join(known)}"
    return f"did you mean {' or '.join(lower[match] for match in close)}?"


def _datamodules() -> "dict[str, type[AnomalibDataModule]]":
    """Every data module that anomalib finds by name."""
    from anomalib_defect_plugins.plugins import bridge

    registered = bridge.registered(Kind.DATA)
    from anomalib.data import AnomalibDataModule

    def below(cls: type) -> Iterator[type]:
        # Asked as the command line asks it: classes of plugins that failed are hidden.
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    return {cls.__name__: cls for cls in below(AnomalibDataModule) if not inspect.isabstract(cls)} | registered


def _make_datamodule(cls: "type[AnomalibDataModule]", arguments: Sequence[str]) -> "AnomalibDataModule":
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "data", fail_untyped=False)
    given = [
        f"--data.{word[2:]}" if word.startswith("--") and not word.startswith("--data.") else word for word in arguments
    ]
    return parser.instantiate_classes(parser.parse_args(given)).data


@contextlib.contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Make one line of what data modules, ours and others', raise about their arguments and files."""
    from anomalib_defect_plugins.console import TRACEBACK_VARIABLE, find_user_error
    from anomalib_defect_plugins.errors import InvalidInputError

    try:
        yield
    except (argparse.ArgumentError, OSError, RuntimeError, TypeError, ValueError) as error:
        if find_user_error(error) is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = (
            f"{name} cannot be set up ({reason}); 'anomalib train --data.help {name}' lists its options, "
            f"{TRACEBACK_VARIABLE}=1 shows where it failed"
        )
        raise InvalidInputError(msg) from error


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _synthesize(options: argparse.Namespace) -> int:
    cls = _find_datamodule(options.data)
    from anomalib_defect_plugins.metrics.features import make_extractor
    from anomalib_defect_plugins.synthesize import Request, summary_table, synthesize

    names = ("num", "category", "region", "seed", "threshold", "max_share", "restored")
    request = Request(**{name: getattr(options, name) for name in names})
    extractor = make_extractor(options.report) if options.report else None  # before hours are spent on images
    datamodule = _set_up(cls, options.data, options.rest, options.seed)
    _print_whole(summary_table(synthesize(options.ckpt, datamodule, options.out, request)))
    sys.stdout.write(f"data set: {options.out}\n")
    if extractor:
        from anomalib_defect_plugins.quality import report

        written = report({"synthetic": options.out}, datamodule, options.out / "_report", extractor)
        sys.stdout.write(f"report: {written}\n")
    return 0


def _set_up(
    cls: "type[AnomalibDataModule]", name: str, arguments: Sequence[str], seed: int | None = None
) -> "AnomalibDataModule":
    """Make a data module and set it up; ``seed`` is for its splits if it has none of its own."""
    # What a data module prints while it downloads is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr), _in_one_line(name):
        datamodule = _make_datamodule(cls, arguments)
        if datamodule.seed is None:
            datamodule.seed = seed
        datamodule.prepare_data()
        datamodule.setup()
    return datamodule


def _print_table(rows: list[dict[str, str | None]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS)
    for row in rows:
        state = f"{row['state']}: {row['reason']}" if row["reason"] else row["state"]
        table.add_row(*(Text(str({**row, "state": state}[column] or "-")) for column in COLUMNS))
    _print_whole(table)


def _print_whole(table: "Table") -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        # A pipe has no width of its own, and grep wants a row in one line.
        console = Console(width=console.measure(table, options=console.options.update(max_width=10_000)).maximum)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
