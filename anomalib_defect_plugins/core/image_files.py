"""Image files in a folder, recognised by their suffix as in anomalib. Standard library only."""

from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Lower-case suffixes of image files, those of torchvision and anomalib."""


def is_image_file(path: Path) -> bool:
    """Whether ``path`` is a file with an image suffix, in any case, and not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def image_files(folder: Path) -> list[Path]:
    """List the image files of an existing folder, sorted, without those of its subfolders."""
    return sorted(path for path in folder.iterdir() if is_image_file(path))
