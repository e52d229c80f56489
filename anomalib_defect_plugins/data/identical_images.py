"""Finds copies of an image, which are in training and test, or have two labels, without anyone noticing."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

START = 65536
"""Number of bytes at the start of a file that are compared first."""


def identical_images(paths: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of files with the same content, each in the given order.

    Only files of the same length are opened, and only those with the same start are read to their end.
    """
    groups = _split([list(paths)], _length)
    groups = _split(groups, lambda path: _digest(path, START))
    return _split(groups, lambda path: _digest(path, -1))


def warn_of_identical(paths: Iterable[Path]) -> None:
    """Warn of copies of an image. Files that cannot be read are left to the reader of the images."""
    groups: list[list[Path]] = []
    with suppress(OSError):
        groups = identical_images(paths)
    if groups:
        first, second = groups[0][:2]
        copies = sum(len(group) - 1 for group in groups)
        logger.warning(
            "%d %s a copy of another, such as %s of %s: figures are wrong if one is trained on and the other tested, "
            "or if their labels differ; remove the copies",
            *(copies, "image is" if copies == 1 else "images are", second, first),
        )


def _split(groups: Iterable[list[Path]], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    """Split groups by a key, and return those of several files."""
    result = []
    for group in groups:
        parts: dict[Hashable, list[Path]] = defaultdict(list)
        for path in group:
            parts[key(path)].append(path)
        result += [part for part in parts.values() if len(part) > 1]
    return result


def _length(path: Path) -> int:
    return path.stat().st_size


def _digest(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(count)).digest()
