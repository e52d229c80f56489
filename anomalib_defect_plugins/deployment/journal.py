"""The record of a watched folder: an SQLite database with one row for each image, which survives kills."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_defect_plugins.core.errors import InvalidInputError

FILE_NAME = "inspected.sqlite"

TABLE = """
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    inode INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    score REAL,
    regions TEXT,
    error TEXT,
    seconds REAL,
    model TEXT NOT NULL,
    inspected_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    target TEXT UNIQUE,
    delivered INTEGER NOT NULL DEFAULT 0,
    notified INTEGER NOT NULL DEFAULT 0,
    UNIQUE (path, inode, bytes, mtime_ns)
)
"""


class FileVersion(NamedTuple):
    """A file with certain content.

    Args:
        path: Its path.
        inode: Number of its entry in the file system.
        size: Its size in bytes.
        mtime_ns: When it was last written, in nanoseconds.
    """

    path: str
    inode: int
    size: int
    mtime_ns: int


class Entry(NamedTuple):
    """A recorded image.

    Args:
        id: Number of the row.
        version: The file.
        verdict: ``normal``, ``defective`` or ``error``.
        score: Score; ``None`` after an error.
        regions: Regions, each as a mapping.
        error: What is wrong with the file.
        model: Hash of the model.
        inspected_at: Time in UTC.
        target: Path of the moved file or of the link; ``None`` if it stays.
    """

    id: int
    version: FileVersion
    verdict: str
    score: float | None
    regions: list[dict[str, Any]] | None
    error: str | None
    model: str
    inspected_at: str
    target: str | None


class Journal:
    """The record.

    Args:
        folder: Folder of the database.

    Raises:
        InvalidInputError: If it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path)
            # A commit is on the disk before an image is moved.
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(TABLE)
        except (OSError, sqlite3.Error) as error:
            msg = f"cannot write to {path} ({error}); choose another folder (--out)"
            raise InvalidInputError(msg) from error

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def versions(self) -> Iterator[FileVersion]:
        """Iterate over all files that are recorded."""
        with closing(self._database.execute("SELECT path, inode, bytes, mtime_ns FROM images")) as cursor:
            yield from (FileVersion(*row) for row in cursor)

    def add(self, rows: Iterable[tuple[FileVersion, dict[str, Any]]], model: str) -> None:
        """Record inspected images, all or none; one that is recorded already stays as it is.

        Args:
            rows: Files, and what ``Inspector.inspect`` has found in them, with ``verdict`` and ``target``.
            model: Hash of the model.
        """
        values = [
            (
                *version,
                row["verdict"],
                row.get("score"),
                json.dumps(row["regions"]) if row.get("regions") is not None else None,
                row.get("error"),
                row["seconds"],
                model,
                row["target"],
            )
            for version, row in rows
        ]
        columns = "path, inode, bytes, mtime_ns, verdict, score, regions, error, seconds, model, target"
        with self._database:
            self._database.executemany(
                f"INSERT OR IGNORE INTO images ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                values,
            )

    def pending(self, step: str) -> Sequence[Entry]:
        """Return the images for which a step, ``delivered`` or ``notified``, is not done, in order."""
        columns = "id, path, inode, bytes, mtime_ns, verdict, score, regions, error, model, inspected_at, target"
        rows = self._database.execute(f"SELECT {columns} FROM images WHERE NOT {step} ORDER BY id").fetchall()  # noqa: S608
        return [
            Entry(row[0], FileVersion(*row[1:5]), row[5], row[6], json.loads(row[7]) if row[7] else None, *row[8:])
            for row in rows
        ]

    def mark(self, step: str, ids: Iterable[int]) -> None:
        """Record that a step is done."""
        with self._database:
            self._database.executemany(f"UPDATE images SET {step} = 1 WHERE id = ?", ((each,) for each in ids))  # noqa: S608

    def has_target(self, target: str) -> bool:
        """Whether an image was, or is to be moved or linked to a path."""
        return self._database.execute("SELECT 1 FROM images WHERE target = ?", (target,)).fetchone() is not None

    def count(self) -> dict[str, int]:
        """Return the number of images by verdict."""
        return dict(self._database.execute("SELECT verdict, COUNT(*) FROM images GROUP BY verdict").fetchall())
