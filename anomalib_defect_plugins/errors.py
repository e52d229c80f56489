"""Errors that a user can cause and can mend: one line that says what, where and what to do.

Each is also the exception that the ecosystem would raise, so ``except ValueError`` keeps working. On the
``anomalib`` and ``anomalib-defects`` command lines they are printed as that one line, without a traceback.
"""

from collections.abc import Iterable

from lightning.fabric.utilities.exceptions import MisconfigurationException


class UserError(Exception):
    """Mark of an error whose message is meant for the user and is complete by itself."""


class InvalidInputError(UserError, ValueError):
    """An argument or a file's content that cannot be."""


class MissingDataError(UserError, FileNotFoundError):
    """A file or folder that should exist; the message says what to put where."""


class ConfigurationError(UserError, MisconfigurationException):
    """Parts that are each valid but do not go together."""


def check_one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is not among the known ones.

    Args:
        name: What the user knows the value by.
        value: What was given.
        known: What could have been.

    Raises:
        InvalidInputError: Lists the known ones.
    """
    if value not in known:
        msg = f"{name} is {value!r}; it must be one of {', '.join(known)}"
        raise InvalidInputError(msg)
