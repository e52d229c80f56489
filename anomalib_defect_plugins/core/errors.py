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

COMPILED = re.compile(r"(\w+) does not support len\(\)")
"""torch's message for a compiled model, whose length anomalib's engine asks for."""

TRAINER_INIT = ("lightning.pytorch.trainer.trainer", "__init__")
"""Module and function that check the options of the trainer, with errors of many classes."""

RESULTS_FOLDER = ("anomalib.engine.engine", "_setup_workspace")
"""Module and function that create the folder of a training."""

NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")
"""torch's message for an operation that ``deterministic`` forbids."""

UNKNOWN_METRIC = re.compile(r"Early stopping conditioned on metric .* following: .*", re.DOTALL)
"""Lightning's message for a metric that is not logged."""


def error_line(error: BaseException) -> str | None:
    """Format ``error`` as one line for the terminal.

    Returns:
        ``error: ...``, or ``None`` if the user cannot fix it and needs the traceback.
    """
    found = find_user_error(error)
    message = _known_message(error) or _trainer_message(error) if found is None else _message(found)
    return None if message is None else f"error: {' '.join(message.split())}"


def _known_message(error: BaseException) -> str | None:
    """Return what the user can do about a known error of torch, Lightning or anomalib."""
    if isinstance(error, OSError) and _passes(error, *RESULTS_FOLDER):
        return (
            f"the results folder {error.filename} cannot be created ({error.strerror}): rename what is there, or "
            "choose another --default_root_dir"
        )
    if isinstance(error, TypeError) and (compiled := COMPILED.fullmatch(str(error))):
        advice = "pass the model itself, and compile its network with model.model.compile()"
        return f"{compiled[1]} cannot be used with torch.compile around it: {advice}"
    if not isinstance(error, RuntimeError):
        return None
    if forbidden := NOT_DETERMINISTIC.search(str(error)):
        return f"{forbidden[0]}, which the model needs: pass --trainer.deterministic warn, or leave it out"
    if unknown := UNKNOWN_METRIC.search(str(error)):
        return unknown[0]
    return _lost_worker(error)


def _trainer_message(error: BaseException) -> str | None:
    """Return the message of Lightning about the options of its trainer."""
    if isinstance(error, Exception) and _passes(error, *TRAINER_INIT):
        return f"the trainer refuses its options ({str(error).rstrip('.')}): correct the --trainer options"
    kind = type(error)
    is_misconfiguration = kind.__name__ == "MisconfigurationException" and kind.__module__.startswith("lightning")
    return str(error) if is_misconfiguration else None


def _passes(error: Exception, module: str, function: str) -> bool:
    """Whether an error was raised in a function, or in another one that it calls."""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == function and frame.f_globals.get("__name__") == module:
            return True
        traceback = traceback.tb_next
    return False


def _lost_worker(error: RuntimeError) -> str | None:
    """Explain what to do when a DataLoader worker was killed, by the system or by whoever stopped the run."""
    found = WORKER.search(str(error))
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
