"""Errors that a user can cause and can mend: one line that says what, where and what to do.

Each is also the exception that the ecosystem would raise, so ``except ValueError`` keeps working. On the
``anomalib`` and ``anomalib-defects`` command lines they are printed as that one line, without a traceback.
"""

from lightning.pytorch.utilities.exceptions import MisconfigurationException


class UserError(Exception):
    """Mark of an error whose message is meant for the user and is complete by itself."""


class InvalidInputError(UserError, ValueError):
    """An argument or a file's content that cannot be."""


class MissingDataError(UserError, FileNotFoundError):
    """A file or folder that should exist; the message says what to put where."""


class ConfigurationError(UserError, MisconfigurationException):
    """Parts that are each valid but do not go together."""
