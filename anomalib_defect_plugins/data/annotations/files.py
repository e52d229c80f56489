"""Reading of JSON and XML files of labelling tools, with one-line errors."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError, UserError


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MissingDataError: If it does not exist.
        InvalidInputError: If it is no JSON.
    """
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        msg = f"{path} is no JSON file of a labelling tool ({_reason(error)}); export it again"
        raise InvalidInputError(msg) from error


def read_xml(path: Path) -> ET.Element:
    """Read an XML file without a document type, whose entities could be huge or those of other files.

    Raises:
        MissingDataError: If it does not exist.
        InvalidInputError: If it is no XML, or has a document type.
    """
    text = _read(path)
    try:
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            msg = "it has a document type, which labelling tools do not write"
            raise ValueError(msg)
        return ET.fromstring(text)  # noqa: S314 - there are no entities
    except (ET.ParseError, ValueError) as error:
        msg = f"{path} is no XML file of a labelling tool ({_reason(error)}); export it again"
        raise InvalidInputError(msg) from error


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file.

    Raises:
        MissingDataError: If it does not exist.
        InvalidInputError: If it is no text.
    """
    return _read(path).splitlines()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path} is no text file of a labelling tool ({_reason(error)}); export it again"
        raise InvalidInputError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); pass a file or folder of annotations"
        raise MissingDataError(msg) from error


@contextmanager
def parsing(path: Path, where: str) -> Iterator[None]:
    """Name the file and the place in errors of a format.

    Args:
        path: The file.
        where: Place in the file, such as ``annotation 7``.

    Raises:
        InvalidInputError: If anything goes wrong.
    """
    try:
        yield
    except UserError as error:
        msg = f"{where} of {path}: {error}"
        raise InvalidInputError(msg) from error
    except Exception as error:  # decoders raise errors of many types
        missing = f"there is no {error}" if isinstance(error, KeyError) else _reason(error)
        msg = f"{where} of {path} is not valid ({missing}); correct or remove it"
        raise InvalidInputError(msg) from error


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
