"""Images of a user's parts, uploaded, packed or painted, as a folder that ``DefectFolder`` reads."""

import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.core.image_limits import FORMATS
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.folder_reader import MASKS
from anomalib_defect_plugins.demo.services.uploads import check_upload

DEFECT = "defect"
"""Type of the defects of uploaded images."""

PARTS = ".parts"
"""Subfolder of the results for the images of parts; hidden, since it holds no results."""

MAX_FILES = 2000
"""Maximum number of files in a ZIP file."""

MAX_UNPACKED_BYTES = 2**30
"""Maximum size of the unpacked files."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
"""Accepted names of data sets."""


@dataclass(frozen=True)
class PartImages:
    """Images of parts as files on the server.

    Args:
        good: Images of good parts.
        bad: Images of defective parts.
        masks: Masks of defective images, named as these.
        painted: PNG files of painted masks, by the path of the defective image.
        archive: ZIP file of a folder with ``good`` and defective images, instead of all others.
    """

    good: Sequence[str] = ()
    bad: Sequence[str] = ()
    masks: Sequence[str] = ()
    painted: Mapping[str, bytes] = field(default_factory=dict)
    archive: str | None = None


@dataclass(frozen=True)
class PartsSummary:
    """Numbers of images in a folder of parts.

    Args:
        good: Good parts.
        bad: Defective parts.
        marked: Defective parts with a mask.
    """

    good: int
    bad: int
    marked: int

    def __str__(self) -> str:
        """Describe the images: ``12 good parts, 10 defective ones, 10 of them marked``."""
        return f"{counted(self.good, 'good part')}, {self.bad} defective ones, {self.marked} of them marked"


def write_parts(root: Path, name: object, images: PartImages) -> Path:
    """Write images of parts to a new folder, which appears once it is complete and can be read.

    Args:
        root: Results folder.
        name: Name of the data set.
        images: The images.

    Returns:
        The folder.

    Raises:
        InvalidInputError: If the name is invalid or taken, or the images cannot be used.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        msg = f"{str(name)[:60]!r} cannot be the name of the model; use letters, digits, '-' and '_'"
        raise InvalidInputError(msg)
    path = root / PARTS / name
    if path.exists() or (root / name).exists():
        msg = f"there is a model {name} already; choose another name"
        raise InvalidInputError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(path) as partial:
        _unpack(images.archive, partial) if images.archive else _copy(images, partial)
        summarize_parts(partial)
    return path


def summarize_parts(folder: Path) -> PartsSummary:
    """Read a folder of parts as training does, and count its images.

    Raises:
        InvalidInputError: If it cannot be used for training; all faults are named.
        MissingDataError: If a folder is missing or empty.
    """
    data = DefectFolder(folder, num_workers=0, test_ratio=0.2)
    data.setup()
    tables = [data.train_data.samples, data.test_data.samples]
    labels = [int((table.label_index == 1).sum()) for table in tables]
    marked = sum(int((table.mask_path.astype(str) != "").sum()) for table in tables if "mask_path" in table)
    return PartsSummary(sum(map(len, tables)) - sum(labels), sum(labels), marked)


def _copy(images: PartImages, folder: Path) -> None:
    if not images.good:
        msg = "there are no good parts yet; add photos of parts without a defect"
        raise InvalidInputError(msg)
    for paths, kind in ((images.good, GOOD), (images.bad, DEFECT), (images.masks, f"{MASKS}/{DEFECT}")):
        for path in paths:
            check_upload(path)
            _copy_file(Path(path), folder / kind / Path(path).name)
    for path, mask in images.painted.items():
        target = folder / MASKS / DEFECT / f"{Path(path).stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(mask)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        msg = f"two files are named {target.name}; rename one of them"
        raise InvalidInputError(msg)
    shutil.copyfile(source, target)


def _unpack(archive: str, folder: Path) -> None:
    """Unpack the images of a ZIP file, without a common folder at its top."""
    try:
        with zipfile.ZipFile(archive) as content:
            files = [file for file in content.infolist() if _is_image(file)]
            _check_archive(files)
            top = _common_folder([PurePosixPath(file.filename) for file in files])
            for file in files:
                target = folder / PurePosixPath(file.filename).relative_to(top)
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(file) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:  # RuntimeError: encrypted
        msg = f"{Path(archive).name} cannot be unpacked ({error}); pack the folder again as ZIP, without a password"
        raise InvalidInputError(msg) from error
    for path in folder.rglob("*"):
        if path.is_file():
            check_upload(path)


def _is_image(file: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(file.filename)
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in path.parts)
    return not file.is_dir() and not hidden and path.suffix.lower() in FORMATS


def _check_archive(files: Sequence[zipfile.ZipInfo]) -> None:
    if not files:
        msg = "the ZIP file has no images; pack a folder with 'good' and a folder for each type of defect"
        raise InvalidInputError(msg)
    for file in files:
        if PurePosixPath(file.filename).is_absolute() or ".." in PurePosixPath(file.filename).parts:
            msg = f"the ZIP file has a file outside its folder, {file.filename}; pack the folder again"
            raise InvalidInputError(msg)
    size = sum(file.file_size for file in files)
    if len(files) > MAX_FILES or size > MAX_UNPACKED_BYTES:
        msg = f"the ZIP file has {counted(len(files), 'image')} of {size / 2**20:.0f} MB, more than {MAX_FILES} or "
        raise InvalidInputError(msg + f"{MAX_UNPACKED_BYTES / 2**20:.0f} MB; use fewer, or 'anomalib train'")


def _common_folder(paths: Sequence[PurePosixPath]) -> PurePosixPath:
    """Return the folders at the top that all files share and that is no folder of images itself."""
    common = paths[0].parts[:-1]
    for path in paths:
        common = tuple(a for a, b in zip(common, path.parts[:-1], strict=False) if a == b) if common else ()
    if common and common[-1] in {GOOD, "ok", "normal"}:
        common = common[:-1]
    return PurePosixPath(*common)
