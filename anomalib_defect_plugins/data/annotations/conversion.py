"""Conversion between the formats of labelling tools and folders of images and masks."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.core.image_io import Size, read_size
from anomalib_defect_plugins.core.mask_io import read_mask
from anomalib_defect_plugins.data.annotations.coco_writer import components, write_coco
from anomalib_defect_plugins.data.annotations.reader import annotated_samples, find_format, read_annotations
from anomalib_defect_plugins.data.annotations.regions import IGNORE as IGNORED
from anomalib_defect_plugins.data.annotations.regions import AnnotatedImage, Bitmap, Everywhere, Marks, Region
from anomalib_defect_plugins.data.dataclasses import GOOD, SEPARATOR
from anomalib_defect_plugins.data.dataset import check_size, reading
from anomalib_defect_plugins.data.folder_reader import IGNORE, MASKS, FolderReader, ignored_files

ADVICE = "pass the file or folder that a labelling tool has exported, or a folder with one for each defect type"


class Source(NamedTuple):
    """Images to convert.

    Args:
        root: Folder of the images.
        images: Their files.
        annotations: Function of a file that returns its annotations.
    """

    root: Path
    images: list[Path]
    annotations: Callable[[Path], AnnotatedImage]


def open_source(source: Path, images: Path | None = None) -> Source:
    """Read annotations of any format, or a folder of images and masks.

    Args:
        source: File or folder.
        images: Folder of the images that annotations name; by default that of the annotations.

    Raises:
        MissingDataError: If a file is missing.
        InvalidInputError: If the annotations are not valid. All faults are named.
    """
    if source.is_dir() and not _has_annotations(source):
        return _open_folder(source)
    faults = Faults(source)
    root = images or _folder_of(source)
    if not root.is_dir():
        msg = f"the folder of images {root} does not exist; pass another one with --images"
        raise InvalidInputError(msg)
    samples, annotations = annotated_samples(read_annotations(source, faults), root, faults)
    faults.raise_all()
    return Source(root, [Path(sample.image_path) for sample in samples], lambda path: annotations[str(path)])


def _has_annotations(folder: Path) -> bool:
    try:
        find_format(folder)
    except InvalidInputError:
        return False
    return True


def _folder_of(source: Path) -> Path:
    """Return the folder that has the images as well as the annotations: that of ``annotations/instances.json``."""
    folder = source if source.is_dir() else source.parent
    return folder.parent if folder.name.lower() in {"annotations", "labels"} else folder


def _open_folder(root: Path) -> Source:
    samples = {
        Path(sample.image_path): sample for sample in FolderReader(root, GOOD, None, MASKS, IGNORE, ADVICE).read()
    }
    ignored = ignored_files(root / IGNORE, list(samples.values()))

    def annotations(path: Path) -> AnnotatedImage:
        sample = samples[path]
        image = AnnotatedImage(path.relative_to(root).as_posix(), root, _size(path))
        if sample.mask_path:
            image.regions += [_region(sample.defect_type, part) for part in components(_read(sample.mask_path, path))]
        elif sample.defect_type != GOOD:
            image.regions.append(Region(sample.defect_type, Everywhere()))
        if str(path) in ignored:
            image.regions.append(_region(IGNORED, _read(str(ignored[str(path)]), path)))
        return image

    return Source(root, list(samples), annotations)


def _region(label: str, marks: Marks) -> Region:
    return Region(label, Bitmap.of(marks))


def _read(mask: str, image: Path) -> Marks:
    with reading("mask", mask):
        marks = read_mask(mask)
    check_size(mask, marks.shape[::-1], str(image), _size(image)[::-1])
    return marks


def _size(path: Path) -> Size:
    with reading("image", str(path)):
        width, height = read_size(path)
    return height, width


def to_coco(source: Source, out: Path, progress: Callable[[Sequence[Path]], Iterator[Path]] = iter) -> Counter[str]:
    """Write a file of COCO, whose regions mark the same pixels.

    Args:
        source: The images.
        out: The file.
        progress: Function that yields the images, and shows how many are done.

    Returns:
        Number of images by defect type.
    """
    counts: Counter[str] = Counter()

    def images() -> Iterator[tuple[str, Size, AnnotatedImage]]:
        for path in progress(source.images):
            annotated = source.annotations(path)
            counts[_type(annotated)] += 1
            yield path.relative_to(source.root).as_posix(), _size(path), annotated

    write_coco(images(), out)
    return counts


def to_folder(source: Source, out: Path, progress: Callable[[Sequence[Path]], Iterator[Path]] = iter) -> Counter[str]:
    """Write a folder as ``DefectFolder`` reads it: copies of the images by defect type, and masks.

    Args:
        source: The images.
        out: The folder, which must not exist or be empty.
        progress: As in :func:`to_coco`.

    Returns:
        Number of images by defect type.

    Raises:
        InvalidInputError: If the folder is not empty, or a region does not fit its image.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} exists; choose a new or an empty folder"
        raise InvalidInputError(msg)
    counts: Counter[str] = Counter()
    names: set[str] = set()
    with new_folder(out, "--out") as folder:
        for path in progress(source.images):
            annotated, size = source.annotations(path), _size(path)
            kind = _type(annotated)
            counts[kind] += 1
            name = _new_name(path, source.root, kind, names)
            _copy(path, folder / kind / name)
            mask = f"{kind}/{Path(name).stem}.png"
            if annotated.has_mask:
                _save(annotated.mask(size), folder / MASKS / mask, path)
            if annotated.has_ignored:
                _save(annotated.ignored(size), folder / IGNORE / mask, path)
    return counts


def _type(image: AnnotatedImage) -> str:
    return SEPARATOR.join(image.labels) or GOOD


def _new_name(path: Path, root: Path, kind: str, names: set[str]) -> str:
    """Return a name whose stem is unique among the images of its type: with the folders it is in, if need be."""
    parts = path.relative_to(root).parts
    for start in range(len(parts) - 1, -1, -1):
        name = "_".join(parts[start:])
        if (key := f"{kind}/{Path(name).stem}") not in names:
            names.add(key)
            return name
    msg = f"image {path} has the same name as another one; rename one"
    raise InvalidInputError(msg)


def _copy(path: Path, out: Path) -> None:
    out.parent.mkdir(exist_ok=True)
    try:
        shutil.copyfile(path, out)
    except OSError as error:
        msg = f"image {path} cannot be copied ({error.strerror}); choose another --out, or make it readable"
        raise InvalidInputError(msg) from error


def _save(marks: Marks, path: Path, image: Path) -> None:
    if path.parts[-3] == MASKS and not marks.any():
        msg = f"the annotations of image {image} mark no pixel; annotate the defect, or remove them"
        raise InvalidInputError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(marks.astype(np.uint8) * 255).save(path)
