"""Matching of mask files and images by their names."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError, UserError
from anomalib_defect_plugins.core.image_files import image_files
from anomalib_defect_plugins.core.mask_io import leaves_background, read_mask
from anomalib_defect_plugins.data.folder_layout import WORDS, nested_images

NAMES = (re.compile(rf"(.+)[ _.-]{WORDS}", re.IGNORECASE), re.compile(rf"{WORDS}[ _.-](.+)", re.IGNORECASE))
"""Stems of masks: that of the image, and a word for masks after or before it."""


BESIDE = (*NAMES, re.compile(rf"(.+?) ?\(?{WORDS}\)?", re.IGNORECASE), re.compile(r"(.+?)[ _.-]?m", re.IGNORECASE))
"""The same, and shorter forms such as ``0001mask``, ``0001 (mask)`` and ``0001_m``, for stems that an image has."""


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


def split_beside(files: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """Separate the images of a folder from masks beside them, such as ``0001_GT.png`` beside ``0001.jpg``.

    Args:
        files: Image files of a folder.

    Returns:
        The images, and masks by image.

    Raises:
        InvalidInputError: If two masks belong to one image, or it is doubtful whether a file is an image or a mask.
    """
    by_stem = {path.stem: path for path in files}
    masks: dict[Path, Path] = {}
    for path in files:
        stem = image_stem(path.stem, by_stem.keys() - {path.stem})
        if stem is not None and masks.setdefault(by_stem[stem], path) != path:
            msg = f"the masks {masks[by_stem[stem]]} and {path} belong to one image; remove one"
            raise InvalidInputError(msg)
    images = [path for path in files if path not in masks.values()]
    _check_doubtful(images, masks)
    return images, masks


def _check_doubtful(images: Sequence[Path], masks: dict[Path, Path]) -> None:
    """Check that no image may be a mask: one without a partner where others have one, or one of two with one stem."""
    named = [path for path in images if masks and any(name.fullmatch(path.stem) for name in NAMES)]
    if named:
        msg = f"{named[0]} has the name of a mask, and belongs to no image; rename or remove it"
        raise InvalidInputError(msg)
    counts = Counter(path.stem for path in images)
    twins = [path for path in images if counts[path.stem] > 1]
    if twins and (set(counts.values()) == {2} or any(_may_be_mask(path) for path in twins)):
        msg = f"{twins[0]} and {twins[1]} have the same name, and may be an image and its mask; move the masks to a "
        raise InvalidInputError(msg + "folder of their own, or rename or remove one")


def _may_be_mask(path: Path) -> bool:
    """Whether a file reads as a mask, as photos hardly do."""
    try:
        marks = read_mask(path)
    except (OSError, ValueError):
        return False
    return bool(marks.any()) and leaves_background(marks)


def match_beside(images: Iterable[Path], masks: dict[Path, Path]) -> dict[Path, Path]:
    """Find the mask of each defective image beside it.

    Args:
        images: The images.
        masks: Masks by image, of these and of other images.

    Returns:
        Masks by image.

    Raises:
        MissingDataError: If an image has none.
    """
    images = list(images)
    for image in images:
        if image not in masks:
            example = next(iter(masks.values()))
            msg = (
                f"image {image} has no mask beside it, though others have, such as {example}; create one, or remove it"
            )
            raise MissingDataError(msg)
    return {image: masks[image] for image in images}


def match_folder(masks: Path, normal: Path, images: dict[Path, list[Path]]) -> dict[Path, Path]:
    """Find the mask of each defective image in a folder of masks.

    Args:
        masks: Folder of the masks.
        normal: Folder of the normal images.
        images: Images by folder, including the normal ones.

    Returns:
        Masks by image.

    Raises:
        InvalidInputError: If a mask belongs to no defective image, or names conflict.
        MissingDataError: If an image has no mask.
    """
    folders = [folder for folder in images if folder != normal]
    flat = len(folders) == 1 and not (masks / folders[0].name).is_dir()
    images_of = {masks if flat else masks / folder.name: images[folder] for folder in folders}
    _check_strays(masks, normal, set(images_of))
    return {image: mask for mask_folder, paths in images_of.items() for image, mask in _match(paths, mask_folder)}


def are_masks(folder: Path, normal: Path, images: dict[Path, list[Path]]) -> bool:
    """Whether the files of a folder are the masks of all defective images, by their names and the content of the first.

    Args:
        folder: The folder.
        normal: Folder of the normal images.
        images: Images by folder, including the normal ones.
    """
    try:
        masks = match_folder(folder, normal, images)
    except UserError:
        return False
    return bool(masks) and _may_be_mask(next(iter(masks.values())))


def _match(images: Sequence[Path], folder: Path) -> Iterator[tuple[Path, Path]]:
    by_stem = _by_stem(images, "images")
    masks = image_files(folder) if folder.is_dir() else []
    mask_by_stem = _by_stem(masks, "masks", [image_stem(mask.stem, by_stem) or mask.stem for mask in masks])
    for stem, mask in mask_by_stem.items():
        if stem not in by_stem:
            msg = f"mask {mask} belongs to no image of {images[0].parent}; remove it or name it after its image"
            raise InvalidInputError(msg)
    for stem, image in by_stem.items():
        if stem not in mask_by_stem:
            is_mask = image_stem(stem, by_stem.keys() - {stem}) is not None
            msg = f"image {image} has no mask {folder / stem}.png; create one, or remove the image"
            raise MissingDataError(msg + (f" (if it is itself a mask, move it to {folder})" if is_mask else ""))
        yield image, mask_by_stem[stem]


def _by_stem(files: Sequence[Path], what: str, stems: Sequence[str] | None = None) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for stem, path in zip(stems or [path.stem for path in files], files, strict=True):
        if stem in by_stem:
            conflict = "one mask would belong to both" if what == "images" else "both would belong to one image"
            msg = f"the {what} {by_stem[stem]} and {path} have the same name, so {conflict}; rename or remove one"
            raise InvalidInputError(msg)
        by_stem[stem] = path
    return by_stem


def _check_strays(masks: Path, normal: Path, used: set[Path]) -> None:
    """Check that there are no masks outside the ``used`` folders, except for image folders that are not used."""
    all_masks = [*image_files(masks), *nested_images(masks)]
    for mask in (mask for mask in all_masks if mask.parent not in used):
        if mask.parent == masks / normal.name:
            msg = f"mask {mask} belongs to a normal image; remove it, or move the image to the folder of a defect type"
            raise InvalidInputError(msg)
        if mask.parent.parent != masks or not (normal.parent / mask.parent.name).is_dir():
            expected = masks / "<defect type>" / f"{mask.stem}.png"
            msg = f"mask {mask} belongs to no image; remove it, or move it to its expected place: {expected}"
            raise InvalidInputError(msg)
