"""What users call images that a model has inspected: an append-only log, and its export as data to train on."""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import new_folder, write_bytes
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.folder_reader import MASKS

FOLDER = "corrections"
"""Subfolder of the results."""

LOG = "log.jsonl"

DEFECT = "defect"
"""Type of the defects that are exported."""

LABELS = ("good", "bad")


@dataclass(frozen=True)
class Correction:
    """What a user calls an image.

    Args:
        digest: SHA-256 of the image file.
        suffix: Suffix of the image file.
        name: Name of the image file.
        label: ``good`` or ``bad``.
        mask: Name of the file of the painted defect; empty if none is painted.
        model: Name of the model that has inspected it.
        score: Its score.
        threshold: Threshold of the score.
        user: Token of the user.
        seconds: Time in seconds since 1970.
    """

    digest: str
    suffix: str
    name: str
    label: str
    mask: str
    model: str
    score: float
    threshold: float
    user: str
    seconds: float


class CorrectionLog:
    """The log, with a copy of each image and painted defect. Lines are only added; the last one of an image counts.

    Args:
        root: Results folder.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER
        self._lock = threading.Lock()

    def add(
        self,
        image: Path,
        label: str,
        *,
        mask: bytes | None = None,
        model: str = "",
        score: float = 0.0,
        threshold: float = 0.0,
        user: str = "",
    ) -> Correction:
        """Add a line.

        Args:
            image: The image file, of which a copy is kept.
            label: ``good`` or ``bad``.
            mask: PNG file of the defect, of the size of the image.
            model: Name of the model that has inspected it.
            score: Its score.
            threshold: Threshold of the score.
            user: Token of the user.

        Raises:
            InvalidInputError: If the label is unknown, or the folder is not writable.
        """
        check_one_of("label", label, LABELS)
        try:
            content = image.read_bytes()
            digest, suffix = hashlib.sha256(content).hexdigest(), image.suffix.lower()
            mask_name = "" if mask is None else f"{digest}-{hashlib.sha256(mask).hexdigest()[:16]}.png"
            (self.folder / "images").mkdir(parents=True, exist_ok=True)
            (self.folder / "masks").mkdir(exist_ok=True)
            if not (copy := self.folder / "images" / f"{digest}{suffix}").exists():
                write_bytes(copy, content)
            if mask is not None:
                write_bytes(self.folder / "masks" / mask_name, mask)
            line = Correction(
                digest, suffix, image.name, label, mask_name, model, score, threshold, user, round(time.time(), 3)
            )
            with self._lock, (self.folder / LOG).open("a", encoding="utf-8") as log:
                # A line begins with a break, which ends one that a crash has cut off.
                log.write("\n" + json.dumps(asdict(line)) + "\n")
        except OSError as error:
            msg = f"cannot keep the correction ({error.strerror}); make the results folder writable, or free space"
            raise InvalidInputError(msg) from error
        return line

    def lines(self) -> Iterator[Correction]:
        """Yield all lines, oldest first; a line that was cut off by a crash is left out."""
        try:
            text = (self.folder / LOG).read_text(encoding="utf-8")
        except OSError:
            return
        for line in filter(None, text.splitlines()):
            if (correction := _parse(line)) is not None:
                yield correction

    def latest(self) -> dict[str, Correction]:
        """Return the last line of each image by its digest; a painted defect stays if the image is still bad."""
        latest: dict[str, Correction] = {}
        for line in self.lines():
            before = latest.get(line.digest)
            if line.label == "bad" and not line.mask and before is not None:
                line = Correction(**{**asdict(line), "mask": before.mask})
            latest[line.digest] = line
        return latest

    def export(self, target: Path) -> Path:
        """Write the images to a new folder that ``DefectFolder`` reads, named by their digests.

        Args:
            target: The folder, which must not exist.

        Raises:
            InvalidInputError: If there are no corrections.
        """
        latest = self.latest()
        if not latest:
            msg = "there are no corrections yet; mark images as good or bad"
            raise InvalidInputError(msg)
        with new_folder(target) as partial:
            for line in latest.values():
                kind = GOOD if line.label == "good" else DEFECT
                name = line.digest[:16]
                _copy(self.folder / "images" / f"{line.digest}{line.suffix}", partial / kind / f"{name}{line.suffix}")
                if line.mask and kind == DEFECT:
                    _copy(self.folder / "masks" / line.mask, partial / MASKS / DEFECT / f"{name}.png")
        return target


def _parse(line: str) -> Correction | None:
    try:
        return Correction(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
