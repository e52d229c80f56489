"""Data modules on the command line: found by name, created from options, set up with one-line errors."""

import argparse
import contextlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from anomalib_defect_plugins.core.environment import TRACEBACK_VARIABLE
from anomalib_defect_plugins.core.errors import InvalidInputError, find_user_error
from anomalib_defect_plugins.plugins import bridge
from anomalib_defect_plugins.plugins.manager import Kind

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule


def find_datamodule(name: str) -> "type[AnomalibDataModule]":
    """Return the data module of that name, of anomalib or a plugin.

    Raises:
        InvalidInputError: If there is none, or it is one of videos.
    """
    from anomalib.data.datamodules.base.video import AnomalibVideoDataModule

    known = _datamodules()
    of_images = {other: cls for other, cls in known.items() if not issubclass(cls, AnomalibVideoDataModule)}
    if name in of_images:
        return of_images[name]
    if name in known:
        msg = f"{name} holds videos; 'anomalib-defects data' shows data modules of images"
    else:
        msg = f"there is no data module {name!r}; {_suggest(name, sorted(of_images))}"
    raise InvalidInputError(msg)


def _suggest(name: str, known: Sequence[str]) -> str:
    import difflib

    lower = {other.lower(): other for other in known}
    close = [name.lower()] if name.lower() in lower else difflib.get_close_matches(name.lower(), lower)
    if not close:
        return f"choose one of {', '.join(known)}"
    return f"did you mean {' or '.join(lower[match] for match in close)}?"


def _datamodules() -> "dict[str, type[AnomalibDataModule]]":
    """Return the data modules that anomalib finds by name."""
    registered = bridge.registered(Kind.DATA)
    from anomalib.data import AnomalibDataModule

    classes = {cls.__name__: cls for cls in _subclasses(AnomalibDataModule) if not inspect.isabstract(cls)}
    return cast("dict[str, type[AnomalibDataModule]]", classes | registered)


def _subclasses(cls: type) -> Iterator[type]:
    """Yield the subclasses that anomalib's command line sees; those of failed plugins are hidden."""
    subclasses: list[type] = cls.__subclasses__()
    for subclass in subclasses:
        yield subclass
        yield from _subclasses(subclass)


def make_datamodule(cls: "type[AnomalibDataModule]", arguments: Sequence[str]) -> "AnomalibDataModule":
    """Create a data module from options such as ``--data.root R`` or ``--root R``.

    Raises:
        argparse.ArgumentError: If an option is unknown or invalid.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "data", fail_untyped=False)
    words = [
        f"--data.{word[2:]}" if word.startswith("--") and not word.startswith("--data.") else word for word in arguments
    ]
    return cast("AnomalibDataModule", parser.instantiate_classes(parser.parse_args(words)).data)


@contextlib.contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    """Turn errors of a data module about its arguments and files into one line."""
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
    """Create a data module and set it up.

    Args:
        cls: Class of the data module.
        name: Name for error messages.
        arguments: Options from the command line.
        seed: Seed of its splits, unless the options set one.

    Raises:
        InvalidInputError: If it cannot be set up.
    """
    # Standard output is for the result; data modules print while they download.
    with contextlib.redirect_stdout(sys.stderr), _one_line_errors(name):
        datamodule = make_datamodule(cls, arguments)
        if datamodule.seed is None:
            datamodule.seed = seed
        datamodule.prepare_data()
        datamodule.setup()
    return datamodule
