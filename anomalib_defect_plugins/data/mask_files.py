"""Matching of mask files and images by their names."""

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.core.image_files import image_files
from anomalib_defect_plugins.core.mask_io import leaves_background, read_mask
from anomalib_defect_plugins.data.folder_layout import WORDS, nested_images

NAMES = (re.compile(rf"(.+)[ _.-]{WORDS}", re.IGNORECASE), re.compile(rf"{WORDS}[ _.-](.+)", re.IGNORECASE))
"""Stems of masks: that of the image, and a word for masks after or before it."""


BESIDE = (*NAMES, re.compile(rf"(.+?) ?\(?{WORDS}\)?", re.IGNORECASE), re.compile(r"(.+?)[ _.-]?m", re.IGNORECASE))
"""The same, and shorter forms such as ``0001mask``, ``0001 (mask)`` and ``0001_m``, for stems that an image has."""

ImagesOfFolder = Mapping[Path, Sequence[Path]]
"""Images by the folder that their masks are in."""


def image_stem(stem: str, stems: Container[str]) -> str | None:
    """Return the stem of the image that a mask belongs to.

    Args:
        stem: Stem of the mask.
        stems: Stems of the images.

    Returns:
        The same stem if an image has it, or else the part without a word for masks; ``None`` if no image has that.
    """
    parts = [match[1] for name in BESIDE if (match := name.fullmatch(stem))]
    return next((part for part in (stem, *parts) if part in stems), None)


def split_beside(files: Sequence[Path], faults: Faults) -> tuple[list[Path], dict[Path, Path]]:
    """Separate the images of a folder from masks beside them, such as ``0001_GT.png`` beside ``0001.jpg``.

    Args:
        files: Image files of a folder.
        faults: Gets an error for each image with two masks, and for files that may be an image or a mask.

    Returns:
        The images, and masks by image.
    """
    by_stem = {path.stem: path for path in files}
    masks: dict[Path, Path] = {}
    for path in files:
        stem = image_stem(path.stem, by_stem.keys() - {path.stem})
        if stem is not None and masks.setdefault(by_stem[stem], path) != path:
            faults.add(
                InvalidInputError(f"the masks {masks[by_stem[stem]]} and {path} belong to one image; remove one")
            )
    taken = set(masks.values())
    images = [path for path in files if path not in taken]
    _find_doubtful(images, masks, faults)
    return images, masks


def _find_doubtful(images: Sequence[Path], masks: dict[Path, Path], faults: Faults) -> None:
    """Find images that may be masks: without a partner where others have one, or one of two with one stem."""
    for path in images:
        if masks and any(name.fullmatch(path.stem) for name in NAMES):
            msg = f"{path} has the name of a mask, and belongs to no image; rename or remove it"
            faults.add(InvalidInputError(msg))
    counts = Counter(path.stem for path in images)
    twins = [path for path in images if counts[path.stem] > 1]
    if twins and (set(counts.values()) == {2} or any(_may_be_mask(path, is_marked=False) for path in twins)):
        msg = f"{twins[0]} and {twins[1]} have the same name, and may be an image and its mask; move the masks to a "
        faults.add(InvalidInputError(msg + "folder of their own, or rename or remove one"))


def _may_be_mask(path: Path, is_marked: bool = True) -> bool:
    """Whether a file reads as a mask, as photos hardly do; an empty one only if it need not be marked."""
    try:
        marks = read_mask(path)
    except (OSError, ValueError):
        return False
    return (bool(marks.any()) or not is_marked) and leaves_background(marks)


def match_folder(masks: Path, images: ImagesOfFolder, ignored: Container[Path], faults: Faults) -> dict[Path, Path]:
    """Find the masks of defective images in a folder of masks. Images may have none.

    Args:
        masks: Folder of the masks.
        images: Defective images by the subfolder of their masks.
        ignored: Subfolders whose files are not needed, such as those of types that are not used.
        faults: Gets an error for each mask that belongs to no image, and for conflicts of names.

    Returns:
        Masks by image.
    """
    found = [pair for folder, paths in images.items() if paths for pair in _match(paths, folder, faults)]
    for mask in [*image_files(masks), *nested_images(masks)]:
        if mask.parent not in images and mask.parent not in ignored:
            expected = masks / "<defect type>" / f"{mask.stem}.png"
            msg = f"mask {mask} belongs to no image; remove it, or move it to its expected place: {expected}"
            faults.add(InvalidInputError(msg))
    return dict(found)


def are_masks(folder: Path, images: ImagesOfFolder, ignored: Container[Path]) -> bool:
    """Whether the files of a folder are masks of defective images, by their names and the content of the first.

    Args:
        folder: The folder.
        images: Defective images by the subfolder that their masks would be in.
        ignored: Subfolders whose files are not needed.
    """
    faults = Faults(folder)
    masks = match_folder(folder, images, ignored, faults)
    return bool(masks) and not faults and _may_be_mask(next(iter(masks.values())))


def _match(images: Sequence[Path], folder: Path, faults: Faults) -> Iterator[tuple[Path, Path]]:
    masks = image_files(folder) if folder.is_dir() else []
    by_stem = _by_stem(images, "images", faults) if masks else {path.stem: path for path in images}
    stems = [image_stem(mask.stem, by_stem) or mask.stem for mask in masks]
    mask_by_stem = _by_stem(masks, "masks", faults, stems)
    for stem, mask in mask_by_stem.items():
        if stem not in by_stem:
            msg = f"mask {mask} belongs to no image of {images[0].parent}; remove it or name it after its image"
            faults.add(InvalidInputError(msg))
    for stem, image in by_stem.items():
        if stem in mask_by_stem:
            yield image, mask_by_stem[stem]
        elif image_stem(stem, by_stem.keys() - {stem}) is not None:
            msg = f"image {image} has the name of a mask; move it to {folder} if it is one, or else rename it"
            faults.add(InvalidInputError(msg))


def _by_stem(files: Sequence[Path], what: str, faults: Faults, stems: Sequence[str] | None = None) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for stem, path in zip(stems or [path.stem for path in files], files, strict=True):
        if by_stem.setdefault(stem, path) != path:
            conflict = "one mask would belong to both" if what == "images" else "both would belong to one image"
            msg = f"the {what} {by_stem[stem]} and {path} have the same name, so {conflict}; rename or remove one"
            faults.add(InvalidInputError(msg))
    return by_stem
