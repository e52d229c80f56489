"""Image files in a folder, recognised by their suffix. Standard library only."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

ANOMALIB_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Lower-case suffixes of image files that anomalib's data sets list, those of torchvision."""

IMAGE_SUFFIXES = (*ANOMALIB_SUFFIXES, ".jfif", ".jpe", ".gif", ".jp2", ".j2k", ".pbm", ".pnm")
"""Lower-case suffixes of the image files that are read."""

PHONE_SUFFIXES = (".heic", ".heif", ".hif", ".avif", ".jxl")
CAMERA_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".raw")
OTHER_SUFFIXES = (".psd", ".xcf", ".exr", ".hdr", ".dcm", ".tga", ".pcx", ".dds", ".jpx", ".pfm", ".svs")

UNREAD_SUFFIXES = (*PHONE_SUFFIXES, *CAMERA_SUFFIXES, *OTHER_SUFFIXES)
"""Lower-case suffixes of images in formats that are not read."""


def is_image_file(path: Path) -> bool:
    """Whether ``path`` is a file with an image suffix, in any case, and not hidden."""
    return has_suffix(path, IMAGE_SUFFIXES)


def has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether ``path`` is a file with one of the lower-case suffixes, in any case, and not hidden."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def image_files(folder: Path) -> list[Path]:
    """List the image files of an existing folder, sorted, without those of its subfolders."""
    return sorted(path for path in folder.iterdir() if is_image_file(path))


def unread_files(folder: Path) -> list[Path]:
    """List the images of an existing folder in formats that are not read, sorted."""
    return sorted(path for path in folder.iterdir() if has_suffix(path, UNREAD_SUFFIXES))


def warn_of_unread(files: Iterable[str | Path]) -> None:
    """Warn once of image files that are left out because their format is not read."""
    files = list(files)
    if files:
        logger.warning(unread_warning(str(files[0]), len(files)))


def unread_warning(first: str, number: int) -> str:
    """Return the warning about files that are left out.

    Args:
        first: Path of the first one.
        number: Their number.
    """
    files = "1 file is" if number == 1 else f"{number} files are"
    return f"{files} left out, the first is {first}: that format is not read; convert such images to PNG or TIFF"
