"""Annotations of any format, and the image files that they belong to."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.core.image_files import is_image_file
from anomalib_defect_plugins.data.annotations.coco import is_coco, read_coco
from anomalib_defect_plugins.data.annotations.cvat import read_cvat
from anomalib_defect_plugins.data.annotations.files import read_json, read_xml
from anomalib_defect_plugins.data.annotations.label_studio import is_label_studio, read_label_studio
from anomalib_defect_plugins.data.annotations.labelme import is_labelme, read_labelme
from anomalib_defect_plugins.data.annotations.regions import AnnotatedImage, Annotations
from anomalib_defect_plugins.data.annotations.voc import ANNOTATIONS, IMAGES, MASKS, read_voc
from anomalib_defect_plugins.data.annotations.yolo import names_file, read_yolo
from anomalib_defect_plugins.data.dataclasses import GOOD, SEPARATOR
from anomalib_defect_plugins.data.sample_table import Sample

Read = Callable[[Path, Faults], list[AnnotatedImage]]
"""Function that reads a file or folder of one format."""

READERS: dict[str, Read] = {
    "coco": read_coco,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "yolo": read_yolo,
    "voc": read_voc,
    "label-studio": read_label_studio,
}
"""Formats by name."""

UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(.+)")
"""Names of images that were uploaded to Label Studio."""


def read_annotations(path: Path, faults: Faults) -> list[AnnotatedImage]:
    """Read the annotations of a labelling tool, in the format that they are in.

    Args:
        path: File or folder.
        faults: Gets an error for each thing that is not valid.

    Raises:
        MissingDataError: If it does not exist.
        InvalidInputError: If it is in no known format.
    """
    name, files = find_format(path)
    return [image for file in files for image in READERS[name](file, faults)]


def find_format(path: Path) -> tuple[str, list[Path]]:
    """Return the name of the format of a file or folder, and what its reader takes.

    Raises:
        MissingDataError: If it does not exist.
        InvalidInputError: If it is in no known format.
    """
    if path.is_file():
        return _format_of_file(path), [path]
    if not path.is_dir():
        msg = f"{path} does not exist; pass the file or folder of annotations that the labelling tool exported"
        raise MissingDataError(msg)
    return _format_of_folder(path)


def _format_of_folder(path: Path) -> tuple[str, list[Path]]:
    if any((path / ANNOTATIONS).glob("*.xml")) or ((path / MASKS).is_dir() and (path / IMAGES).is_dir()):
        return "voc", [path]
    if (path / "annotations.xml").is_file():
        return _format_of_file(path / "annotations.xml"), [path / "annotations.xml"]
    if names_file(path) is not None:
        return "yolo", [path]
    files = sorted(file for file in path.rglob("*.json") if not file.name.startswith("."))
    by_format = defaultdict(list)
    for file in files:
        by_format[_format_of_file(file)].append(file)
    if len(by_format) == 1:
        return next(iter(by_format.items()))
    xml = sorted(path.rglob("*.xml"))
    if not files and xml:
        name = _format_of_file(xml[0])
        return name, [path] if name == "voc" else xml
    what = f"annotations of {' and '.join(sorted(by_format))}" if by_format else "no annotations"
    msg = f"the folder {path} has {what}; pass the file or folder of one format ({', '.join(READERS)})"
    raise InvalidInputError(msg)


def _format_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".json":
        content = read_json(path)
        for name, matches in (("coco", is_coco), ("labelme", is_labelme), ("label-studio", is_label_studio)):
            if matches(content):
                return name
    elif suffix == ".xml":
        return "voc" if read_xml(path).tag == "annotation" else "cvat"
    elif suffix in {".yaml", ".yml"}:
        return "yolo"
    msg = f"{path} is in none of the formats {', '.join(READERS)}; export the annotations in one of them"
    raise InvalidInputError(msg)


class ImageFinder:
    """Finds the image files that annotations name, only inside a folder.

    Args:
        root: The folder, searched with its subfolders.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_path: dict[str, Path] = {}
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        for folder, folders, names in os.walk(root):
            folders.sort()
            for path in (Path(folder) / name for name in sorted(names)):
                if is_image_file(path):
                    relative = path.relative_to(root)
                    self.by_path[relative.as_posix()] = path
                    self.by_path.setdefault(relative.with_suffix("").as_posix(), path)
                    self.by_name[path.name].append(path)
                    self.by_name[path.stem].append(path)

    def find(self, image: AnnotatedImage) -> Path:
        """Return the file of an image.

        Raises:
            MissingDataError: If there is none, or several files could be the image.
        """
        # Names may be paths of another computer, or an address: "..\\plates\\0001.png", "?d=plates/0001.png".
        name = image.name.replace("\\", "/").split("?d=")[-1]
        parts = [part for part in PurePosixPath(name).parts if part not in {"/", "..", "."}]
        for start in range(len(parts)):
            if (path := self.by_path.get("/".join(parts[start:]))) is not None:
                return path
        last = parts[-1] if parts else ""
        upload = UPLOAD_PREFIX.fullmatch(last)
        found = self.by_name.get(last) or (self.by_name.get(upload[1]) if upload else None) or []
        if len(found) == 1:
            return found[0]
        what = f"could be {found[0]} or {found[1]}; make names unique" if found else f"is not in {self.root}; add it"
        msg = f"image {image.name!r} of {image.source} {what}, or remove it from the annotations"
        raise MissingDataError(msg)


def annotated_samples(images: Sequence[AnnotatedImage], root: Path, faults: Faults) -> tuple[list[Sample], Annotations]:
    """Return the samples of annotated images.

    Args:
        images: The images.
        root: Folder of the image files.
        faults: Gets an error for each image that is not found, or annotated twice.

    Returns:
        The samples, and the annotations by image file. ``mask_path`` is the file of annotations and the name of the
        image; it is empty for images without outlines.
    """
    finder = ImageFinder(root)
    samples: dict[Path, Sample] = {}
    annotations = Annotations()
    for image in images:
        with faults.collect():
            path = finder.find(image)
            if path in samples:
                msg = f"image {path} is annotated twice in {image.source}; remove one"
                raise InvalidInputError(msg)
            mask = image.key if image.has_mask else ""
            samples[path] = Sample(str(path), "", SEPARATOR.join(image.labels) or GOOD, mask)
            annotations[str(path)] = image
    return list(samples.values()), annotations
