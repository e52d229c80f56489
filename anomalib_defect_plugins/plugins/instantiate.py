"""Objects as configurations write them: by name, or as ``class_path`` and ``init_args``."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from jsonargparse import ArgumentError, ArgumentParser
from omegaconf import DictConfig, OmegaConf

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.plugins import connect
from anomalib_defect_plugins.plugins.manager import descendants

T = TypeVar("T")


def build(base: type[T], given: T | Mapping[str, Any] | str, what: str) -> T:
    """Make an object, unless it is one already.

    ``anomalib benchmark`` and Python programs hand over what the command line would have made an object of.

    Args:
        base: What the object must be an instance of.
        given: The object; or the name or import path of its class; or a mapping with ``class_path`` and, if it takes
            arguments, ``init_args``.
        what: What it is to the user, for the message.

    Raises:
        InvalidInputError: There is no such class, or it does not take these arguments.
    """
    return given if isinstance(given, base) else cast(T, _parse(base, given, what, make=True))


def check(base: type, given: Mapping[str, Any] | str, what: str) -> None:
    """Find out whether an object can be made, without making it, which may take long or need data.

    Args:
        base: As in :func:`build`.
        given: Likewise.
        what: Likewise.

    Raises:
        InvalidInputError: There is no such class, or it does not take arguments of these names and types.
    """
    _parse(base, given, what, make=False)


def _parse(base: type, given: Any, what: str, make: bool) -> Any:
    connect()  # else the names that plugins bring are not known yet
    plain: Any = OmegaConf.to_container(given) if isinstance(given, DictConfig) else given
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=base)
    name = plain
    try:
        value = {"class_path": plain} if isinstance(plain, str) else dict(plain)
        name = value.get("class_path")
        parsed = parser.parse_object({"it": value})
        return parser.instantiate_classes(parsed).it if make else None
    except UserError:
        raise
    except (ArgumentError, TypeError, ValueError) as error:
        msg = f"{what} {name!r} cannot be made: {_reason(error, base)}"
        raise InvalidInputError(msg) from error


def _reason(error: Exception, base: type) -> str:
    reason = " ".join(str(error).split()).removeprefix('Parser key "it": ')
    if reason.startswith("Expected a dot import path string"):
        names = sorted({cls.__name__ for cls in descendants(base) if not cls.__name__.startswith("_")})
        return f"there is no such class; choose one of {', '.join(names)}"
    return reason
