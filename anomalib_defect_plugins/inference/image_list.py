"""Text files with one image path per line, in the encodings and with the marks that editors and shells leave."""

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # begins with the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by byte order mark; without one, UTF-8 with bytes of any other encoding."""

MARK = "\ufeff"

QUOTES = ('"', "'")


def read_list(path: Path) -> Iterator[str]:
    """Iterate over the paths of a list.

    Blank lines and comments, which begin with ``#``, are left out. Byte order marks, white space around a path, quotes
    and, where the system does not use them, backslashes are removed or replaced, unless there is a file of that name.

    Raises:
        OSError: If the list cannot be read.
        InvalidInputError: If it is not a text file.
    """
    with path.open("rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in ENCODINGS.items() if start.startswith(mark)), "utf-8")
    errors = "surrogateescape" if encoding == "utf-8" else "strict"
    try:
        with path.open(encoding=encoding, errors=errors) as lines:
            for line in lines:
                if "\0" in line:
                    raise UnicodeError
                if image := _image_path(line.rstrip("\r\n").removeprefix(MARK)):
                    yield image
    except UnicodeError as error:
        msg = f"{path} is not a text file; use a folder, or a text file with one image path per line"
        raise InvalidInputError(msg) from error


def _image_path(line: str) -> str:
    """Return the path in a line, or an empty text if it contains none."""
    path = line.strip()
    is_marked = path != line or path[:1] in {"#", *QUOTES} or "\\" in path
    if not path or not is_marked or os.path.lexists(line):
        return path and line
    if len(path) > 1 and path[0] in QUOTES and path[0] == path[-1]:
        path = path[1:-1]
    if path.startswith("#") and not os.path.lexists(path):
        return ""
    separated = path.replace("\\", os.sep)
    return separated if not os.path.lexists(path) and os.path.lexists(separated) else path
