"""Anomaly maps, predicted masks and masks that a run keeps of its test images, as 8-bit grey PNG files."""

from pathlib import Path, PurePath

from PIL import Image

MAPS, MASKS, PRED_MASKS = "maps", "masks", "pred_masks"
"""Folders in the folder of a run; the column ``map`` of ``images.csv`` has the file names."""

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
"""Raised by Pillow for files that are not images, are damaged or too large."""


def open_kept_image(folder: Path, name: str) -> Image.Image | None:
    """Open an anomaly map or a mask.

    Args:
        folder: ``maps``, ``masks`` or ``pred_masks`` of a run.
        name: File name. A path or a link out of the folder is not followed.

    Returns:
        The image, 8-bit grey; ``None`` if there is no such file or it is not readable.
    """
    if not name:
        return None
    try:
        path = (folder / PurePath(name).name).resolve()
        if path.parent != folder.resolve() or not path.is_file():
            return None
        with Image.open(path) as image:
            return image.convert("L")
    except UNREADABLE:
        return None
