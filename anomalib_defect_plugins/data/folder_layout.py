"""What a folder of user data holds besides images: masks, results of programs, folders of systems."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from anomalib_defect_plugins.core.image_files import image_files

logger = logging.getLogger(__name__)

WORDS = r"(?:masks?|gts?|ground[ _-]?truths?|labels?|lbls?|annotations?|annots?|seg(?:mentation)?s?)"
"""Words for masks in the names of files and folders."""

MASK_FOLDER = re.compile(
    rf"(?:\w+[ _-])?(?:masks?|gts?|ground[ _-]?truths?)|{WORDS}(?:[ _-]?(?:class|files?|images?|imgs?|maps?|png))?",
    re.IGNORECASE,
)
"""Names of folders that usually hold masks."""

NORMAL_FOLDER = re.compile(
    r"good|ok|normals?|(?:defect|flaw|anomaly)[ _-]?free|non?[ _-]?defect(?:s|ive)?|healthy|clean|pass(?:ed)?|intact",
    re.IGNORECASE,
)
"""Names of folders that usually hold normal images."""

OUTPUT_FOLDER = re.compile(
    r"(?:anomaly[ _-]?)?maps?|heat[ _-]?maps?|results?|outputs?|overlays?|predictions?|(?:lightning_)?logs?|"
    r"checkpoints?|runs?|visuali[sz]ations?|exports?|weights|previews?|thumb(?:nail)?s?|crops?",
    re.IGNORECASE,
)
"""Names of folders that programs usually write to."""

OUTPUT_FILES = {"run.json", "split.csv"}
CHECKPOINT_SUFFIX = ".ckpt"
"""Files that runs write."""

SYSTEM_PREFIXES = (".", "_", "@")
SYSTEM_FOLDERS = {"System Volume Information", "lost+found", "$RECYCLE.BIN", "#recycle", "#snapshot"}
"""Folders that systems make, such as ``.ipynb_checkpoints``, ``__MACOSX`` and ``@eaDir``."""


def subfolders(folder: Path) -> list[Path]:
    """List the subfolders of a folder, sorted, without hidden ones and those of systems."""
    paths = [path for path in folder.iterdir() if path.is_dir() and path.name not in SYSTEM_FOLDERS]
    return sorted(path for path in paths if not path.name.startswith(SYSTEM_PREFIXES))


def normal_folders(folder: Path) -> list[Path]:
    """List the subfolders of a folder that have a usual name for normal images, and images."""
    return [path for path in subfolders(folder) if NORMAL_FOLDER.fullmatch(path.name) and image_files(path)]


def nested_images(folder: Path) -> list[Path]:
    """List the images in the subfolders of a folder, sorted."""
    return [path for sub in subfolders(folder) for path in [*image_files(sub), *nested_images(sub)]]


def type_folders(
    folders: Iterable[Path], mask_folder: Path, written: Sequence[Path] = ()
) -> tuple[list[Path], list[Path]]:
    """Separate folders of defect types from those that may hold masks, and leave out what programs have written.

    Args:
        folders: Subfolders of the data.
        mask_folder: Folder of the masks, if it exists. A folder that has a counterpart there is one of a type.
        written: Folders that the present run writes to.

    Returns:
        Folders of defect types, and those with a usual name for masks that hold images.
    """
    types, masks = [], []
    for folder in folders:
        if _is_output(folder, written):
            if image_files(folder):
                logger.warning("%s is taken for results; pass --data.defect_dirs if it is a defect type", folder)
        elif not MASK_FOLDER.fullmatch(folder.name) or (mask_folder / folder.name).is_dir():
            types.append(folder)
        elif image_files(folder) or nested_images(folder):  # annotations are often text files
            masks.append(folder)
    return types, masks


def _is_output(folder: Path, written: Sequence[Path]) -> bool:
    """Whether a program has made a folder, or writes to it at present."""
    resolved = folder.resolve()
    if OUTPUT_FOLDER.fullmatch(folder.name) or any(path.resolve().is_relative_to(resolved) for path in written):
        return True
    if image_files(folder):
        return False
    content = list(folder.rglob("*"))
    # A run that has just begun, or has failed at once, leaves folders without files.
    is_begun = bool(content) and not any(path.is_file() for path in content)
    return is_begun or any(path.name in OUTPUT_FILES or path.suffix == CHECKPOINT_SUFFIX for path in content)
