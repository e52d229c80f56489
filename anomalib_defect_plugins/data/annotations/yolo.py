"""YOLO segmentation: a text file for each image, and names of classes in data.yaml; https://docs.ultralytics.com."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.core.image_files import is_image_file
from anomalib_defect_plugins.core.image_io import Size, read_size
from anomalib_defect_plugins.data.annotations.files import parsing, read_lines
from anomalib_defect_plugins.data.annotations.polygons import Polygon
from anomalib_defect_plugins.data.annotations.regions import AnnotatedImage, Box, Region, Shape, check_label
from anomalib_defect_plugins.data.dataset import reading

NAME_FILES = ("classes.txt", "obj.names")
"""Files with the name of a class a line, where there is no YAML file."""


def names_file(folder: Path) -> Path | None:
    """Return the file with the names of classes in a folder of YOLO."""
    yamls = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    return next((path for path in [*yamls, *(folder / name for name in NAME_FILES)] if path.is_file()), None)


def read_yolo(path: Path, faults: Faults) -> list[AnnotatedImage]:
    """Read a data set: images in ``images``, and text files of the same name in ``labels``, or beside the images.

    An image without a text file is normal.

    Args:
        path: The file with the names of the classes, or its folder.
        faults: Gets an error for each file and line that is not valid.
    """
    names_path = names_file(path) if path.is_dir() else path
    if names_path is None:
        msg = f"the folder {path} has no data.yaml with the names of the classes; add it"
        raise MissingDataError(msg)
    names = _names(names_path)
    root = names_path.parent
    images = sorted(file for file in root.rglob("*") if is_image_file(file))
    found = []
    for image in images:
        text = _text_file(image, root)
        annotated = AnnotatedImage(image.relative_to(root).as_posix(), text)
        if text.is_file():
            with faults.collect(), reading("image", str(image)):
                width, height = read_size(image)
                annotated.size = (height, width)
                annotated.regions.extend(_regions(text, names, annotated.size, faults))
        found.append(annotated)
    return found


def _names(path: Path) -> dict[int, str]:
    lines = read_lines(path)
    with parsing(path, "the list of names"):
        if path.suffix not in {".yaml", ".yml"}:
            return dict(enumerate(line.strip() for line in lines if line.strip()))
        try:
            names: Any = yaml.safe_load("\n".join(lines))["names"]
        except (yaml.YAMLError, RecursionError) as error:
            msg = "it is no YAML; export it again"
            raise InvalidInputError(msg) from error
        items = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in items}


def _text_file(image: Path, root: Path) -> Path:
    """Return the text file of an image: the last folder ``images`` of its path becomes ``labels``."""
    parts = list(image.relative_to(root).with_suffix(".txt").parts)
    beside = image.with_suffix(".txt")
    if "images" in parts[:-1] and not beside.is_file():
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        return root.joinpath(*parts)
    return beside


def _regions(path: Path, names: dict[int, str], size: Size, faults: Faults) -> Iterator[Region]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            with faults.collect(), parsing(path, f"line {number}"):
                kind, *values = line.split()
                if int(kind) not in names:
                    msg = f"there is no class {kind}; correct the number, or add its name"
                    raise InvalidInputError(msg)
                yield Region(check_label(names[int(kind)]), _shape([float(value) for value in values], size))


def _shape(values: Sequence[float], size: Size) -> Shape:
    height, width = size
    if len(values) == 4:
        x, y, across, down = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        return Box(x - across / 2, y - down / 2, x + across / 2, y + down / 2)
    return Polygon(np.asarray(values).reshape(-1, 2) * (width, height))
