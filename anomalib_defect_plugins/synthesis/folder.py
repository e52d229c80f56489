"""A folder of synthetic images that grows image by image, and can go on where it stopped.

::

    root/good/00012.png          normal images that defects were put on, at the size of the synthetic ones
    root/crack/00003.png         synthetic images, a folder for each type of defect
    root/masks/crack/00003.png   their masks, 255 on the defect
    root/_restored/00003.png     the same images with the defect taken away again, if asked for
    root/table.csv               a row for each synthetic image, see ``COLUMNS``
    root/settings.json           what they were made with

``DefectFolder`` reads it as it is, and anomalib's ``Folder`` too, with the names of the folders.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anomalib import TaskType
from anomalib.data.utils import Split
from PIL import Image
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.dataset import image_files
from anomalib_defect_plugins.data.datasets.defect_folder import MASKS, DefectFolderDataset
from anomalib_defect_plugins.data.sample_table import Sample

TABLE, SETTINGS, RESTORED = "table.csv", "settings.json", "_restored"

COLUMNS = ("number", "image", "mask", "category", "seed", "normal", "source", "mean_map", "defect_share")
"""Columns of the table: number of the image; its file, that of its mask and that of the normal image it is made of
(relative to the folder; empty where no usable defect came out) with the type of its defect and the seed of the run;
where the data module has the normal image; the mean of the map m, and the share of defect pixels in the mask, both in
[0, 1].
"""

DIGEST = 60
"""Settings of more characters are digests or long lists, which are not shown."""

Row = dict[str, Any]
"""A row of the table, by the name of the column."""


class SyntheticFolder:
    """A folder that is being filled. Each image is there as a whole, with its mask and its row, or not at all.

    Args:
        root: The folder; it is made if it does not exist.
        settings: What the images are made with, as plain JSON values. A folder that was begun with others is refused.

    Attributes:
        rows: The rows of what is finished, by the number of the image.

    Raises:
        InvalidInputError: The folder holds something else, or cannot be written to.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self.root = root
        self.rows: dict[int, Row] = {}
        if _in_use(root):
            _check_settings(root, settings)
            self.rows = {row["number"]: row for row in _read_rows(root / TABLE) if self._is_whole(row)}
        # Without the rows of images that someone has removed, and without half a line that a power cut has left.
        lines = map(_line, [dict(zip(COLUMNS, COLUMNS, strict=True)), *self.rows.values()])
        self._write({root / SETTINGS: json.dumps(settings, indent=2).encode(), root / TABLE: "".join(lines).encode()})

    def _is_whole(self, row: Row) -> bool:
        names = [row[name] for name in ("image", "mask", "normal") if row["image"]]
        return all((self.root / name).is_file() for name in names)

    def add(self, row: Row, images: Mapping[str, Tensor]) -> None:
        """Keep an image.

        Args:
            row: Its row.
            images: Pixels by file relative to the folder: (3, H, W) or (1, H, W), float in [0, 1], or bool.

        Raises:
            InvalidInputError: They cannot be written; nothing of them is left.
        """
        files = {self.root / name: _png(pixels) for name, pixels in images.items()}
        try:
            self._write(files)
            self._append(row)
        except BaseException:  # also when the user interrupts: a mask without its image would be refused
            for path in files:
                path.unlink(missing_ok=True)
            raise
        self.rows[row["number"]] = row

    def add_normal(self, name: str, image: Tensor) -> str:
        """Keep a normal image (3, H, W), float in [0, 1], unless it is there; gives its file relative to the folder."""
        path = self.root / GOOD / name
        if not path.exists():
            self._write({path: _png(image)})
        return f"{GOOD}/{name}"

    def _write(self, files: Mapping[Path, bytes]) -> None:
        """Write files, all of them or none."""
        parts = {path.with_name(f".{path.name}.part"): path for path in files}
        try:
            for part, path in parts.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(files[path])
            for part, path in parts.items():
                os.replace(part, path)
        except OSError as error:
            raise _cannot_write(self.root, error) from error
        finally:
            for part in parts:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
                    part.parent.rmdir()  # takes away a folder that stayed empty, and no other

    def _append(self, row: Row) -> None:
        path = self.root / TABLE
        size = path.stat().st_size
        try:
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(_line(row))
        except OSError as error:
            os.truncate(path, size)
            raise _cannot_write(self.root, error) from error


def read_table(root: Path) -> pd.DataFrame:
    """Read the table of a folder of synthetic images: the rows of those that have a defect, by number.

    Raises:
        MissingDataError: There is no such table.
        InvalidInputError: It is not one, or none of its images has a defect.
    """
    path = root / TABLE
    if not path.is_file():
        msg = f"{path} is missing; give a folder that 'anomalib-defects synthesize' has made"
        raise MissingDataError(msg)
    table = pd.DataFrame([row for row in _read_rows(path) if row["image"]], columns=COLUMNS)
    if table.empty:
        msg = f"{path} has no image with a defect; give a folder of a generator that makes some"
        raise InvalidInputError(msg)
    return table.sort_values("number", ignore_index=True)


def synthetic_defects(root: Path) -> DefectFolderDataset:
    """Give the synthetic images of a folder, with their masks, as training images.

    Raises:
        UserError: As :func:`read_table`.
    """
    table = read_table(root)
    samples = [
        Sample(str(root / row.image), Split.TRAIN.value, row.category, str(root / row.mask))
        for row in table.itertuples()
    ]
    return DefectFolderDataset(samples, TaskType.SEGMENTATION)


def normal_images(root: Path, folder: str = GOOD) -> DefectFolderDataset:
    """Give the normal images of a folder as training images.

    Args:
        root: The folder.
        folder: ``good`` for those that defects were put on, ``_restored`` for those that they were taken away from.

    Raises:
        MissingDataError: There are none.
    """
    files = image_files(root / folder) if (root / folder).is_dir() else []
    if not files:
        msg = f"{root / folder} holds no image; make them: anomalib-defects synthesize --restored"
        raise MissingDataError(msg)
    return DefectFolderDataset([Sample(str(path), Split.TRAIN.value) for path in files], TaskType.SEGMENTATION)


def check_folder_name(category: str) -> None:
    """Refuse a type of defect that cannot be the name of its folder.

    Raises:
        InvalidInputError: It cannot.
    """
    if category in {GOOD, MASKS} or category[:1] in {"", ".", "_"} or set(category) & set('/\\:*?"<>|'):
        msg = f"defects of type {category!r} cannot have a folder of that name; train with another name for the type"
        raise InvalidInputError(msg)


def _in_use(root: Path) -> bool:
    """Whether the folder holds synthetic images.

    Raises:
        InvalidInputError: It holds something else.
    """
    if not root.exists():
        return False
    if not root.is_dir():
        msg = f"{root} is a file; give another folder (--out)"
        raise InvalidInputError(msg)
    # An interrupted first write may have left its temporary file.
    found = [path for path in root.iterdir() if path.name != f".{SETTINGS}.part"]
    if found and not (root / SETTINGS).is_file():
        msg = f"{root} holds something else, such as {found[0].name}; give an empty or a new folder (--out)"
        raise InvalidInputError(msg)
    return bool(found)


def _check_settings(root: Path, settings: Mapping[str, Any]) -> None:
    path = root / SETTINGS
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    except (AttributeError, OSError, ValueError) as error:
        msg = f"{path} cannot be read ({error}); give another folder (--out)"
        raise InvalidInputError(msg) from error
    if differing:
        name = differing[0]
        made, wanted = (str(values.get(name)) for values in (before, settings))
        # Digests tell the user nothing.
        how = f"other {name}" if max(len(made), len(wanted)) > DIGEST else f"{name} {made}, not {wanted}"
        msg = f"{root} is in use: its images were made with {how}; give another folder (--out), or the same settings"
        raise InvalidInputError(msg)


def _read_rows(path: Path) -> Iterable[Row]:
    """Give the rows of a table; half a line at its end is left out."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        for row in csv.DictReader(io.StringIO(whole)):
            yield {**row, "number": int(row["number"]), "mean_map": float(row["mean_map"])} | {
                "seed": int(row["seed"]),
                "defect_share": float(row["defect_share"]),
            }
    except (KeyError, OSError, TypeError, ValueError) as error:
        msg = f"{path} is no table of synthetic images ({error}); give another folder"
        raise InvalidInputError(msg) from error


def _line(row: Row) -> str:
    buffer = io.StringIO(newline="")
    csv.DictWriter(buffer, COLUMNS, lineterminator="\n").writerow(row)
    return buffer.getvalue()


def _png(image: Tensor) -> bytes:
    pixels = (image.float().clamp(0, 1) * 255).round().byte().cpu().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(pixels, 2) if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _cannot_write(root: Path, error: OSError) -> InvalidInputError:
    reason = error.strerror or type(error).__name__
    return InvalidInputError(
        f"cannot write to {root} ({reason}); what is finished is kept: make room, or allow writing, and run it again"
    )
