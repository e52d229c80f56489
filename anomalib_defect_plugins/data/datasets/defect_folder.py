"""``DefectFolder``: a user's own data, one folder of normal images and one for each type of defect, masks optional."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from anomalib import TaskType
from anomalib.data.utils import Split
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.data.dataset import CheckedDataset, image_files, is_image_file
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, make_table, shuffled
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError

logger = logging.getLogger(__name__)

MASKS = "masks"
"""Folder of the masks if no other is given, and the only one that need not exist."""

MASK_ENDING = "_mask"
"""May follow the name of an image in the name of its mask."""


class DefectFolder(DefectDataModule):
    """Images in folders: normal ones, and defective ones with a folder for each type of defect.

    ::

        root/good/0001.png          normal images
        root/scratch/0002.jpg       images with a scratch
        root/scratch+dent/0003.png  images with both
        root/masks/scratch/0002.png their masks: the name of the image, or that and "_mask"; any image format

    Everything that is neither black nor transparent in a mask is defect. Where there is only one type of defect, its
    masks may lie in ``masks`` itself. If the folder of masks exists, each defective image must have one; without it the
    task is classification. Images may be grey, RGB, with alpha channel or palette, of 8 or 16 bits, and of any size.

    A seeded share of the normal images and all defective ones are the test split.

    Args:
        root: The folder that holds the others.
        normal_dir: Folder of the normal images.
        defect_dirs: Folders of the defective images, whose names are the types of defect. By default all that ``root``
            has beside those of normal images and masks, but for names that begin with a dot or an underscore.
        mask_dir: Folder of the masks; ``None`` for classification although there are masks.
        test_ratio: Share of the normal images that test, in [0, 1). One at least trains.
        name: Name of the data in the folder of results; by default that of ``root``.
        seed: Seed of the splits.
        kwargs: Batch sizes, processes, augmentations and validation split, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: ``test_ratio`` or ``seed`` cannot be. On setup: two folders or files have one name, or a mask
            belongs to no defective image.
        MissingDataError: On setup: a folder or a mask is missing, or a folder is empty.
    """

    advice: ClassVar[str] = "root must hold a folder of normal images, and one for each type of defect"
    """What to do where a folder is missing or empty."""

    def __init__(
        self,
        root: Path | str,
        normal_dir: str = GOOD,
        defect_dirs: list[str] | str | None = None,
        mask_dir: str | None = MASKS,
        test_ratio: float = 0.2,
        name: str | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, seed=seed, **kwargs)
        if not 0 <= test_ratio < 1:
            msg = f"test_ratio is {test_ratio}; it must be in [0, 1)"
            raise InvalidInputError(msg)
        if seed < 0:
            msg = f"the seed of {type(self).__name__} must be 0 or more, not {seed}"
            raise InvalidInputError(msg)
        self.normal_dir = normal_dir
        self.defect_dirs = [defect_dirs] if isinstance(defect_dirs, str) else defect_dirs
        self.mask_dir = mask_dir
        self.test_ratio = test_ratio
        self._name = name

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the data in the folder of results."""
        return self._name or self.root.resolve().name or type(self).__name__

    def _setup(self, _stage: str | None = None) -> None:
        normal = self._existing(self.root / self.normal_dir, "of normal images")
        images = {folder: self._images(folder) for folder in (normal, *self._defect_folders(normal))}
        masks = self._mask_folder()
        task = TaskType.CLASSIFICATION if masks is None else TaskType.SEGMENTATION
        found = {} if masks is None else _match_masks(masks, normal, images)
        train, test = self._split_normal(images.pop(normal))
        for files in images.values():
            test += [Sample(str(path), Split.TEST.value, path.parent.name, str(found.get(path, ""))) for path in files]
        self.train_data = DefectFolderDataset(train, task)
        self.test_data = DefectFolderDataset(test, task)

    def _existing(self, folder: Path, what: str) -> Path:
        for path, which in ((self.root, "of the data"), (folder, what)):
            if not path.is_dir():
                msg = f"the folder {which} {path} does not exist; {self.advice}"
                raise MissingDataError(msg)
        return folder

    def _defect_folders(self, normal: Path) -> list[Path]:
        if self.defect_dirs is None:
            taken = {normal, *normal.parents} | ({self.root / self.mask_dir} if self.mask_dir else set())
            taken |= {self.root / MASKS}  # also where masks are switched off
            folders = sorted(path for path in self.root.iterdir() if path.is_dir() and path.name[0] not in "._")
            folders = [path for path in folders if path not in taken]
        else:
            folders = [self._existing(self.root / name, "of defective images") for name in self.defect_dirs]
        _check_types(folders, normal)
        return folders

    def _images(self, folder: Path) -> list[Path]:
        images = image_files(folder)
        if not images:
            msg = f"the folder {folder} holds no image ({' '.join(IMG_EXTENSIONS)}); fill or remove it: {self.advice}"
            raise MissingDataError(msg)
        nested = _nested_images(folder)
        if nested:
            msg = f"image {nested[0]} would be overlooked in a folder of its own; move it to {folder} or elsewhere"
            raise InvalidInputError(msg)
        return images

    def _mask_folder(self) -> Path | None:
        if self.mask_dir is None:
            return None
        folder = self.root / self.mask_dir
        if folder.is_dir():
            return folder
        if self.mask_dir != MASKS:
            return self._existing(folder, "of masks")
        logger.info("there is no folder %s, so the task is classification", folder)
        return None

    def _split_normal(self, images: Sequence[Path]) -> tuple[list[Sample], list[Sample]]:
        order = list(shuffled(make_table(Sample(str(path), "") for path in images), self.seed).image_path)
        count = min(round(self.test_ratio * len(order)), len(order) - 1)
        train = [Sample(path, Split.TRAIN.value) for path in order[count:]]
        return train, [Sample(path, Split.TEST.value) for path in order[:count]]


class DefectFolderDataset(CheckedDataset):
    """Images of a ``DefectFolder``. A mask that marks nothing is refused.

    Args:
        samples: The images.
        task: ``segmentation`` if every defective image has a mask, else ``classification``.
        augmentations: Augmentations of images and masks.
    """

    def __init__(self, samples: Sequence[Sample], task: TaskType, augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        self.samples = make_table(samples, task)

    def load_mask(self, path: str) -> Mask:
        """Read the mask at ``path``: (H, W), uint8, 1 on the defect.

        Raises:
            InvalidInputError: It marks nothing.
        """
        mask = super().load_mask(path)
        if not mask.any():
            msg = f"mask {path} marks nothing; mark the defect, or put its image to the normal ones, without the mask"
            raise InvalidInputError(msg)
        return mask


def _nested_images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*/**/*") if is_image_file(path))


def _match_masks(masks: Path, normal: Path, images: dict[Path, list[Path]]) -> dict[Path, Path]:
    """Find the mask of each defective image, of which ``images`` has the lists by folder, with the normal ones."""
    folders = [folder for folder in images if folder != normal]
    flat = len(folders) == 1 and not (masks / folders[0].name).is_dir()
    of_folder = {masks if flat else masks / folder.name: images[folder] for folder in folders}
    _check_strays(masks, normal, set(of_folder))
    return {image: mask for where, files in of_folder.items() for image, mask in _match(files, where)}


def _match(images: Sequence[Path], folder: Path) -> Iterator[tuple[Path, Path]]:
    by_stem = _by_stem(images, "images")
    masks = image_files(folder) if folder.is_dir() else []
    stems = [mask.stem if mask.stem in by_stem else mask.stem.removesuffix(MASK_ENDING) for mask in masks]
    found = _by_stem(masks, "masks", stems)
    for stem, mask in found.items():
        if stem not in by_stem:
            msg = f"mask {mask} belongs to no image of {images[0].parent}; remove it or name it as its image"
            raise InvalidInputError(msg)
    for stem, image in by_stem.items():
        if stem not in found:
            msg = f"image {image} has no mask {folder / stem}.png; make one, or remove the image"
            raise MissingDataError(msg)
        yield image, found[stem]


def _by_stem(files: Sequence[Path], what: str, stems: Sequence[str] | None = None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for stem, path in zip(stems or [path.stem for path in files], files, strict=True):
        if stem in found:
            belongs = "one mask would belong to both" if what == "images" else "both would belong to one image"
            msg = f"the {what} {found[stem]} and {path} have one name, so that {belongs}; rename or remove one"
            raise InvalidInputError(msg)
        found[stem] = path
    return found


def _check_types(folders: Sequence[Path], normal: Path) -> None:
    """Refuse folders that cannot be told apart by their names."""
    seen: dict[str, Path] = {}
    for folder in folders:
        if folder == normal or folder.name == GOOD:
            msg = f"the folder {folder} cannot be one of defects: '{GOOD}' and {normal} are normal; rename it"
            raise InvalidInputError(msg)
        if folder.name in seen:
            msg = f"the folders {seen[folder.name]} and {folder} are of one type of defect; put their images into one"
            raise InvalidInputError(msg)
        seen[folder.name] = folder


def _check_strays(masks: Path, normal: Path, wanted: set[Path]) -> None:
    """Refuse masks where none is looked for, unless they are those of a folder of images that was left out."""
    found = [*image_files(masks), *_nested_images(masks)]
    for mask in (mask for mask in found if mask.parent not in wanted):
        if mask.parent == masks / normal.name:
            msg = f"mask {mask} is one of a normal image; remove it, or move the image to a type of defect"
            raise InvalidInputError(msg)
        if mask.parent.parent != masks or not (normal.parent / mask.parent.name).is_dir():
            where = masks / "<type of defect>" / f"{mask.stem}.png"
            msg = f"mask {mask} belongs to no image; remove it, or put it where it is looked for: {where}"
            raise InvalidInputError(msg)
