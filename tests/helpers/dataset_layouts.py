"""Writes tiny data sets in the published layouts, and reads the content of a folder."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image
from scipy.io import savemat

from anomalib_defect_plugins.data.datasets.codebrim import FOLDERS, TYPES
from anomalib_defect_plugins.data.datasets.magnetic_tile import COUNTS, FREE

SIZE = (12, 8)
"""Width and height of images."""


def write_image(path: Path, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Path:
    """Write noise that depends on the file name only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode).save(path)
    return path


def write_mask(path: Path, size: tuple[int, int] = SIZE, value: int = 255) -> Path:
    """Write a mask that marks 6 pixels: rows 2 and 3, columns 4 to 6."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size[::-1], np.uint8)
    mask[2:4, 4:7] = value
    Image.fromarray(mask).save(path)
    return path


def write_defect_folder(root: Path, masks: bool = True) -> None:
    """Write 10 normal images, 3 of type crack and 2 of type dent in several formats, with or without masks."""
    for number in range(10):
        write_image(root / "good" / f"{number:02}.png")
    for name in ("crack/10.jpg", "crack/11.bmp", "crack/12.PNG", "dent/10.png", "dent/20.tif"):
        path = write_image(root / name)
        if masks:
            # Masks may be named in two ways.
            ending = "_mask" if path.parent.name == "dent" else ""
            write_mask(root / "masks" / path.parent.name / f"{path.stem}{ending}.png")


def write_wood(root: Path) -> None:
    """Write the layout of ``WoodDefects``: 5 normal images, 3 defective ones and their labels, with the value 1."""
    for number in range(5):
        write_image(root / "normal" / f"{number}.png")
    for number in range(5, 8):
        write_image(root / "defect" / f"{number}.jpg")
        write_mask(root / "labels" / f"{number}.png", value=1)


def codebrim_name(photo: int, crop: int) -> str:
    """Return the file name of a crop in CODEBRIM."""
    return f"image_{photo:07}_crop_{crop:07}.png"


def write_codebrim(root: Path, crops: Mapping[tuple[str, int, int], Iterable[str]]) -> None:
    """Write the layout of CODEBRIM; all images are hard links to one file.

    Args:
        root: Folder to write to.
        crops: Defect types of each crop, as named in the metadata, by split, number of the photograph and number of
            the crop. A crop without types is of the background.
    """
    annotations = {folder: ET.Element("Annotation") for folder in FOLDERS}
    for split in ("train", "val", "test"):
        for folder in FOLDERS:
            (root / split / folder).mkdir(parents=True)
    image = write_image(root / "image.png")
    for (split, photo, crop), types in crops.items():
        types = set(types)
        folder = FOLDERS[bool(types)]
        (root / split / folder / codebrim_name(photo, crop)).hardlink_to(image)
        annotate(annotations[folder], codebrim_name(photo, crop), types)
    image.unlink()
    (root / "metadata").mkdir()
    for folder, annotation in annotations.items():
        ET.ElementTree(annotation).write(root / "metadata" / f"{folder}.xml")


def annotate(annotation: ET.Element, name: str, types: set[str]) -> None:
    """Add a crop to the metadata of CODEBRIM."""
    element = ET.SubElement(annotation, "Defect", name=name)
    for flag in ("Background", *TYPES):
        ET.SubElement(element, flag).text = str(int(flag in (types or {"Background"})))


def write_crack_forest(root: Path, segmentation: np.ndarray) -> None:
    """Write the layout of CrackForest: noise, and the labels ``segmentation``, shape (H, W), for every crack image."""
    for name in ("image", "groundTruth"):
        (root / name).mkdir(parents=True)
    for number in (*range(1, 119), *range(201, 209), *range(301, 330)):
        noise = Image.effect_noise(segmentation.shape[::-1], 60).convert("RGB")
        noise.save(root / "image" / f"{number:03}.jpg")
    for number in range(1, 119):
        truth = {"Segmentation": segmentation, "Boundaries": np.zeros_like(segmentation)}
        savemat(root / "groundTruth" / f"{number:03}.mat", {"groundTruth": truth})


KOLEKTOR_SIZE = (10, 24)
"""Width and height of images."""

KOLEKTOR_SHORT = 10
"""Number of the object with 7 images; the others have 8."""

KOLEKTOR_TWICE = (38, 39)
"""Numbers of the objects with 2 cracked images; the others have 1."""

KOLEKTOR_TWINS = {34: 12, 19: 8}
"""Numbers of objects with the same images as another object."""

SHOTS = 6
"""Images of one tile, taken in a row."""


def write_kolektor_sdd(root: Path) -> None:
    """Write the layout of KolektorSDD: 50 objects, 399 images, 52 of them cracked, and two pairs of equal objects."""
    empty, marked = root / "empty.bmp", root / "marked.bmp"
    write_mask(marked, KOLEKTOR_SIZE)
    write_mask(empty, KOLEKTOR_SIZE, value=0)
    for label in (empty, marked):
        Image.open(label).convert("1").save(label)
    for number in range(1, 51):
        folder = root / f"kos{number:02}"
        cracked = 2 if number in KOLEKTOR_TWICE else 1
        for part in range(7 if number == KOLEKTOR_SHORT else 8):
            # The noise depends on the name only, so equal objects get the same images.
            name = f"{KOLEKTOR_TWINS.get(number, number)}-{part}.jpg"
            write_image(folder / name, KOLEKTOR_SIZE, "L").rename(folder / f"Part{part}.jpg")
            (folder / f"Part{part}_label.bmp").hardlink_to(marked if part < cracked else empty)
    empty.unlink()
    marked.unlink()


def write_magnetic_tile(root: Path, shared: int = 0) -> None:
    """Write the layout of Magnetic Tile with the published numbers: tiles of six images, all hard links to two files.

    Args:
        root: Folder to write to.
        shared: Number of normal tiles that are photographed alternately with a defective one.
    """
    image, mask = write_image(root / "image.jpg", mode="L"), write_mask(root / "mask.png")
    names = [name for name, count in COUNTS.items() for _ in range(0, count, SHOTS)]
    # Folder of each tile by its first number; tiles are 1000 apart, or 10 if photographed alternately.
    tiles = {1000 * place: name for place, name in enumerate(names)}
    free = [start for start, name in tiles.items() if name == FREE]
    defective = [start for start, name in tiles.items() if name != FREE]
    for start, other in zip(free[:shared], defective, strict=False):
        tiles[other + 10] = tiles.pop(start)
    missing = dict(COUNTS)
    for start, name in sorted(tiles.items()):
        for shot in range(min(SHOTS, missing[name])):
            path = root / name / "Imgs" / f"exp{shot + 1}_num_{start + 20 * shot}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(image)
            if name != FREE:
                path.with_suffix(".png").hardlink_to(mask)
        missing[name] -= SHOTS
    image.unlink()
    mask.unlink()


def write_dagm2007(root: Path, category: int, counts: Mapping[str, tuple[int, int]]) -> None:
    """Write the layout of a class of DAGM 2007; all images are hard links to one file, and so are all labels.

    Args:
        root: Folder to write to.
        category: Class.
        counts: Numbers of normal and defective images by split, ``Train`` and ``Test``.
    """
    image, label = write_image(root / "image.png", mode="L"), write_mask(root / "label.png")
    for split, (normal, defective) in counts.items():
        folder = root / f"Class{category}" / split
        (folder / "Label").mkdir(parents=True)
        (folder / "Label" / "Labels.txt").write_text("1\n")
        for number in range(1, normal + defective + 1):
            (folder / f"{number:04}.PNG").hardlink_to(image)
            if number <= defective:
                (folder / "Label" / f"{number:04}_label.PNG").hardlink_to(label)
    image.unlink()
    label.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder and its subfolders by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_dents(root: Path) -> Path:
    """Write eight normal images and four with a dent and its mask, as ``DefectFolder`` reads them; return ``root``."""
    for number in range(8):
        write_image(root / "good" / f"{number}.png")
    for number in range(4):
        write_image(root / "dent" / f"{number}.png")
        write_mask(root / "masks" / "dent" / f"{number}.png")
    return root
