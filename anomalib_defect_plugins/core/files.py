"""Files and folders that appear complete or not at all, even if the process is killed while writing."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError

PARTIAL_SUFFIX = ".part"
"""Suffix of a file that is still being written, or was left behind by a killed process."""


@contextlib.contextmanager
def atomic_path(path: Path, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends without an error.

    After an error the temporary file is removed and ``path`` is as it was. A temporary file that a killed process has
    left behind is overwritten.

    Args:
        path: The file to write. Its folder is created.
        sync: Whether to flush the file to the disk first, so that it also survives a power cut.

    Raises:
        OSError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    try:
        yield partial
        if sync:
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview, sync: bool = False) -> None:
    """Write a file atomically; see :func:`atomic_path`."""
    with atomic_path(path, sync) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str, sync: bool = False) -> None:
    """Write a UTF-8 text file atomically, line endings as in ``text``; see :func:`atomic_path`."""
    write_bytes(path, text.encode(), sync)


def is_partial(path: Path) -> bool:
    """Whether a file is the unfinished copy of :func:`atomic_path`."""
    return path.name.startswith(".") and path.suffix == PARTIAL_SUFFIX


@contextlib.contextmanager
def new_folder(path: Path, option: str = "--data.root") -> Iterator[Path]:
    """Yield an empty folder that is moved to ``path`` when the block ends without an error.

    Two processes may create the same folder at once: the first to finish wins and the other's work is discarded. A
    non-empty folder that already exists at ``path`` is left untouched.

    Args:
        path: The folder to create.
        option: Command-line option that sets the folder, for the error message.

    Raises:
        InvalidInputError: If the parent folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        msg = f"cannot write to {path.parent} ({error.strerror}); choose a writable folder ({option})"
        raise InvalidInputError(msg) from error
    with temporary as parent:
        # One level down, because only the owner can read the temporary folder itself.
        folder = Path(parent) / path.name
        folder.mkdir()
        yield folder
        _move(folder, path)


def _move(folder: Path, path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()  # removes an empty folder only, which some systems would not replace
    try:
        folder.rename(path)
    except OSError:
        if not path.is_dir():
            raise
