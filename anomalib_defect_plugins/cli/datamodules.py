"""Data modules on the command line: found by name, built from options, set up with one-line errors."""

import argparse
import contextlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from anomalib_defect_plugins.core.environment import TRACEBACK_VARIABLE
from anomalib_defect_plugins.core.errors import InvalidInputError, find_user_error
from anomalib_defect_plugins.plugins.manager import Kind

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule
    from rich.table import Table


def find_datamodule(name: str) -> "type[AnomalibDataModule]":
    from anomalib.data.datamodules.base.video import AnomalibVideoDataModule

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


def make_datamodule(cls: "type[AnomalibDataModule]", arguments: Sequence[str]) -> "AnomalibDataModule":
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


def set_up(
    cls: "type[AnomalibDataModule]", name: str, arguments: Sequence[str], seed: int | None = None
) -> "AnomalibDataModule":
    """Make a data module and set it up; ``seed`` is for its splits if it has none of its own."""
    # What a data module prints while it downloads is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr), _in_one_line(name):
        datamodule = make_datamodule(cls, arguments)
        if datamodule.seed is None:
            datamodule.seed = seed
        datamodule.prepare_data()
        datamodule.setup()
    return datamodule


def print_table(table: "Table") -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        # A pipe has no width of its own, and grep wants a row in one line.
        console = Console(width=console.measure(table, options=console.options.update(max_width=10_000)).maximum)
    console.print(table)
