"""Pictures of an inspected image, named after it: the map, the mask, and the map over the image."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalib_defect_plugins.core.image_files import IMAGE_SUFFIXES
from anomalib_defect_plugins.core.regions import enlarge_mask, ring

MAP, MASK, OVERLAY = "map", "mask", "overlay"
"""Folders of the pictures."""

OUTLINE = 0, 200, 255
"""Colour of the ring around defects; it does not occur in the colour map."""


def common_folder(paths: Iterable[str]) -> Path:
    """Return the folder that contains all images, which the names of their pictures are relative to."""
    folder = ""
    for path in paths:
        parent = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120 - a million paths, without links resolved
        folder = os.path.commonpath([folder, parent]) if folder else parent
    return Path(folder)


def picture_path(path: str, root: Path | None) -> Path:
    """Return the relative path of the pictures of an image.

    Args:
        path: Path of the image.
        root: Folder that contains all images; by default the folders are left out.

    Returns:
        The path below ``root`` as a PNG file. That of any other format keeps its suffix too, such as ``a.jpg.png``; so
        an image of that name becomes ``a.jpg.png.png``.
    """
    relative = Path(os.path.relpath(path, root) if root else os.path.basename(path))  # noqa: PTH119 - may end with "/"
    is_unique = relative.suffix == ".png" and Path(relative.stem).suffix.lower() not in IMAGE_SUFFIXES
    return relative if is_unique else relative.with_name(f"{relative.name}.png")


def write_map(anomaly_map: npt.NDArray[np.float32], path: Path, is_raw: bool) -> None:
    """Write a map, shape (h, w), as an 8-bit grey PNG of [0, 1], or if that loses values, as a float TIFF.

    Args:
        anomaly_map: The map.
        path: PNG file; a TIFF file has its suffix in place of ``.png``.
        is_raw: Whether maps are not normalised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_raw or (anomaly_map < 0).any() or (anomaly_map > 1).any():
        Image.fromarray(anomaly_map).save(path.with_suffix(".tiff"))
    else:
        grey = (np.nan_to_num(anomaly_map) * 255).round().astype(np.uint8)
        Image.fromarray(grey).save(path)


def write_mask(mask: npt.NDArray[np.bool_], path: Path) -> None:
    """Write a mask, shape (h, w), as a PNG in black and white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def write_overlay(
    image: npt.NDArray[np.uint8],
    anomaly_map: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_] | None,
    path: Path,
    limits: tuple[float, float],
) -> None:
    """Write the grey image under the colours of the map, with a ring around each region of the mask.

    Args:
        image: Image, shape (H, W, 3), uint8.
        anomaly_map: Map, shape (h, w).
        mask: Mask, shape (h, w); ``None`` for no rings.
        path: PNG file.
        limits: Values of the map that are drawn transparent and opaque.
    """
    from anomalib_defect_plugins.report.images import overlay

    path.parent.mkdir(parents=True, exist_ok=True)
    low, high = limits
    scaled = np.clip((np.nan_to_num(anomaly_map) - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    grey = Image.fromarray((255 * scaled).round().astype(np.uint8))
    picture: npt.NDArray[Any] = np.array(overlay(Image.fromarray(image), grey, (image.shape[1], image.shape[0])))
    if mask is not None and mask.any():
        size = (image.shape[0], image.shape[1])
        picture[ring(enlarge_mask(mask, size), max(1, round(max(size) / 250)))] = OUTLINE
    Image.fromarray(picture).save(path, compress_level=1)
