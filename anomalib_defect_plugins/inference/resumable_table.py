"""A Parquet table that is written in parts, so that an interrupted run can continue.

::

    results.parquet                 appears when all parts are written, by one rename
    results.parquet.parts/          removed after that
        settings.json               what the results depend on
        list.txt                    paths of the images, one per line, in the order of the rows
        part-00000.parquet          rows 0 to 255; each part is written atomically

Neither torch nor anomalib is imported here: that takes longer than inspecting a thousand images.
"""

import contextlib
import errno
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import atomic_path, write_text
from anomalib_defect_plugins.core.image_statistics import COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_PART = 256
"""The most images that are inspected again after the process was killed."""

PARTS_PER_ROW_GROUP = 32
"""One row group is in memory at a time when the parts are joined."""

RENAMED = {"verdict": "pred_label"}
"""Columns of older parts, and what they are called now."""

SETTINGS_FILE, LIST_FILE, LOCK_FILE = "settings.json", "list.txt", ".lock"

InspectionRow = dict[str, Any]
"""A row of the table by column name; see :func:`schema`."""

LITTLE_RANGE = "little_range"
"""Mark of rows whose image is almost black or white, which the table does not contain."""

NumberedPath = tuple[int, str]
"""Row number and path of an image."""

TablePart = tuple[int, list[InspectionRow]]
"""Number of a part and its rows."""


def schema() -> "pa.Schema":
    """Return the columns of the table.

    ``path`` as listed; ``score``, the model's ``pred_score``; ``pred_label``, 1 if defective; ``width`` and ``height``
    of the file in pixels; ``brightness``, ``sharpness``, ``centre_x`` and ``centre_y``, see ``image_statistics``;
    ``seconds`` for decoding and inference, without waiting; ``error``, one line; ``regions``, those that are defective,
    largest first, in pixels of the file, with the mean of the map, null without a threshold for pixels; ``model``, the
    hash of the graph. After an error ``score``, ``pred_label`` and ``regions`` are null, and so is all about the image
    if the file could not be read.
    """
    import pyarrow as pa

    numbers = {"score": pa.float64(), "pred_label": pa.int8(), "width": pa.int32(), "height": pa.int32()}
    numbers |= dict.fromkeys(COLUMNS, pa.float64())
    box = {name: pa.int32() for name in ("area", "x", "y", "width", "height")}
    regions = pa.list_(pa.struct({**box, "mean_score": pa.float32()}))
    texts = {"error": pa.string(), "regions": regions, "model": pa.string()}
    return pa.schema({"path": pa.string(), **numbers, "seconds": pa.float64(), **texts})


class ResumableTable:
    """A table and the folder of its parts.

    Args:
        out: Parquet file of the table.
        settings: What the results depend on, as JSON values by the name that users know.

    Raises:
        InvalidInputError: If the table exists.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self.settings = dict(settings)
        if out.exists():
            msg = f"{out} exists; choose another file (--out), or delete it to inspect the images again"
            raise InvalidInputError(msg)

    @property
    def is_started(self) -> bool:
        """Whether an earlier run has started the table."""
        return (self.folder / SETTINGS_FILE).is_file()

    @contextlib.contextmanager
    def open(self, paths: Iterable[str]) -> Iterator["ResumableTable"]:
        """Lock the parts for this process until the block ends; start the table, or check that it fits.

        Args:
            paths: Paths of the images.

        Raises:
            InvalidInputError: If the parts are in use, belong to other settings or images, or cannot be written.
        """
        from filelock import FileLock, Timeout

        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK_FILE)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                msg = f"{self.folder} is in use by another process; wait for it, or choose another file (--out)"
                raise InvalidInputError(msg) from error
        with lock:
            try:
                self._start(paths)
                yield self
            finally:
                if not self.is_started:
                    shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, paths: Iterable[str]) -> None:
        is_started = self.is_started
        with self._writing():
            with atomic_path(self.folder / LIST_FILE) as partial:
                self.settings["list of files"] = _write_list(paths, partial)
                if is_started:
                    self._check_settings()
            if not is_started:
                # Written last: a folder without settings counts as empty.
                write_text(self.folder / SETTINGS_FILE, json.dumps(self.settings, indent=2))

    def _check_settings(self) -> None:
        path = self.folder / SETTINGS_FILE
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            differing = [name for name, value in self.settings.items() if before.get(name) != value]
        except (AttributeError, ValueError) as error:
            msg = f"{path} cannot be read ({error}); delete that folder, or choose another file (--out)"
            raise InvalidInputError(msg) from error
        if differing:
            names = " and ".join(differing)
            msg = f"{self.folder} holds the parts of a run with another {names}; continue with the same, "
            raise InvalidInputError(msg + "delete that folder to start again, or choose another file (--out)")

    def numbered_paths(self) -> Iterator[NumberedPath]:
        """Iterate over all images."""
        with (self.folder / LIST_FILE).open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            yield from enumerate(line[:-1] for line in lines)

    def count_images(self) -> int:
        """Count all images."""
        return sum(1 for _ in self.numbered_paths())

    def missing_parts(self) -> Iterator[tuple[int, list[NumberedPath]]]:
        """Iterate over the numbers and images of the parts that are not written yet."""
        for number, images in itertools.groupby(self.numbered_paths(), lambda image: image[0] // ROWS_PER_PART):
            if not self._part_path(number).exists():
                yield number, list(images)

    def write_part(self, number: int, rows: list[InspectionRow]) -> None:
        """Write a part.

        Raises:
            InvalidInputError: If it cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._writing():
            if not self.folder.exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))
            with atomic_path(self._part_path(number)) as partial:
                named = [{**row, "model": self.settings.get("model")} for row in rows]
                pq.write_table(pa.Table.from_pylist(named, schema()), partial)

    def join(self) -> Counter[str]:
        """Join the parts into the table, and delete them.

        Returns:
            Number of ``images``, of ``defective`` ones, and of those with an ``error``.

        Raises:
            InvalidInputError: If the table cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        numbers = range(-(-self.count_images() // ROWS_PER_PART))
        joined = self.folder / "table.parquet"  # not beside the table, where a killed process would leave it
        counts: Counter[str] = Counter(images=0, defective=0, error=0)
        with self._writing():
            with pq.ParquetWriter(joined, schema()) as writer:
                for start in numbers[::PARTS_PER_ROW_GROUP]:
                    group = numbers[start : start + PARTS_PER_ROW_GROUP]
                    table = pa.concat_tables([self._read_part(number) for number in group])
                    writer.write_table(table)
                    counts.update(_count(table))
            joined.replace(self.out)
            shutil.rmtree(self.folder, ignore_errors=True)
        return counts

    def _read_part(self, number: int) -> "pa.Table":
        """Read a part; those of older versions have another name for a column, and lack some."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(self._part_path(number))
        table = table.rename_columns([RENAMED.get(name, name) for name in table.column_names])
        for field in schema():
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(len(table), field.type))
        return table.select(schema().names)

    def _part_path(self, number: int) -> Path:
        return self.folder / f"part-{number:05}.parquet"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors of the file system into errors for users."""
        try:
            yield
        except OSError as error:
            if error.errno is None:  # a MissingDataError, not an error of the file system
                raise
            if isinstance(error, FileNotFoundError) and not self.folder.exists():
                msg = f"{self.folder} was deleted while it was in use; run the command again"
                raise InvalidInputError(msg) from error
            reason = error.strerror or type(error).__name__
            msg = f"cannot write to {self.folder} ({reason}); finished parts are kept: free space or allow writing, "
            raise InvalidInputError(msg + "and run the command again") from error


def _write_list(paths: Iterable[str], file: Path) -> str:
    """Write the list of images, and return its digest."""
    digest = sha256()
    with file.open("wb") as lines:
        for path in paths:
            line = f"{path}\n".encode(errors="surrogateescape")
            digest.update(line)
            lines.write(line)
    return digest.hexdigest()


def _count(table: "pa.Table") -> dict[str, int]:
    import pyarrow.compute as pc

    defective = pc.sum(table["pred_label"]).as_py() or 0
    return {"images": len(table), "defective": defective, "error": len(table) - table["error"].null_count}
