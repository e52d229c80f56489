"""Inspection of images as they appear in a folder: each exactly once, also if the process is killed.

An image is recorded in one transaction; before that it counts as new, and after that it is never inspected again.
Moving it, and sending a message, are repeated after a kill until they are recorded too: moving has no effect the second
time, and a message carries the number of the row, so that a receiver can drop a repetition.
"""

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.files import PARTIAL_SUFFIX
from anomalib_defect_plugins.deployment.journal import Entry, FileVersion, Journal
from anomalib_defect_plugins.inference.inspect_folder import scan_folder

if TYPE_CHECKING:
    from anomalib_defect_plugins.inference.openvino import Inspector

VERDICTS = {0: "normal", 1: "defective", None: "error"}

CHUNK = 32
"""Images that are recorded at once: as many are inspected again after a kill."""

RETRY_S = 10.0
"""Time between two attempts to send messages."""

ACTIONS = ("none", "move", "link")

Notifier = Callable[[dict[str, Any]], None]
"""Function that sends a message, or raises ``OSError``."""


@dataclass(frozen=True)
class WatchSettings:
    """How a folder is watched.

    Args:
        action: ``move`` images to folders by verdict, ``link`` them there, or ``none``.
        interval: Time between two looks at the folder, in seconds.
        settle: Time in seconds for which a file must not change before it is inspected.
        once: Whether to end when nothing is left to inspect.
    """

    action: str = "none"
    interval: float = 0.5
    settle: float = 1.0
    once: bool = False


class Watcher:
    """Inspects the images that appear in a folder.

    Args:
        inspector: The model.
        model: Its hash.
        folder: Folder to watch, with its subfolders.
        out: Folder of the record, and of moved images and links.
        settings: The settings.
        notify: Function that sends a message for each image; by default none is sent.

    Raises:
        MissingDataError: If the folder does not exist.
        InvalidInputError: If another process uses ``out``, or it cannot be written.
    """

    def __init__(
        self,
        inspector: "Inspector",
        model: str,
        folder: Path,
        out: Path,
        settings: WatchSettings,
        notify: Notifier | None = None,
    ) -> None:
        if not folder.is_dir():
            msg = f"{folder} is not a folder; use the folder in which images appear"
            raise MissingDataError(msg)
        self.inspector, self.model, self.settings, self.notify = inspector, model, settings, notify
        self.folder, self.out = folder.absolute(), out.absolute()
        self.journal = Journal(self.out)
        self.lock = FileLock(self.out / ".lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            msg = f"{out} is in use by another process; stop it, or choose another folder (--out)"
            raise InvalidInputError(msg) from error
        self._known = {version.path: version for version in self.journal.versions()}
        self._unsettled: dict[str, tuple[FileVersion, float]] = {}
        self._next_attempt = 0.0

    def run(self) -> None:
        """Inspect what appears, until the process is stopped, or nothing is left with ``once``."""
        try:
            self._finish()
            while True:
                count = sum(self._inspect(chunk) for chunk in self._chunks())
                self._send()
                if self.settings.once and not count and not self._unsettled:
                    return
                if not count:
                    time.sleep(self.settings.interval)
        finally:
            self.journal.close()
            self.lock.release()

    def _chunks(self) -> Iterator[list[FileVersion]]:
        ready = list(self._settled())
        for start in range(0, len(ready), CHUNK):
            yield ready[start : start + CHUNK]

    def _settled(self) -> Iterator[FileVersion]:
        """Iterate over the new files that have not changed for a while."""
        now, unsettled = time.monotonic(), {}
        for path in scan_folder(self.folder, []):
            version = None if Path(path).is_relative_to(self.out) else _version(path)
            if version is None or self._known.get(path) == version:
                continue
            known, since = self._unsettled.get(path, (version, now))
            if known != version:
                since = now
            # A file that was last written long ago need not be watched for a while.
            age = max(now - since, time.time() - version.mtime_ns / 1e9)
            if age >= self.settings.settle:
                yield version
            else:
                unsettled[path] = (version, since)
        self._unsettled = unsettled

    def _inspect(self, versions: list[FileVersion]) -> int:
        """Inspect files and record the results; return the number of files."""
        rows = self.inspector.inspect(enumerate(version.path for version in versions))
        taken: set[str] = set()
        found = []
        for version, (_, row) in zip(versions, rows, strict=True):
            if _version(version.path) != version:  # it has changed meanwhile, or is gone
                continue
            verdict = VERDICTS[row.get("pred_label")]
            found.append((version, {**row, "verdict": verdict, "target": self._target(version.path, verdict, taken)}))
        self.journal.add(found, self.model)
        self._known.update({version.path: version for version, _ in found})
        for _, row in found:
            score = "" if row.get("score") is None else f" {row['score']:.3f}"
            sys.stdout.write(f"{row['verdict']}{score} {row['path']}{' ' + row['error'] if row.get('error') else ''}\n")
        sys.stdout.flush()
        self._finish()
        return len(found)

    def _target(self, path: str, verdict: str, taken: set[str]) -> str | None:
        """Return the path that an image is moved or linked to, which no other image has."""
        if self.settings.action == "none":
            return None
        target = self.out / verdict / Path(path).relative_to(self.folder)
        candidate, number = target, 1
        while str(candidate) in taken or self.journal.has_target(str(candidate)) or os.path.lexists(candidate):
            number += 1
            candidate = target.with_name(f"{target.stem}-{number}{target.suffix}")
        taken.add(str(candidate))
        return str(candidate)

    def _finish(self) -> None:
        """Move or link the recorded images; after a kill, those that were left."""
        entries = self.journal.pending("delivered")
        for entry in entries:
            if entry.target is not None:
                self._deliver(entry)
        self.journal.mark("delivered", (entry.id for entry in entries))

    def _deliver(self, entry: Entry) -> None:
        source, target = Path(entry.version.path), Path(str(entry.target))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.settings.action == "link":
                if not os.path.lexists(target):
                    target.symlink_to(source)
                return
            if _version(str(source)) == entry.version:
                _move(source, target)
                self._known.pop(str(source), None)
        except OSError as error:
            msg = f"cannot write to {target} ({error.strerror}); free space or allow writing, and run the command again"
            raise InvalidInputError(msg) from error

    def _send(self) -> None:
        """Send the messages that are due; after a failure, try again later."""
        if self.notify is None or time.monotonic() < self._next_attempt:
            return
        for entry in self.journal.pending("notified"):
            try:
                self.notify(message(entry))
            except OSError as error:
                self._next_attempt = time.monotonic() + RETRY_S
                sys.stderr.write(
                    f"warning: messages wait, because one cannot be sent ({error}); next attempt in 10 s\n"
                )
                return
            self.journal.mark("notified", [entry.id])


def message(entry: Entry) -> dict[str, Any]:
    """Return the message about an image, as JSON values."""
    fields = ("id", "verdict", "score", "regions", "error", "model", "inspected_at", "target")
    return {"path": entry.version.path, **{name: getattr(entry, name) for name in fields}}


def _version(path: str) -> FileVersion | None:
    """Return which content a file has; ``None`` if it is gone."""
    try:
        status = os.stat(path)  # noqa: PTH116 - for each file of a folder at each look
    except OSError:
        return None
    return FileVersion(path, status.st_ino, status.st_size, status.st_mtime_ns)


def _move(source: Path, target: Path) -> None:
    """Move a file; to another file system, a complete copy appears before the file is deleted."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        partial = target.with_name(f".{target.name}{PARTIAL_SUFFIX}")
        shutil.copy2(source, partial)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(target)
        with suppress(FileNotFoundError):
            source.unlink()
