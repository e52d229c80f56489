"""Faults of a folder or a file that are reported together. Standard library only."""

import contextlib
from collections.abc import Iterator

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError, UserError

MAX_LISTED = 20
"""Maximum number of faults in one message."""


class Faults:
    """Errors that are collected, and raised as one.

    Args:
        where: What has the faults, for the message.
    """

    def __init__(self, where: object) -> None:
        self.where = where
        self.errors: list[UserError] = []

    def __len__(self) -> int:
        return len(self.errors)

    def add(self, error: UserError) -> None:
        """Add an error."""
        self.errors.append(error)

    @contextlib.contextmanager
    def collect(self) -> Iterator[None]:
        """Add the error that the block raises, if it is one of the user."""
        try:
            yield
        except UserError as error:
            self.add(error)

    def raise_all(self) -> None:
        """Raise an error if there are any: the only one itself, or one that lists them.

        Raises:
            MissingDataError: If all are of this class.
            InvalidInputError: If there are several of other classes.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            kind = MissingDataError if all(isinstance(error, MissingDataError) for error in self.errors) else None
            raise (kind or InvalidInputError)(self._message())

    def _message(self) -> str:
        listed = [f"({number}) {error}" for number, error in enumerate(self.errors[:MAX_LISTED], start=1)]
        more = len(self.errors) - MAX_LISTED
        rest = [f"and {more} more"] if more > 0 else []
        return f"{len(self.errors)} faults in {self.where}: {'; '.join([*listed, *rest])}"
