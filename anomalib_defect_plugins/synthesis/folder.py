"""A folder of synthetic images that grows by one image at a time and can be resumed.

::

    root/good/00012.png          normal images without the defects, at the size of the synthetic ones
    root/crack/00003.png         synthetic images, a folder for each category of defects
    root/masks/crack/00003.png   their masks, 255 on the defect
    root/_restored/00003.png     the same images with the defect removed again, if requested
    root/table.csv               a row for each synthetic image, see ``COLUMNS``
    root/settings.json           settings that the images were made with

``DefectFolder`` reads it, and so does anomalib's ``Folder`` if it gets the names of the folders.
"""

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anomalib import TaskType
from anomalib.data.utils import Split
from PIL import Image
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.files import PARTIAL_SUFFIX, atomic_path, is_partial
from anomalib_defect_plugins.core.image_files import image_files
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolderDataset
from anomalib_defect_plugins.data.folder_reader import MASKS
from anomalib_defect_plugins.data.sample_table import Sample

TABLE, SETTINGS, RESTORED = "table.csv", "settings.json", "_restored"

COLUMNS = ("number", "image", "mask", "category", "seed", "normal", "source", "mean_map", "defect_share")
"""Columns of the table: number of the image; files of the image, its mask and the normal image without the defect,
relative to the folder (``image``, ``mask``, ``normal``; empty if there is no usable defect, only ``mask`` if all images
are kept); category of the defect;
seed of the run; file of the normal image in the data module (``source``); mean of the map m, and fraction of defect
pixels in the mask, both in [0, 1].
"""

MAX_SHOWN_LENGTH = 60
"""Maximum length of a setting in an error message; longer ones are digests or long lists."""

SyntheticRow = dict[str, Any]
"""A row of the table, by column."""


class SyntheticFolder:
    """A folder of synthetic images. Each image exists with its mask and its row, or not at all.

    Args:
        root: The folder. It is created if it does not exist.
        settings: Settings that the images are made with, as plain JSON values; must be the same in a resumed run.

    Attributes:
        rows: Rows of the finished images, by number.

    Raises:
        InvalidInputError: If the folder contains something else, has other settings or is not writable.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self.root = root
        self.rows: dict[int, SyntheticRow] = {}
        if _is_in_use(root):
            _check_settings(root, settings)
            self.rows = {row["number"]: row for row in _read_rows(root / TABLE) if self._is_complete(row)}
        _remove_partial_files(root)
        # Rewritten without the rows of images that a user has deleted, and without half a row after a power cut.
        lines = map(_format_row, [dict(zip(COLUMNS, COLUMNS, strict=True)), *self.rows.values()])
        self._write({root / SETTINGS: json.dumps(settings, indent=2).encode(), root / TABLE: "".join(lines).encode()})

    def _is_complete(self, row: SyntheticRow) -> bool:
        return all((self.root / row[name]).is_file() for name in ("image", "mask", "normal") if row[name])

    def add(self, row: SyntheticRow, images: Mapping[str, Tensor]) -> None:
        """Add an image.

        Args:
            row: Its row.
            images: Images by file relative to the folder, shape (3, H, W) or (1, H, W), float in [0, 1] or bool.

        Raises:
            InvalidInputError: If the files cannot be written; none of them remains.
        """
        files = {self.root / name: _encode_png(image) for name, image in images.items()}
        try:
            self._write(files)
            self._append(row)
        except BaseException:  # also KeyboardInterrupt: DefectFolder would refuse a mask without its image
            for path in files:
                path.unlink(missing_ok=True)
            raise
        self.rows[row["number"]] = row

    def add_normal(self, name: str, image: Tensor) -> str:
        """Add a normal image, shape (3, H, W), float in [0, 1], unless it exists; return its file in the folder."""
        path = self.root / GOOD / name
        if not path.exists():
            self._write({path: _encode_png(image)})
        return f"{GOOD}/{name}"

    def _write(self, files: Mapping[Path, bytes]) -> None:
        """Write all files or none."""
        try:
            with contextlib.ExitStack() as stack:
                for path, content in files.items():
                    stack.enter_context(atomic_path(path)).write_bytes(content)
        except OSError as error:
            raise _cannot_write(self.root, error) from error
        finally:
            for path in files:
                with contextlib.suppress(OSError):
                    path.parent.rmdir()  # removes only a folder that has remained empty

    def _append(self, row: SyntheticRow) -> None:
        path = self.root / TABLE
        size = path.stat().st_size
        try:
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(_format_row(row))
        except OSError as error:
            os.truncate(path, size)
            raise _cannot_write(self.root, error) from error


def read_table(root: Path) -> pd.DataFrame:
    """Read the table of a folder of synthetic images: the images with a defect, by number.

    Raises:
        MissingDataError: If there is no table.
        InvalidInputError: If it cannot be read, or no image has a defect.
    """
    path = root / TABLE
    if not path.is_file():
        msg = f"{path} is missing; choose a folder that 'anomalib-defects synthesize' has written"
        raise MissingDataError(msg)
    table = pd.DataFrame([row for row in _read_rows(path) if row["image"]], columns=COLUMNS)
    if table.empty:
        msg = f"{path} has no image with a defect; choose a folder of a model that makes some"
        raise InvalidInputError(msg)
    return table.sort_values("number", ignore_index=True)


def synthetic_defects(root: Path) -> DefectFolderDataset:
    """Return the synthetic images of a folder, with their masks, as a training set.

    Raises:
        UserError: As in :func:`read_table`.
    """
    table = read_table(root)
    samples = [
        Sample(str(root / row.image), Split.TRAIN.value, row.category, str(root / row.mask) if row.mask else "")
        for row in table.itertuples()
    ]
    return DefectFolderDataset(samples, TaskType.SEGMENTATION)


def normal_images(root: Path, folder: str = GOOD) -> DefectFolderDataset:
    """Return the normal images of a folder as a training set.

    Args:
        root: The folder.
        folder: ``good`` for the images without the defects, ``_restored`` for those with the defects removed again.

    Raises:
        MissingDataError: If there are none.
    """
    files = image_files(root / folder) if (root / folder).is_dir() else []
    if not files:
        msg = f"{root / folder} contains no image; create them with: anomalib-defects synthesize --restored"
        raise MissingDataError(msg)
    return DefectFolderDataset([Sample(str(path), Split.TRAIN.value) for path in files], TaskType.SEGMENTATION)


def check_folder_name(category: str) -> None:
    """Check that a category can be the name of its folder.

    Raises:
        InvalidInputError: If it cannot.
    """
    if category in {GOOD, MASKS} or category[:1] in {"", ".", "_"} or set(category) & set('/\\:*?"<>|'):
        msg = f"defects of type {category!r} cannot have a folder of that name; train with another name for the type"
        raise InvalidInputError(msg)


def _is_in_use(root: Path) -> bool:
    """Whether the folder contains synthetic images.

    Raises:
        InvalidInputError: If it contains something else.
    """
    if not root.exists():
        return False
    if not root.is_dir():
        msg = f"{root} is a file; choose another folder (--out)"
        raise InvalidInputError(msg)
    # A killed process may have left a partial file of its first write.
    paths = [path for path in root.iterdir() if not is_partial(path)]
    if paths and not (root / SETTINGS).is_file():
        msg = f"{root} contains something else, such as {paths[0].name}; choose an empty or a new folder (--out)"
        raise InvalidInputError(msg)
    return bool(paths)


def _remove_partial_files(root: Path) -> None:
    """Remove what a killed process has left."""
    for path in root.rglob(f".*{PARTIAL_SUFFIX}"):
        with contextlib.suppress(OSError):
            path.unlink()


def _check_settings(root: Path, settings: Mapping[str, Any]) -> None:
    path = root / SETTINGS
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in {**stored, **settings} if stored.get(name) != settings.get(name)]
    except (AttributeError, OSError, ValueError) as error:
        msg = f"{path} cannot be read ({error}); choose another folder (--out)"
        raise InvalidInputError(msg) from error
    if differing:
        name = differing[0]
        before, now = str(stored.get(name)), str(settings.get(name))
        shown = max(len(before), len(now)) <= MAX_SHOWN_LENGTH
        difference = f"{name} {before}, not {now}" if shown else f"other {name}"
        msg = f"{root} is in use: its images were made with {difference}; choose another folder (--out), or the same "
        raise InvalidInputError(msg + "settings")


def _read_rows(path: Path) -> Iterable[SyntheticRow]:
    """Yield the rows of a table, without an incomplete last line."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        complete = text[: text.rfind("\n") + 1]
        for row in csv.DictReader(io.StringIO(complete)):
            numbers = {"number": int(row["number"]), "seed": int(row["seed"])}
            shares = {"mean_map": float(row["mean_map"]), "defect_share": float(row["defect_share"])}
            yield {**row, **numbers, **shares}
    except (KeyError, OSError, TypeError, ValueError) as error:
        msg = f"{path} is not a table of synthetic images ({error}); choose another folder"
        raise InvalidInputError(msg) from error


def _format_row(row: SyntheticRow) -> str:
    buffer = io.StringIO(newline="")
    csv.DictWriter(buffer, COLUMNS, lineterminator="\n").writerow(row)
    return buffer.getvalue()


def _encode_png(image: Tensor) -> bytes:
    pixels = (image.float().clamp(0, 1) * 255).round().byte().cpu().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(pixels, 2) if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _cannot_write(root: Path, error: OSError) -> InvalidInputError:
    reason = error.strerror or type(error).__name__
    return InvalidInputError(
        f"cannot write to {root} ({reason}); finished images are kept: free space, or make the folder writable, and "
        "run the command again"
    )
