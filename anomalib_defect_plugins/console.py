"""One line on the terminal for an error that the user can mend, instead of a traceback."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType

from anomalib_defect_plugins.errors import UserError

TRACEBACK_VARIABLE = "ANOMALIB_DEFECT_PLUGINS_TRACEBACK"
"""Environment variable: ``1`` shows the traceback of every error."""


WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (is killed by signal: \w+|exited unexpectedly)")
"""What torch says of a process that read images and is gone."""


def send_nothing() -> None:
    """Keep OpenVINO and NNCF, which are not imported yet, from telling their makers that they are used.

    Both do without this module where it does not hold what they look for.
    """
    sys.modules.setdefault("openvino_telemetry", ModuleType("openvino_telemetry"))


def error_line(error: BaseException) -> str | None:
    """The line for ``error``, or ``None`` if it is not one that the user can mend."""
    found = find_user_error(error)
    message = _lost_worker(error) if found is None else _message(found)
    return None if message is None else f"error: {' '.join(message.split())}"


def _lost_worker(error: BaseException) -> str | None:
    """Say what to do when a process that reads images was killed: by the system, or by who stopped the run."""
    found = WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    reason = "as the system does when memory runs out: take fewer --data.num_workers, or smaller images or batches, and"
    if found[1].endswith("Terminated"):
        reason = "as a scheduler does that stops a run;"
    return f"a {found[0]}, {reason} go on with --ckpt_path and the last.ckpt that is there"


def find_user_error(error: BaseException) -> UserError | None:
    """The :class:`UserError` that ``error`` is, is caused by, or stands for."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        candidate = waiting.pop()
        if isinstance(candidate, UserError):
            return candidate
        if id(candidate) not in seen:
            seen.add(id(candidate))
            waiting.extend(_origins(candidate))
    return None


def install_excepthook() -> None:
    """Print errors that the user can mend as one line; leave every other to the hook that is in place."""
    previous = sys.excepthook
    if getattr(previous, "prints_user_errors", False):
        return

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        line = None if os.environ.get(TRACEBACK_VARIABLE, "0") not in {"", "0"} else error_line(error)
        if line is None:
            previous(kind, error, traceback)
        else:
            sys.stderr.write(line + "\n")

    excepthook.prints_user_errors = True
    sys.excepthook = excepthook


def is_anomalib_command() -> bool:
    """Whether this process was started as ``anomalib``."""
    return Path(sys.argv[0] if sys.argv else "").stem == "anomalib"


def _message(error: UserError) -> str:
    """The message as it was raised.

    A worker process of a DataLoader cannot hand over the error itself: torch raises one of the same type whose message
    is the worker's formatted traceback.
    """
    text = str(error)
    if "Original Traceback" not in text:
        return text
    return text.rpartition(f"{type(error).__module__}.{type(error).__qualname__}: ")[2]


def _origins(error: BaseException) -> Iterator[BaseException]:
    if error.__cause__ is not None:
        yield error.__cause__
    yield from _refused_alternatives(error)


def _refused_alternatives(error: BaseException) -> Iterator[BaseException]:
    """The errors that jsonargparse met while it tried the alternatives of a union.

    Every ``--model`` and ``--data`` is such a union. jsonargparse raises a new error that quotes all of them and keeps
    the first as its cause, so the others are only to be had from its frames.
    """
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__", "").partition(".")[0] == "jsonargparse":
            for value in frame.f_locals.values():
                items = value if isinstance(value, list | tuple) else [value]
                yield from (item for item in items if isinstance(item, BaseException))
        traceback = traceback.tb_next
