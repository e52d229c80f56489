"""Folders of good and defective images, and the type of each defect."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.inference.inspect_folder import image_paths

GOOD_FOLDERS = ("good", "normal", "ok")
"""Names of the folders with good images, in any case."""

OTHER_FOLDERS = ("ground_truth", "mask", "masks", "label", "labels")
"""Names of the folders that hold no photographs."""


@dataclass(frozen=True)
class LabelledImage:
    """An image with a known label.

    Args:
        path: The file.
        is_bad: Whether it shows a defect.
        defect_type: Type of the defect, the name of its folder; empty if it has none.
    """

    path: str
    is_bad: bool
    defect_type: str = ""


def labelled_images(
    images: Path | None, good: Sequence[Path] = (), bad: Sequence[Path] = ()
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Find good and defective images.

    Args:
        images: Folder whose subfolders ``good``, ``normal`` or ``ok`` hold good images, and the others defective ones;
            ``None`` if there is none.
        good: More folders, or lists, of good images; relative to ``images`` if they exist there.
        bad: More folders, or lists, of defective images, likewise. Their subfolders are types of defects.

    Returns:
        Good and defective images.

    Raises:
        MissingDataError: If a folder does not exist or has no images.
        InvalidInputError: If no image has a label, or an image has two.
    """
    good, bad = ([_resolve(path, images) for path in paths] for paths in (good, bad))
    if images is not None and not (good or bad):
        good, bad = _subfolders(images)
    good_images = [LabelledImage(path, False) for folder in good for path in image_paths(folder)]
    bad_images = [image for folder in bad for image in _defective(folder)]
    known = {str(Path(image.path).resolve()) for image in good_images}
    twice = next((image.path for image in bad_images if str(Path(image.path).resolve()) in known), None)
    if twice is not None:
        msg = f"{twice} is among the good and the defective images; choose folders that do not overlap (--good, --bad)"
        raise InvalidInputError(msg)
    return good_images, bad_images


def _resolve(path: Path, images: Path | None) -> Path:
    inside = images / path if images is not None else path
    return inside if inside.exists() else path


def _subfolders(images: Path) -> tuple[list[Path], list[Path]]:
    if not images.is_dir():
        msg = f"{images} is not a folder; use one with the subfolder good and a subfolder for each type of defect"
        raise MissingDataError(msg)
    folders = sorted(path for path in images.iterdir() if path.is_dir() and path.name[0] != ".")
    folders = [path for path in folders if path.name.lower() not in OTHER_FOLDERS]
    good = [path for path in folders if path.name.lower() in GOOD_FOLDERS]
    if not good:
        msg = f"{images} has no subfolder good; pass the folders of good and defective images with --good and --bad"
        raise InvalidInputError(msg)
    return good, [path for path in folders if path not in good]


def _defective(folder: Path) -> Iterator[LabelledImage]:
    for path in image_paths(folder):
        relative = Path(path).relative_to(folder) if folder.is_dir() else Path(Path(path).name)
        yield LabelledImage(path, True, relative.parts[0] if len(relative.parts) > 1 else folder.stem)
