"""``DefectFolder``: user data in one folder of normal images and one for each defect type, with optional masks."""

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from anomalib import TaskType
from anomalib.data.utils import Split
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_files import IMAGE_SUFFIXES, image_files, is_image_file
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.dataset import CheckedDataset, check_not_empty
from anomalib_defect_plugins.data.sample_table import Sample, make_table, shuffled

logger = logging.getLogger(__name__)

MASKS = "masks"
"""Default folder of the masks, the only one that is optional."""

MASK_ENDING = "_mask"
"""Optional ending of the stem of a mask, after the stem of its image."""


class DefectFolder(DefectDataModule):
    """User data in folders: one of normal images, and one for each defect type.

    ::

        root/good/0001.png          normal images
        root/scratch/0002.jpg       images with a scratch
        root/scratch+dent/0003.png  images with both
        root/masks/scratch/0002.png their masks: stem of the image, optionally with "_mask"; any image format

    Pixels of a mask that are neither black nor transparent are defective. Masks of a single defect type may be in
    ``masks`` directly. If the mask folder exists, every defective image needs a mask; without it the task is
    classification. Images may be grey, RGB, with alpha channel or palette, 8-bit or 16-bit, and of any size.

    The test split has all defective images and a random share of the normal ones.

    Args:
        root: Folder with the other folders.
        normal_dir: Folder of the normal images.
        defect_dirs: Folders of the defective images, named after their defect type. By default all folders in ``root``
            except those of normal images and masks, and those whose name starts with a dot or an underscore.
        mask_dir: Folder of the masks; ``None`` to ignore masks and use classification.
        test_ratio: Share of the normal images in the test split, in [0, 1). At least one image is left for training.
        name: Name of the data in the results folder; by default the name of ``root``.
        seed: Seed of the splits.
        kwargs: Batch sizes, workers, augmentations and validation split, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: If an argument is invalid. On setup, if the names of two folders or files conflict, or a mask
            belongs to no defective image.
        MissingDataError: On setup, if a folder or a mask is missing, or a folder is empty.
    """

    advice: ClassVar[str] = "root must contain a folder of normal images and one for each defect type"
    """What to do if a folder is missing or empty, for messages."""

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
        check_fraction("test_ratio", test_ratio, zero=True)
        check_not_negative(seed=seed)
        self.normal_dir = normal_dir
        self.defect_dirs = [defect_dirs] if isinstance(defect_dirs, str) else defect_dirs
        self.mask_dir = mask_dir
        self.test_ratio = test_ratio
        self._name = name

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the data in the results folder."""
        return self._name or self.root.resolve().name or type(self).__name__

    def _setup(self, _stage: str | None = None) -> None:
        normal = self._existing(self.root / self.normal_dir, "of normal images")
        images = {folder: self._images(folder) for folder in (normal, *self._defect_folders(normal))}
        masks = self._mask_folder()
        task = TaskType.CLASSIFICATION if masks is None else TaskType.SEGMENTATION
        mask_of = {} if masks is None else _match_masks(masks, normal, images)
        train, test = self._split_normal(images.pop(normal))
        for path in chain.from_iterable(images.values()):
            test.append(Sample(str(path), Split.TEST.value, path.parent.name, str(mask_of.get(path, ""))))
        self.train_data = DefectFolderDataset(train, task)
        self.test_data = DefectFolderDataset(test, task)

    def _existing(self, folder: Path, what: str) -> Path:
        for path, kind in ((self.root, "of the data"), (folder, what)):
            if not path.is_dir():
                msg = f"the folder {kind} {path} does not exist; {self.advice}"
                raise MissingDataError(msg)
        return folder

    def _defect_folders(self, normal: Path) -> list[Path]:
        if self.defect_dirs is None:
            # The default mask folder is excluded even if masks are ignored.
            excluded = {normal, *normal.parents, self.root / MASKS, self.root / (self.mask_dir or MASKS)}
            folders = sorted(path for path in self.root.iterdir() if path.is_dir() and path.name[0] not in "._")
            folders = [path for path in folders if path not in excluded]
        else:
            folders = [self._existing(self.root / name, "of defective images") for name in self.defect_dirs]
        _check_types(folders, normal)
        return folders

    def _images(self, folder: Path) -> list[Path]:
        images = image_files(folder)
        if not images:
            msg = f"the folder {folder} has no images ({' '.join(IMAGE_SUFFIXES)}); fill or remove it: {self.advice}"
            raise MissingDataError(msg)
        nested = _nested_images(folder)
        if nested:
            msg = f"image {nested[0]} is in a subfolder, which is not read; move it to {folder} or elsewhere"
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
        logger.info("folder %s does not exist, so the task is classification", folder)
        return None

    def _split_normal(self, images: Sequence[Path]) -> tuple[list[Sample], list[Sample]]:
        order = list(shuffled(make_table(Sample(str(path), "") for path in images), self.seed).image_path)
        count = min(round(self.test_ratio * len(order)), len(order) - 1)
        train = [Sample(path, Split.TRAIN.value) for path in order[count:]]
        return train, [Sample(path, Split.TEST.value) for path in order[:count]]


class DefectFolderDataset(CheckedDataset):
    """Images of a ``DefectFolder``. An empty mask is an error.

    Args:
        samples: The images.
        task: ``segmentation`` if every defective image has a mask, else ``classification``.
        augmentations: Augmentations of images and masks.
    """

    def __init__(self, samples: Sequence[Sample], task: TaskType, augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        self.samples = make_table(samples, task)

    def load_mask(self, path: str) -> Mask:
        """Load a mask, shape (H, W), uint8, 1 on the defect.

        Raises:
            InvalidInputError: If it marks nothing.
        """
        advice = "mark the defect, or move its image to the normal images and remove the mask"
        return check_not_empty(super().load_mask(path), f"mask {path}", advice)


def _nested_images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*/**/*") if is_image_file(path))


def _match_masks(masks: Path, normal: Path, images: dict[Path, list[Path]]) -> dict[Path, Path]:
    """Find the mask of each defective image.

    Args:
        masks: Folder of the masks.
        normal: Folder of the normal images.
        images: Images by folder, including the normal ones.

    Returns:
        Masks by image.
    """
    folders = [folder for folder in images if folder != normal]
    flat = len(folders) == 1 and not (masks / folders[0].name).is_dir()
    images_of = {masks if flat else masks / folder.name: images[folder] for folder in folders}
    _check_strays(masks, normal, set(images_of))
    return {image: mask for mask_folder, paths in images_of.items() for image, mask in _match(paths, mask_folder)}


def _match(images: Sequence[Path], folder: Path) -> Iterator[tuple[Path, Path]]:
    by_stem = _by_stem(images, "images")
    masks = image_files(folder) if folder.is_dir() else []
    stems = [mask.stem if mask.stem in by_stem else mask.stem.removesuffix(MASK_ENDING) for mask in masks]
    mask_by_stem = _by_stem(masks, "masks", stems)
    for stem, mask in mask_by_stem.items():
        if stem not in by_stem:
            msg = f"mask {mask} belongs to no image of {images[0].parent}; remove it or name it after its image"
            raise InvalidInputError(msg)
    for stem, image in by_stem.items():
        if stem not in mask_by_stem:
            msg = f"image {image} has no mask {folder / stem}.png; create one, or remove the image"
            raise MissingDataError(msg)
        yield image, mask_by_stem[stem]


def _by_stem(files: Sequence[Path], what: str, stems: Sequence[str] | None = None) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for stem, path in zip(stems or [path.stem for path in files], files, strict=True):
        if stem in by_stem:
            conflict = "one mask would belong to both" if what == "images" else "both would belong to one image"
            msg = f"the {what} {by_stem[stem]} and {path} have the same name, so {conflict}; rename or remove one"
            raise InvalidInputError(msg)
        by_stem[stem] = path
    return by_stem


def _check_types(folders: Sequence[Path], normal: Path) -> None:
    """Check that the folders have distinct names and none is normal."""
    seen: dict[str, Path] = {}
    for folder in folders:
        if folder == normal or folder.name == GOOD:
            msg = f"the folder {folder} cannot be a defect type: '{GOOD}' and {normal} are normal; rename it"
            raise InvalidInputError(msg)
        if folder.name in seen:
            msg = f"the folders {seen[folder.name]} and {folder} have the same defect type; merge them"
            raise InvalidInputError(msg)
        seen[folder.name] = folder


def _check_strays(masks: Path, normal: Path, used: set[Path]) -> None:
    """Check that there are no masks outside the ``used`` folders, except for image folders that are not used."""
    all_masks = [*image_files(masks), *_nested_images(masks)]
    for mask in (mask for mask in all_masks if mask.parent not in used):
        if mask.parent == masks / normal.name:
            msg = f"mask {mask} belongs to a normal image; remove it, or move the image to the folder of a defect type"
            raise InvalidInputError(msg)
        if mask.parent.parent != masks or not (normal.parent / mask.parent.name).is_dir():
            expected = masks / "<defect type>" / f"{mask.stem}.png"
            msg = f"mask {mask} belongs to no image; remove it, or move it to its expected place: {expected}"
            raise InvalidInputError(msg)
