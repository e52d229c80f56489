"""Reading of user data in folders: normal images, defect types, masks, and a fixed split if there is one."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from anomalib.data.utils import Split

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.core.image_files import IMAGE_SUFFIXES, image_files, unread_files, warn_of_unread
from anomalib_defect_plugins.core.image_io import check_image
from anomalib_defect_plugins.core.mask_io import check_background, read_mask
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.dataset import check_size, reading
from anomalib_defect_plugins.data.folder_layout import (
    MASK_FOLDER,
    nested_images,
    normal_folders,
    subfolders,
    type_folders,
)
from anomalib_defect_plugins.data.identical_images import warn_of_identical
from anomalib_defect_plugins.data.mask_files import ImagesOfFolder, are_masks, match_folder, split_beside
from anomalib_defect_plugins.data.sample_table import Sample

logger = logging.getLogger(__name__)

MASKS = "masks"
"""Default folder of the masks, the only one that is optional."""

IGNORE = "ignore"
"""Default folder of masks of what is neither defective nor normal, which is optional."""

FIXED_SPLITS = (Split.TRAIN.value, Split.TEST.value)
"""Folders of a fixed split, as in MVTec AD."""


class Part(NamedTuple):
    """The folders of one split, or of all data if there is no fixed split.

    Args:
        split: Name of the split; empty if there is no fixed one.
        root: Folder of the part.
        normal: Folder of normal images, if there is one.
        types: Folders of defect types.
        candidates: Folders that may hold masks.
    """

    split: str
    root: Path
    normal: Path | None
    types: list[Path]
    candidates: list[Path]

    @property
    def folders(self) -> list[Path]:
        """Folders of images, normal ones first."""
        return [*filter(None, [self.normal]), *self.types]


class FolderReader:
    """Reads the images of a folder and finds their masks.

    Args:
        root: Folder with the other folders, or with the folders ``train`` and ``test`` of a fixed split.
        normal_dir: Folder of the normal images in ``root``; the default may be missing, or have another usual name.
            ``None`` if there are no normal images.
        defect_dirs: Folders of the defect types; by default all others that are none of masks or programs.
        mask_dir: Folder of the masks; ``None`` to ignore masks.
        ignore_dir: Folder of masks of what is neither defective nor normal, which is no defect type.
        advice: What to do if a folder is missing or empty, for messages.
        written: Folders that the present run writes to.
    """

    def __init__(
        self,
        root: Path,
        normal_dir: str | None,
        defect_dirs: Sequence[str] | None,
        mask_dir: str | None,
        ignore_dir: str | None,
        advice: str,
        written: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self.normal_dir = normal_dir
        self.defect_dirs = defect_dirs
        self.mask_dir = mask_dir
        self.ignore_dir = ignore_dir
        self.advice = advice
        self.written = written
        self.faults = Faults(root)

    def read(self) -> list[Sample]:
        """Return the images, with their split if it is fixed, defect type and mask.

        Raises:
            MissingDataError: If folders are missing or empty.
            InvalidInputError: If names conflict, a mask belongs to no image, or it is doubtful what a folder or file
                is. All faults are named.
        """
        self._existing(self.root, "of the data")
        parts = [self._part(split) for split in self._splits()]
        self._check_types(parts)
        self._warn_of_unused(parts)
        files = {folder: self._files(folder) for part in parts for folder in part.folders}
        warn_of_unread(path for folder in files for path in unread_files(folder))
        mask_folder = self._mask_folder(parts, files)
        images: dict[Path, list[Path]] = {}
        masks: dict[Path, Path] = {}
        normal = {part.normal for part in parts}
        for folder, paths in files.items():
            is_split = mask_folder is None or folder in normal
            images[folder], beside = split_beside(paths, self.faults) if is_split else (paths, {})
            masks |= beside
        self._check_unmarked(mask for image, mask in masks.items() if image.parent in normal)
        if mask_folder is not None:
            masks = self._match(mask_folder, parts, images)
        if self.faults:
            self._add_damaged(images, masks)
        self.faults.raise_all()
        samples = list(_samples(parts, images, {} if self.mask_dir is None else masks))
        if not samples:
            msg = f"the folder {self.root} has no images in its subfolders; {self.advice}"
            raise MissingDataError(msg)
        warn_of_identical(path for paths in images.values() for path in paths)
        return samples

    def _existing(self, folder: Path, what: str) -> Path:
        if not folder.is_dir():
            msg = f"the folder {what} {folder} does not exist; {self.advice}"
            raise MissingDataError(msg)
        return folder

    def _splits(self) -> Sequence[str]:
        """Return the folders of a fixed split, or an empty name."""
        is_default = self.normal_dir in {None, GOOD} and not (self.root / (self.normal_dir or GOOD)).is_dir()
        is_fixed = is_default and self.defect_dirs is None
        return FIXED_SPLITS if is_fixed and all((self.root / name).is_dir() for name in FIXED_SPLITS) else ("",)

    def _part(self, split: str) -> Part:
        root = self.root / split
        normal = self._normal(root, is_optional=bool(split))
        masks = root / (self.mask_dir or MASKS)
        excluded = [masks] if normal is None else [normal, *normal.parents, masks]
        excluded += [] if self.ignore_dir is None else [root / self.ignore_dir]
        listed = [path for path in subfolders(root) if not _is_one_of(path, excluded)]
        types, candidates = type_folders(listed, masks, self.written)
        if self.defect_dirs is not None:
            types = [root / name for name in self.defect_dirs]
            for folder in types:
                with self.faults.collect():
                    self._existing(folder, "of defective images")
            types = [folder for folder in types if folder.is_dir()]
            candidates = [path for path in candidates if not _is_one_of(path, types)]
        # The default mask folder is excluded even if another one is given.
        return Part(split, root, normal, types, [path for path in candidates if path.name != MASKS])

    def _normal(self, root: Path, is_optional: bool) -> Path | None:
        """Return the folder of normal images."""
        if self.normal_dir is None:
            return None
        folder = root / self.normal_dir
        if folder.is_dir():
            return folder
        if self.normal_dir != GOOD:
            return None if is_optional else self._existing(folder, "of normal images")
        usual = normal_folders(root)
        if len(usual) == 1:
            logger.info("the normal images are in the folder %s", usual[0])
            return usual[0]
        if usual:
            msg = f"the folders {usual[0]} and {usual[1]} may both hold normal images; merge them, or pass "
            raise InvalidInputError(msg + f"--data.normal_dir {usual[0].name}")
        return None

    def _check_types(self, parts: Sequence[Part]) -> None:
        """Check that the folders of a part have distinct names and none is normal."""
        for part in parts:
            seen: dict[str, Path] = {}
            for folder in part.types:
                if folder == part.normal or folder.name == GOOD:
                    normal = f"'{GOOD}'" if part.normal is None else f"'{GOOD}' and {part.normal}"
                    msg = f"the folder {folder} cannot be a defect type: {normal} means normal images; "
                    self.faults.add(InvalidInputError(msg + "rename it, or change --data.normal_dir"))
                elif seen.setdefault(folder.name, folder) != folder:
                    msg = f"the folders {seen[folder.name]} and {folder} have the same defect type; merge them"
                    self.faults.add(InvalidInputError(msg))
            if part.normal is None and not part.types and not part.candidates:
                what = "images, but no folder of them" if image_files(part.root) else "no folder of images"
                other = "" if part.split else _other_root(part.root.absolute().parent)
                msg = f"the folder {part.root} has {what}; {other}{self.advice}"
                self.faults.add(MissingDataError(msg))

    def _warn_of_unused(self, parts: Sequence[Part]) -> None:
        """Warn of folders beside those of a fixed split, such as ``val``."""
        used = {MASKS, self.mask_dir, self.ignore_dir, *(part.split for part in parts)}
        for path in subfolders(self.root) if parts[0].split else ():
            if path.name not in used and not MASK_FOLDER.fullmatch(path.name) and nested_images(path):
                logger.warning("images of %s are not used: the split of %s is that of train and test", path, self.root)

    def _files(self, folder: Path) -> list[Path]:
        images = image_files(folder)
        nested = nested_images(folder)
        if not images:
            unread = "".join(f", {path.name} has to be converted to PNG" for path in unread_files(folder)[:1])
            formats = " ".join(IMAGE_SUFFIXES)
            remedy = _other_root(folder) or "fill or remove it, or list the defect types with --data.defect_dirs: "
            self.faults.add(
                MissingDataError(f"the folder {folder} has no images ({formats}{unread}); {remedy}{self.advice}")
            )
        elif nested:
            is_mask = MASK_FOLDER.fullmatch(nested[0].relative_to(folder).parts[0])
            place = f"{self.root / MASKS / folder.name}" if is_mask else f"{folder} or elsewhere"
            msg = f"image {nested[0]} is in a subfolder, which is not read; move it to {place}"
            self.faults.add(InvalidInputError(msg))
        return images

    def _mask_folder(self, parts: Sequence[Part], files: dict[Path, list[Path]]) -> Path | None:
        """Return the folder of the masks: the given one, or else the only other one, if it has masks."""
        given = self.root / (self.mask_dir or MASKS)
        has_masks = given.is_dir() and bool(image_files(given) or nested_images(given))
        if self.mask_dir not in {None, MASKS} and not has_masks:
            self._existing(given, "of masks")
            msg = f"the folder of masks {given} has no images; pass another --data.mask_dir, or null to ignore masks"
            raise MissingDataError(msg)
        candidates = list(chain.from_iterable(part.candidates for part in parts))
        if parts[0].split:
            outside = [path for path in subfolders(self.root) if path not in (given, *(part.root for part in parts))]
            candidates += [path for path in outside if MASK_FOLDER.fullmatch(path.name)]
        found = self.mask_dir is not None and has_masks
        usable = (
            len(candidates) == 1 and not found and are_masks(candidates[0], *_expected(candidates[0], parts, files))
        )
        if candidates and not usable and self.defect_dirs is None:
            name = candidates[0].relative_to(self.root)
            msg = f"the folder {candidates[0]} may hold masks or images of a defect type; pass --data.mask_dir {name}, "
            self.faults.add(InvalidInputError(msg + "or list the defect types with --data.defect_dirs"))
        if usable:
            logger.info("the masks are in the folder %s", candidates[0])
        return given if found else candidates[0] if usable else None

    def _match(self, masks: Path, parts: Sequence[Part], images: dict[Path, list[Path]]) -> dict[Path, Path]:
        of_defects, ignored = _expected(masks, parts, images)
        if not of_defects:
            return {}
        # Masks of a missing folder are no further faults.
        ignored |= {masks / Path(name).name for name in self.defect_dirs or ()} - of_defects.keys()
        self._check_unmarked(mask for part in parts if part.normal for mask in _images_in(masks, part.normal.name))
        return match_folder(masks, of_defects, ignored, self.faults)

    def _add_damaged(self, images: dict[Path, list[Path]], masks: dict[Path, Path]) -> None:
        """Add unusable files to the faults, which are otherwise found later, so that all are named at once."""
        for path in chain.from_iterable(images.values()):
            with self.faults.collect():
                with reading("image", str(path)):
                    size = check_image(path)
                if path in masks and self.mask_dir is not None:
                    with reading("mask", str(masks[path])):
                        marks = read_mask(masks[path])
                        check_background(marks, f"mask {masks[path]}")
                    check_size(str(masks[path]), marks.shape[::-1], str(path), size)

    def _check_unmarked(self, masks: Iterable[Path]) -> None:
        """Check that masks of normal images mark nothing."""
        for mask in masks if self.mask_dir is not None else ():
            with self.faults.collect():
                with reading("mask", str(mask)):
                    marked = read_mask(mask).any()
                if marked:
                    msg = f"mask {mask} marks a defect of a normal image; move the image to the folder of a defect "
                    raise InvalidInputError(msg + "type, or rename the file if it is an image")


def ignored_files(folder: Path, samples: Sequence[Sample]) -> dict[str, Path]:
    """Find masks of what is neither defective nor normal.

    Args:
        folder: Their folder, which may not exist.
        samples: The images.

    Returns:
        Masks by image path.

    Raises:
        InvalidInputError: If a mask belongs to no image, or names conflict.
    """
    if not folder.is_dir():
        return {}
    images: dict[Path, list[Path]] = {}
    for path in (Path(sample.image_path) for sample in samples):
        images.setdefault(folder / path.parent.name, []).append(path)
    faults = Faults(folder)
    found = match_folder(folder, images, (), faults)
    faults.raise_all()
    return {str(image): mask for image, mask in found.items()}


def _samples(parts: Sequence[Part], images: dict[Path, list[Path]], masks: dict[Path, Path]) -> Iterator[Sample]:
    for part in parts:
        for folder in part.folders:
            defect_type = GOOD if folder == part.normal else folder.name
            for path in images[folder]:
                mask = "" if folder == part.normal else str(masks.get(path, ""))
                yield Sample(str(path), part.split, defect_type, mask)


def _expected(masks: Path, parts: Sequence[Part], images: dict[Path, list[Path]]) -> tuple[ImagesOfFolder, set[Path]]:
    """Return the defective images by the subfolder that their masks would be in, and subfolders that are not needed."""
    types = [(part, folder) for part in parts for folder in part.types]
    expected: dict[Path, list[Path]] = {}
    for part, folder in types:
        base = masks / part.split if part.split and (masks / part.split).is_dir() else masks
        is_flat = len(types) == 1 and not (base / folder.name).is_dir()
        expected.setdefault(base if is_flat else base / folder.name, []).extend(images[folder])
    used = {folder.name for _, folder in types}
    others = {path.name for part in parts for path in subfolders(part.root)} - used
    return expected, {masks / name for name in others}


def _images_in(masks: Path, name: str) -> list[Path]:
    return image_files(masks / name) if (masks / name).is_dir() else []


def _is_one_of(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a folder is one of several, of which the file system may ignore the case."""
    return any(folder.is_dir() and path.samefile(folder) for folder in folders)


def _other_root(folder: Path) -> str:
    """Return the advice to pass another folder as root, if that has normal images."""
    train = folder / Split.TRAIN.value
    found = [*normal_folders(folder), *(normal_folders(train) if train.is_dir() else [])]
    return f"pass {folder} as root, which has {found[0].relative_to(folder)}: " if found else ""
