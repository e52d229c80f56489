"""Prints errors that users can fix as one line when the ``anomalib`` command ends with one."""

import sys
from pathlib import Path
from types import TracebackType

from anomalib_defect_plugins.core.environment import show_traceback
from anomalib_defect_plugins.core.errors import error_line


def install_excepthook() -> None:
    """Wrap ``sys.excepthook``: user errors become one line, every other error goes to the previous hook."""
    previous = sys.excepthook
    if getattr(previous, "prints_user_errors", False):
        return

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        line = None if show_traceback() else error_line(error)
        if line is None:
            previous(kind, error, traceback)
        else:
            sys.stderr.write(line + "\n")

    setattr(excepthook, "prints_user_errors", True)  # noqa: B010  (a function's type has no such attribute)
    sys.excepthook = excepthook


def is_anomalib_command() -> bool:
    """Whether this process was started as ``anomalib``."""
    return Path(sys.argv[0] if sys.argv else "").stem == "anomalib"
