"""Pascal VOC: an XML file for each image, and masks as images; http://host.robots.ox.ac.uk/pascal/VOC/."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.data.annotations.files import parsing, read_lines, read_xml
from anomalib_defect_plugins.data.annotations.regions import (
    IGNORE,
    AnnotatedImage,
    Bitmap,
    Box,
    Marks,
    Region,
    check_label,
)
from anomalib_defect_plugins.data.annotations.run_lengths import check_size
from anomalib_defect_plugins.data.dataset import reading

ANNOTATIONS, MASKS, IMAGES = "Annotations", "SegmentationClass", "JPEGImages"
"""Folders of the XML files, of the masks, and of the images."""

VOID = 255
VOID_COLOUR = (224, 224, 192)
"""Index and colour of pixels that belong to no class, such as the borders of objects."""

Colour = tuple[int, int, int]


def read_voc(path: Path, faults: Faults) -> list[AnnotatedImage]:
    """Read a data set.

    Args:
        path: Folder with ``Annotations`` and, if there are masks, ``SegmentationClass``; or a single XML file.
        faults: Gets an error for each file and object that is not valid.
    """
    folder = path / ANNOTATIONS if (path / ANNOTATIONS).is_dir() else path
    files = [path] if path.is_file() else sorted(folder.rglob("*.xml"))
    root = path if path.is_dir() else path.parent.parent
    labels = _labels(root / "labelmap.txt")
    images = [image for file in files for image in _read_file(file, root / MASKS, labels, faults)]
    return [*images, *_without_file(root, {Path(image.name).stem for image in images}, labels, faults)]


def _without_file(
    root: Path, named: set[str], labels: dict[Colour, str] | None, faults: Faults
) -> Iterator[AnnotatedImage]:
    """Yield the images without an XML file, which not all tools write: those with a mask, and normal ones of a list."""
    masks = {mask.stem: mask for mask in (root / MASKS).glob("*.png")}
    lists = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
    listed = {line.strip() for file in lists for line in read_lines(file)} - {""}
    for name in sorted((masks.keys() | listed) - named):
        with faults.collect():
            mask = masks.get(name)
            regions = [] if mask is None else list(_of_mask(mask, labels, []))
            yield AnnotatedImage(f"{IMAGES}/{name}", mask or root, None, regions)


def _read_file(path: Path, masks: Path, labels: dict[Colour, str] | None, faults: Faults) -> Iterator[AnnotatedImage]:
    with faults.collect(), parsing(path, "the image"):
        root = read_xml(path)
        if root.tag != "annotation":
            msg = "it is not in the format Pascal VOC"
            raise InvalidInputError(msg)
        # Masks may have the same names.
        image = AnnotatedImage(f"{IMAGES}/{root.findtext('filename') or path.stem}", path)
        if root.findtext("size/height") and root.findtext("size/width"):
            image.size = (int(root.findtext("size/height", "")), int(root.findtext("size/width", "")))
        for number, element in enumerate(root.iter("object")):
            with faults.collect(), parsing(path, f"object {number}"):
                names = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
                left, top, right, bottom = (float(element.findtext(name, "")) for name in names)
                image.regions.append(Region(check_label(element.findtext("name")), Box(left, top, right, bottom)))
        mask = masks / f"{path.stem}.png"
        if mask.is_file():
            # The mask has the outlines of the objects.
            image.regions = list(_of_mask(mask, labels, image.labels))
        yield image


def _labels(path: Path) -> dict[Colour, str] | None:
    """Read the colours of labels that CVAT and Datumaro write: ``label:r,g,b:parts:actions``, those of VOC if empty."""
    if not path.is_file():
        return None
    labels: dict[Colour, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip() and not line.startswith("#"):
            with parsing(path, f"line {number}"):
                name, colour, *_ = line.split(":")
                red, green, blue = (int(value) for value in colour.split(",")) if colour else _colour(len(labels))
                labels[red, green, blue] = name
    return labels


def _colour(index: int) -> Colour:
    """Return the colour of a class in the palette of VOC, whose channels take every third bit of the index in turn."""
    red, green, blue = (sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(8)) for channel in range(3))
    return red, green, blue


def _of_mask(path: Path, labels: dict[Colour, str] | None, names: list[str]) -> Iterator[Region]:
    """Yield the regions of a mask: by colour if the labels of colours are known, or else all as the named types."""
    with reading("mask", str(path)), Image.open(path) as image:
        check_size(image.size)
        is_indexed = image.mode in {"P", "L"}
        index = np.asarray(image)
        colours = np.asarray(image.convert("RGB"))
    void = (colours == VOID_COLOUR).all(2) | ((index == VOID) if is_indexed else False)
    background = (colours == 0).all(2)
    if void.any():
        yield Region(IGNORE, Bitmap.of(void))
    for label, marks in _by_label(colours, ~void & ~background, labels, names, path):
        if marks.any():
            yield Region(label, Bitmap.of(marks))


def _by_label(
    colours: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]",
    marked: Marks,
    labels: dict[Colour, str] | None,
    names: list[str],
    path: Path,
) -> Iterator[tuple[str, Marks]]:
    if labels is None:
        for name in names or ["defect"]:
            yield name, marked
        return
    for red, green, blue in np.unique(colours[marked], axis=0).tolist():
        found = labels.get((red, green, blue))
        if found is None:
            msg = f"the colour {red},{green},{blue} of {path} is that of no label in labelmap.txt; add it"
            raise InvalidInputError(msg)
        if found != "background":
            yield check_label(found), marked & (colours == (red, green, blue)).all(2)
