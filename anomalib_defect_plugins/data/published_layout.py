"""Checks that the folder of a published data set is complete."""

from pathlib import Path

from anomalib_defect_plugins.core.errors import MissingDataError
from anomalib_defect_plugins.core.image_files import image_files


def existing_file(path: Path, advice: str) -> str:
    """Return the path of a required file as a string.

    Args:
        path: The file.
        advice: What to do if it is missing, for the message.

    Raises:
        MissingDataError: If the file does not exist.
    """
    if not path.is_file():
        msg = f"{path} is missing; {advice}"
        raise MissingDataError(msg)
    return str(path)


def existing_images(folder: Path, advice: str) -> list[Path]:
    """Return the image files of a required folder, sorted.

    Args:
        folder: The folder.
        advice: What to do if it is missing or empty, for the message.

    Raises:
        MissingDataError: If the folder does not exist or has no image.
    """
    images = image_files(folder) if folder.is_dir() else []
    if not images:
        msg = f"{folder} is missing or has no images; {advice}"
        raise MissingDataError(msg)
    return images


def check_count(folder: Path, count: int, expected: int, advice: str, what: str = "images") -> None:
    """Check that a folder has the published number of files.

    Args:
        folder: The folder, or a pattern of folders.
        count: Number of files in it.
        expected: Published number.
        advice: What to do if they differ, for the message.
        what: Kind of the files, for the message.

    Raises:
        MissingDataError: If the numbers differ.
    """
    if count != expected:
        msg = f"{folder} has {count} {what}, not {expected}; {advice}"
        raise MissingDataError(msg)
