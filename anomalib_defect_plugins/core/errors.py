"""Errors that users can fix, each with a one-line message: what is wrong, where, and what to do.

Each class also derives from the builtin exception for its case, so ``except ValueError`` works as usual. The commands
``anomalib`` and ``anomalib-defects`` print these errors as one line, without a traceback. Standard library only.
"""

import re
from collections.abc import Iterator
from pickle import PickleError


class UserError(Exception):
    """Base class of errors whose message is complete and meant for the user."""


class InvalidInputError(UserError, ValueError):
    """An argument or the content of a file is invalid."""


class MissingDataError(UserError, FileNotFoundError):
    """A required file or folder is missing; the message says what to put where."""


class ConfigurationError(UserError, ValueError):
    """Arguments or components that are each valid do not work together."""


LOAD_ERRORS = (
    UserError,
    OSError,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    EOFError,
    PickleError,
)
"""Errors raised while loading a file that is not a model, or is one of another class."""

WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (is killed by signal: \w+|exited unexpectedly)")
"""torch's message for a DataLoader worker process that died."""


def error_line(error: BaseException) -> str | None:
    """Format ``error`` as one line for the terminal.

    Returns:
        ``error: ...``, or ``None`` if the user cannot fix it and needs the traceback.
    """
    found = find_user_error(error)
    message = _lost_worker(error) if found is None else _message(found)
    return None if message is None else f"error: {' '.join(message.split())}"


def _lost_worker(error: BaseException) -> str | None:
    """Explain what to do when a DataLoader worker was killed, by the system or by whoever stopped the run."""
    found = WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    cause = "by the system if memory ran out: use fewer --data.num_workers, smaller images or smaller batches, and"
    if found[1].endswith("Terminated"):
        cause = "by a scheduler if it stopped the run;"
    return f"a {found[0]}, {cause} resume with --ckpt_path and last.ckpt"


def find_user_error(error: BaseException) -> UserError | None:
    """Find the :class:`UserError` among ``error``, its causes, and the alternatives that jsonargparse tried."""
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


def _message(error: UserError) -> str:
    """Return the message as it was raised.

    torch re-raises an error of a DataLoader worker with the same type, but with the worker's formatted traceback as its
    message.
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
    """Yield the errors that jsonargparse caught while it tried the alternatives of a union.

    Every ``--model`` and ``--data`` is such a union. jsonargparse raises a new error that quotes all of them and keeps
    only the first as its cause, so the others have to be read from its frames.
    """
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__", "").partition(".")[0] == "jsonargparse":
            for value in frame.f_locals.values():
                items = value if isinstance(value, list | tuple) else [value]
                yield from (item for item in items if isinstance(item, BaseException))
        traceback = traceback.tb_next
