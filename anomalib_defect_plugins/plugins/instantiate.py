"""Creates objects from configurations: a class name, or ``class_path`` and ``init_args``."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from jsonargparse import ArgumentError, ArgumentParser
from omegaconf import DictConfig, OmegaConf

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.plugins import connect
from anomalib_defect_plugins.plugins.manager import descendants

T = TypeVar("T")


def build(base: type[T], given: T | Mapping[str, Any] | str, what: str) -> T:
    """Create an object from its configuration; an instance is returned unchanged.

    ``anomalib benchmark`` and Python programs pass configurations where the command line passes instances.

    Args:
        base: Base class of the object.
        given: An instance; or the name or import path of its class; or a mapping with ``class_path`` and optionally
            ``init_args``.
        what: Description of the object for the error message.

    Raises:
        InvalidInputError: If the class does not exist or does not accept the arguments.
    """
    return given if isinstance(given, base) else cast(T, _parse(base, given, what, make=True))


def check(base: type, given: Mapping[str, Any] | str, what: str) -> None:
    """Check a configuration without creating the object, which may take long or need data.

    Args:
        base: As in :func:`build`.
        given: As in :func:`build`.
        what: As in :func:`build`.

    Raises:
        InvalidInputError: If the class does not exist, or has no arguments of these names and types.
    """
    _parse(base, given, what, make=False)


def _parse(base: type, given: Any, what: str, make: bool) -> Any:
    connect()  # the names of plugins have to be known
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
        msg = f"{what} {name!r} cannot be created: {_reason(error, base)}"
        raise InvalidInputError(msg) from error


def _reason(error: Exception, base: type) -> str:
    reason = " ".join(str(error).split()).removeprefix('Parser key "it": ')
    if reason.startswith("Expected a dot import path string"):
        names = sorted({cls.__name__ for cls in descendants(base) if not cls.__name__.startswith("_")})
        return f"unknown class; choose one of {', '.join(names)}"
    return reason
