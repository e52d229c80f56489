"""A table of results that grows part by part and can go on where it stopped.

::

    results.parquet                 appears when all is done, by one rename; the folder beside it is gone then
    results.parquet.parts/
        settings.json               what the results depend on
        list.txt                    the files, one a line, in the order of the rows
        part-00000.parquet          rows 0 to 255; each part is there as a whole or not at all

Nothing here needs torch or anomalib: importing them takes longer than inspecting a thousand images.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 256
"""Rows of a part: so many images are inspected again, at most, after a process was killed."""

GROUP = 32
"""Parts that make one row group of the table, which is what is in memory at once when the parts are joined."""

SETTINGS, LIST, LOCK = "settings.json", "list.txt", ".lock"

Row = dict[str, Any]
"""A row of the table by the name of the column; see ``schema``."""

Item = tuple[int, str]
"""Number of an image, which is that of its row, and its path."""


def invalid(message: str) -> Exception:
    """Give the error for input that cannot be; its module, which takes seconds to import, only when there is one."""
    from anomalib_defect_plugins.core.errors import InvalidInputError

    return InvalidInputError(message)


def missing(message: str) -> Exception:
    """Give the error for a file that should exist."""
    from anomalib_defect_plugins.core.errors import MissingDataError

    return MissingDataError(message)


def schema() -> "pa.Schema":
    """Give the columns of the table.

    path, as it was given; score, pred_score of the model; verdict, 1 for a defective image; width and height of the
    file in pixels; seconds that decoding and inference took, without waiting for others; error, one line, in which case
    score and verdict are null, and so are the sizes of a file that cannot be read.
    """
    import pyarrow as pa

    numbers = {"score": pa.float64(), "verdict": pa.int8(), "width": pa.int32(), "height": pa.int32()}
    return pa.schema({"path": pa.string(), **numbers, "seconds": pa.float64(), "error": pa.string()})


class Parts:
    """The parts of one table.

    Args:
        out: The table.
        settings: What the results depend on, as plain JSON values, by what the user calls it.

    Raises:
        InvalidInputError: The table exists.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self.settings = dict(settings)
        if out.exists():
            msg = f"{out} exists; give another file (--out), or delete it to inspect the images again"
            raise invalid(msg)

    @property
    def is_begun(self) -> bool:
        """Whether there are parts of an earlier run."""
        return (self.folder / SETTINGS).is_file()

    @contextlib.contextmanager
    def open(self, paths: Iterable[str]) -> Iterator["Parts"]:
        """Keep the parts for this process until the block ends, and begin them or make sure that they fit.

        Args:
            paths: The files.

        Raises:
            InvalidInputError: They are in use, were begun with other settings or files, or cannot be written.
        """
        from filelock import FileLock, Timeout

        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                msg = f"{self.folder} is in use by another process; wait for it, or give another file (--out)"
                raise invalid(msg) from error
        with lock:
            try:
                self._begin(paths)
                yield self
            finally:
                if not self.is_begun:
                    shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self, paths: Iterable[str]) -> None:
        path = self.folder / f"{LIST}.new"
        with self._writing():
            try:
                self.settings["list of files"] = _write_list(paths, path)
                if self.is_begun:
                    self._check()
                else:
                    os.replace(path, self.folder / LIST)
                    self._write_settings()
            finally:
                path.unlink(missing_ok=True)

    def _write_settings(self) -> None:
        # The last file of a beginning: without it the folder counts as empty.
        path = self.folder / f"{SETTINGS}.new"
        path.write_text(json.dumps(self.settings, indent=2), encoding="utf-8")
        os.replace(path, self.folder / SETTINGS)

    def _check(self) -> None:
        try:
            before = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
            differing = [name for name, value in self.settings.items() if before.get(name) != value]
        except (AttributeError, ValueError) as error:
            msg = f"{self.folder / SETTINGS} cannot be read ({error}); delete that folder, or give another file (--out)"
            raise invalid(msg) from error
        if differing:
            msg = (
                f"{self.folder} holds the parts of a run with another {' and '.join(differing)}; go on with the same, "
            )
            raise invalid(msg + "delete that folder to start again, or give another file (--out)")

    def items(self) -> Iterator[Item]:
        """Give all files, numbered, one by one."""
        with (self.folder / LIST).open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            yield from enumerate(line[:-1] for line in lines)

    def count(self) -> int:
        """Count the files."""
        return sum(1 for _ in self.items())

    def missing(self) -> Iterator[tuple[int, list[Item]]]:
        """Give the number and the files of each part that is not there, one by one."""
        for number, items in itertools.groupby(self.items(), lambda item: item[0] // ROWS):
            if not self._path(number).exists():
                yield number, list(items)

    def write(self, number: int, rows: list[Row]) -> None:
        """Keep a part.

        Raises:
            InvalidInputError: It cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._path(number)
        new = path.with_suffix(".new")
        with self._writing():
            pq.write_table(pa.Table.from_pylist(rows, schema()), new)
            os.replace(new, path)

    def join(self) -> Counter[str]:
        """Make the table of the parts, and take them away.

        Returns:
            How many ``images`` there are in all, how many ``defective`` and how many with an ``error``.

        Raises:
            InvalidInputError: It cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers, new = range(-(-self.count() // ROWS)), self.folder / "table.new"
        counts: Counter[str] = Counter(images=0, defective=0, error=0)
        with self._writing():
            with pq.ParquetWriter(new, schema()) as writer:
                for start in numbers[::GROUP]:
                    group = numbers[start : start + GROUP]
                    table = pa.concat_tables([pq.read_table(self._path(number)) for number in group])
                    writer.write_table(table)
                    counts.update(_count(table))
            os.replace(new, self.out)
            shutil.rmtree(self.folder, ignore_errors=True)
        return counts

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05}.parquet"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno is None:  # no error of the system, but one of ours about what was read
                raise
            if isinstance(error, FileNotFoundError) and not self.folder.exists():
                msg = f"{self.folder} was taken away while it was in use; run it again"
                raise invalid(msg) from error
            reason = error.strerror or type(error).__name__
            msg = f"cannot write to {self.folder} ({reason}); what is finished is kept: make room, or allow writing, "
            raise invalid(msg + "and run it again") from error


def _write_list(paths: Iterable[str], path: Path) -> str:
    """Write the list of files, and give its digest."""
    digest = sha256()
    with path.open("wb") as file:
        for name in paths:
            line = f"{name}\n".encode(errors="surrogateescape")
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def _count(table: "pa.Table") -> dict[str, int]:
    import pyarrow.compute as pc

    defective = pc.sum(table["verdict"]).as_py() or 0
    return {"images": len(table), "defective": defective, "error": len(table) - table["error"].null_count}
