"""Folders that appear whole or not at all."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from anomalib_defect_plugins.errors import InvalidInputError


@contextlib.contextmanager
def new_folder(path: Path, option: str = "--data.root") -> Iterator[Path]:
    """Give an empty folder to fill, which becomes ``path`` when the block ends without an error.

    Two processes may fill the same folder at once: the first to finish wins, and the other's work is thrown away. A
    folder that is already at ``path`` and holds something is never touched.

    Args:
        path: The folder.
        option: What the user gives the folder by, for the message.

    Raises:
        InvalidInputError: Nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:
        msg = f"cannot write to {path.parent} ({error.strerror}); give a folder that can be written ({option})"
        raise InvalidInputError(msg) from error
    with temporary as parent:
        # One level down, because the temporary folder itself is readable by its owner only.
        folder = Path(parent) / path.name
        folder.mkdir()
        yield folder
        _move(folder, path)


def _move(folder: Path, path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()  # takes away an empty folder, which some systems would not replace, and no other
    try:
        folder.rename(path)
    except OSError:
        if not path.is_dir():
            raise
