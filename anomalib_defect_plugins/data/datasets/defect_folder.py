"""``DefectFolder``: user data in one folder of normal images and one for each defect type, with optional masks."""

import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from anomalib import TaskType
from anomalib.data.utils import Split
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_files import IMAGE_SUFFIXES, image_files, unread_files, warn_of_unread
from anomalib_defect_plugins.core.mask_io import read_mask
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.dataset import CheckedDataset, check_not_empty, reading
from anomalib_defect_plugins.data.folder_layout import MASK_FOLDER, nested_images, subfolders, type_folders
from anomalib_defect_plugins.data.mask_files import are_masks, match_beside, match_folder, split_beside
from anomalib_defect_plugins.data.sample_table import Sample, make_table, shuffled

logger = logging.getLogger(__name__)

MASKS = "masks"
"""Default folder of the masks, the only one that is optional."""


class DefectFolder(DefectDataModule):
    """User data in folders: one of normal images, and one for each defect type.

    ::

        root/good/0001.png          normal images
        root/scratch/0002.jpg       images with a scratch
        root/scratch+dent/0003.png  images with both
        root/masks/scratch/0002.png their masks: stem of the image, optionally with a word such as "_mask" or "_GT"

    The pixels that a mask marks are those of :func:`~anomalib_defect_plugins.core.mask_io.read_mask`. Masks of a single
    defect type may be in ``masks`` directly. If the mask folder exists, every defective image needs a mask. Without it,
    another folder with a usual name (``gt``, ``ground_truth``, ``labels``) is used if it has all masks, or else masks
    beside their images; if there are none, the task is classification. Images may be grey, RGB, with alpha channel or
    palette, 8-bit or 16-bit, and of any size.

    The test split has all defective images and a random share of the normal ones.

    Args:
        root: Folder with the other folders.
        normal_dir: Folder of the normal images.
        defect_dirs: Folders of the defective images, named after their defect type. By default all folders in ``root``
            except those of normal images and masks, hidden ones, and those that systems and programs write.
        mask_dir: Folder of the masks; ``None`` to ignore masks and use classification.
        test_ratio: Share of the normal images in the test split, in [0, 1). At least one image is left for training.
        name: Name of the data in the results folder; by default the name of ``root``.
        seed: Seed of the splits.
        kwargs: Batch sizes, workers, augmentations and validation split, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: If an argument is invalid. On setup, if the names of two folders or files conflict, a mask
            belongs to no defective image, or it is doubtful whether a folder or file is one of masks.
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
        types, candidates = self._defect_folders(normal)
        files = {folder: self._images(folder) for folder in (normal, *types)}
        warn_of_unread(path for folder in files for path in unread_files(folder))
        mask_folder = self._mask_folder(normal, files, candidates)
        images: dict[Path, list[Path]] = {}
        beside: dict[Path, Path] = {}
        for folder, paths in files.items():
            is_split = mask_folder is None or folder == normal
            images[folder], masks = split_beside(paths) if is_split else (paths, {})
            beside |= masks
        mask_of = self._masks(normal, images, beside, mask_folder)
        task = TaskType.CLASSIFICATION if mask_of is None else TaskType.SEGMENTATION
        if mask_of is None and self.mask_dir is not None:
            logger.info("%s has no masks, so the task is classification", self.root)
        train, test = self._split_normal(images.pop(normal))
        for path in chain.from_iterable(images.values()):
            test.append(Sample(str(path), Split.TEST.value, path.parent.name, str((mask_of or {}).get(path, ""))))
        self.train_data = DefectFolderDataset(train, task)
        self.test_data = DefectFolderDataset(test, task)

    def _existing(self, folder: Path, what: str) -> Path:
        for path, kind in ((self.root, "of the data"), (folder, what)):
            if not path.is_dir():
                msg = f"the folder {kind} {path} does not exist; {self.advice}"
                raise MissingDataError(msg)
        return folder

    def _defect_folders(self, normal: Path) -> tuple[list[Path], list[Path]]:
        """Return the folders of defect types, and those that may hold the masks."""
        masks = self.root / (self.mask_dir or MASKS)
        listed = [path for path in subfolders(self.root) if not _is_one_of(path, (normal, *normal.parents, masks))]
        written = () if self.trainer is None else (Path(self.trainer.default_root_dir),)
        folders, candidates = type_folders(listed, masks, written)
        if self.defect_dirs is not None:
            folders = [self._existing(self.root / name, "of defective images") for name in self.defect_dirs]
            candidates = [path for path in candidates if not _is_one_of(path, folders)]
        # The default mask folder is excluded even if another one is given.
        candidates = [path for path in candidates if path.name != MASKS]
        _check_types(folders, normal)
        return folders, candidates

    def _images(self, folder: Path) -> list[Path]:
        images = image_files(folder)
        nested = nested_images(folder)
        if not images:
            unread = "".join(f", {path.name} has to be converted to PNG" for path in unread_files(folder)[:1])
            formats = " ".join(IMAGE_SUFFIXES)
            msg = f"the folder {folder} has no images ({formats}{unread}); fill or remove it, or list the "
            raise MissingDataError(msg + f"defect types with --data.defect_dirs: {self.advice}")
        if nested:
            is_mask = MASK_FOLDER.fullmatch(nested[0].relative_to(folder).parts[0])
            place = f"{self.root / MASKS / folder.name}" if is_mask else f"{folder} or elsewhere"
            msg = f"image {nested[0]} is in a subfolder, which is not read; move it to {place}"
            raise InvalidInputError(msg)
        return images

    def _masks(
        self, normal: Path, images: dict[Path, list[Path]], beside: dict[Path, Path], folder: Path | None
    ) -> dict[Path, Path] | None:
        """Find the mask of each defective image; ``None`` if there are none, or they are to be ignored."""
        if self.mask_dir is None:
            return None
        _check_unmarked(mask for image, mask in beside.items() if image.parent == normal)
        if folder is not None:
            return match_folder(folder, normal, images)
        defective = [path for types, paths in images.items() if types != normal for path in paths]
        return match_beside(defective, beside) if beside.keys() & set(defective) else None

    def _mask_folder(self, normal: Path, images: dict[Path, list[Path]], candidates: list[Path]) -> Path | None:
        """Return the folder of the masks: the given one, or else the only other one, if it has the masks."""
        given = self.root / (self.mask_dir or MASKS)
        if self.mask_dir not in {None, MASKS}:
            self._existing(given, "of masks")
        found = self.mask_dir is not None and given.is_dir()
        usable = len(candidates) == 1 and not found and are_masks(candidates[0], normal, images)
        if candidates and not usable and self.defect_dirs is None:
            name = candidates[0].name
            msg = f"the folder {candidates[0]} may hold masks or images of a defect type; pass --data.mask_dir {name}, "
            raise InvalidInputError(msg + "or list the defect types with --data.defect_dirs")
        if found:
            return given
        if usable:
            logger.info("the masks are in the folder %s", candidates[0])
            return candidates[0]
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


def _is_one_of(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a folder is one of several, of which the file system may ignore the case."""
    return any(folder.is_dir() and path.samefile(folder) for folder in folders)


def _check_unmarked(masks: Iterable[Path]) -> None:
    """Check that masks of normal images mark nothing."""
    for mask in masks:
        with reading("mask", str(mask)):
            marked = read_mask(mask).any()
        if marked:
            msg = f"mask {mask} marks a defect of a normal image; move the image to the folder of a defect type, "
            raise InvalidInputError(msg + "or rename the file if it is an image")


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
