"""``DefectFolder``: user data in folders, with what there is of normal images, masks, and a fixed split."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data.utils import LabelName
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative, check_positive
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.core.image_io import read_size
from anomalib_defect_plugins.core.mask_io import read_mask
from anomalib_defect_plugins.data.annotations.reader import annotated_samples, read_annotations
from anomalib_defect_plugins.data.annotations.regions import Annotations
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.dataset import CheckedDataset, check_not_empty, check_size, reading
from anomalib_defect_plugins.data.folder_reader import IGNORE, MASKS, FolderReader, ignored_files
from anomalib_defect_plugins.data.folder_split import (
    compile_groups,
    split_samples,
    warn_of_groups,
    warn_of_missing,
    with_groups,
)
from anomalib_defect_plugins.data.sample_table import Sample, make_table

logger = logging.getLogger(__name__)


class DefectFolder(DefectDataModule):
    r"""User data in folders: one of normal images, and one for each defect type.

    ::

        root/good/0001.png          normal images
        root/scratch/0002.jpg       images with a scratch
        root/scratch+dent/0003.png  images with both
        root/masks/scratch/0002.png their masks: stem of the image, optionally with a word such as "_mask" or "_GT"

    The pixels that a mask marks are those of :func:`~anomalib_defect_plugins.core.mask_io.read_mask`. Masks of a single
    defect type may be in ``masks`` directly. Without that folder, another one with a usual name (``gt``,
    ``ground_truth``, ``labels``) is used if it has masks, or else masks beside their images. A defective image without
    a mask counts in metrics of images only; if there are no masks at all, the task is classification. Images may be
    grey, RGB, with alpha channel or palette, 8-bit or 16-bit, and of any size.

    The test split has all defective images and a random share of the normal ones. Without normal images, the training
    split has the other share of the defective ones, those with masks if any has one. Folders ``train`` and ``test``
    with these folders inside, as in MVTec AD, are a fixed split; their masks are in ``masks`` or ``ground_truth``.

    Args:
        root: Folder with the other folders.
        normal_dir: Folder of the normal images; the default may have another usual name (``ok``, ``normal``), or be
            missing. ``None`` if there are no normal images.
        defect_dirs: Folders of the defective images, named after their defect type. By default all folders in ``root``
            except those of normal images and masks, hidden ones, and those that systems and programs write.
        mask_dir: Folder of the masks; ``None`` to ignore masks and use classification.
        test_ratio: Share of the normal images in the test split, in [0, 1); of the defective images of each type if
            there are no normal ones. At least one image is left for training.
        group_by: Regular expression that finds the name of the object in the name of an image, by its first group or as
            a whole, such as ``(part\d+)_``. Images of one object are in one split.
        mm_per_pixel: Size of a pixel in mm, if known: column ``mm_per_pixel`` of the table.
        annotations: File or folder that a labelling tool has exported, in ``root`` or elsewhere, instead of folders of
            types and masks: COCO, LabelMe, CVAT for images, YOLO segmentation, Pascal VOC or Label Studio. ``root`` is
            searched for the images that it names; images without annotations are normal. A rectangle, or a label of the
            whole image, is an image label without a mask.
        ignore_dir: Folder with masks of what is neither defective nor normal, in subfolders named as those of the
            images; optional. Models of this package that train on masks leave these pixels out, as they do regions
            annotated as ``ignore``.
        name: Name of the data in the results folder; by default the name of ``root``.
        seed: Seed of the splits.
        kwargs: Batch sizes, workers, augmentations and validation split, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: If an argument is invalid. On setup, if the names of two folders or files conflict, a mask
            belongs to no defective image, or it is doubtful whether a folder or file is one of masks.
        MissingDataError: On setup, if a folder is missing or empty.
    """

    advice: ClassVar[str] = "root must contain a folder of normal images and one for each defect type"
    """What to do if a folder is missing or empty, for messages."""

    def __init__(
        self,
        root: Path | str,
        normal_dir: str | None = GOOD,
        defect_dirs: list[str] | str | None = None,
        mask_dir: str | None = MASKS,
        test_ratio: float = 0.2,
        group_by: str | None = None,
        mm_per_pixel: float | None = None,
        annotations: Path | str | None = None,
        ignore_dir: str | None = IGNORE,
        name: str | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, seed=seed, **kwargs)
        check_fraction("test_ratio", test_ratio, zero=True)
        check_not_negative(seed=seed)
        if mm_per_pixel is not None:
            check_positive(mm_per_pixel=mm_per_pixel)
            if math.isinf(mm_per_pixel):
                msg = "mm_per_pixel is inf; use the size of a pixel in mm, such as 0.05"
                raise InvalidInputError(msg)
        if group_by is not None:
            compile_groups(group_by)
        self.normal_dir = normal_dir
        self.defect_dirs = [defect_dirs] if isinstance(defect_dirs, str) else defect_dirs
        self.mask_dir = mask_dir
        self.test_ratio = test_ratio
        self.group_by = group_by
        self.mm_per_pixel = mm_per_pixel
        self.annotations = annotations
        self.ignore_dir = ignore_dir
        self._name = name
        self._of_tool = Annotations()
        self._ignored: dict[str, Path] = {}

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the data in the results folder."""
        return self._name or self.root.resolve().name or type(self).__name__

    def _setup(self, _stage: str | None = None) -> None:
        samples = self._read_samples()
        is_segmentation = any(sample.mask_path for sample in samples)
        if not is_segmentation and self.mask_dir is not None:
            logger.info("%s has no masks, so the task is classification", self.root)
        train, train_defects, test = split_samples(samples, self.test_ratio, self.seed or 0)
        task = TaskType.SEGMENTATION if is_segmentation else TaskType.CLASSIFICATION
        self.train_data = self._dataset(train, task)
        self.train_defects = self._dataset(train_defects, task) if train_defects else None
        self.test_data = self._dataset(test, task)

    def _read_samples(self) -> list[Sample]:
        """Return the images, with the objects that they show."""
        samples = self._read_folders() if self.annotations is None else self._read_annotations(Path(self.annotations))
        warn_of_missing(samples)
        if self.group_by is None:
            warn_of_groups(samples)
            return samples
        faults = Faults(self.root)
        samples = with_groups(samples, self.group_by, faults)
        faults.raise_all()
        return samples

    def _read_folders(self) -> list[Sample]:
        written = () if self.trainer is None else (Path(self.trainer.default_root_dir),)
        folders = (self.normal_dir, self.defect_dirs, self.mask_dir, self.ignore_dir)
        samples = FolderReader(self.root, *folders, self.advice, written).read()
        if self.ignore_dir is not None:
            self._ignored = ignored_files(self.root / self.ignore_dir, samples)
        return samples

    def _read_annotations(self, path: Path) -> list[Sample]:
        """Read the annotations of a labelling tool, relative to ``root`` or the working directory."""
        inside = self.root / path
        faults = Faults(path)
        images = read_annotations(inside if inside.exists() else path, faults)
        samples, self._of_tool = annotated_samples(images, self.root, faults)
        faults.raise_all()
        if not samples:
            msg = f"{path} has no annotated images; export annotations of images"
            raise InvalidInputError(msg)
        return [sample._replace(mask_path="") for sample in samples] if self.mask_dir is None else samples

    def _dataset(self, samples: Sequence[Sample], task: TaskType) -> "DefectFolderDataset":
        return DefectFolderDataset(
            samples, task, mm_per_pixel=self.mm_per_pixel, annotations=self._of_tool, ignored=self._ignored
        )


class DefectFolderDataset(CheckedDataset):
    """Images of a ``DefectFolder``. An empty mask is an error.

    If some defective images have no mask, the column ``marked`` of the table is false for them.

    Args:
        samples: The images.
        task: ``segmentation`` if defective images have masks, else ``classification``.
        augmentations: Augmentations of images and masks.
        mm_per_pixel: Size of a pixel in mm, if known.
        annotations: Annotations of a labelling tool, also of images in other splits.
        ignored: Masks of what is neither defective nor normal by image path, also of images in other splits.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        task: TaskType,
        augmentations: Transform | None = None,
        mm_per_pixel: float | None = None,
        annotations: Annotations | None = None,
        ignored: Mapping[str, Path] | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        table = make_table(samples, task)
        known = (table.label_index == LabelName.NORMAL) | table.mask_path.astype(bool)
        if task == TaskType.SEGMENTATION and not known.all():
            table["marked"] = known
        if mm_per_pixel is not None:
            table["mm_per_pixel"] = mm_per_pixel
        self.samples = table
        # Those of other splits too, because images may be moved to another one.
        self._annotations = Annotations() if annotations is None else annotations
        self._image_of = {image.key: path for path, image in self._annotations.items()}
        self._ignored = dict(ignored or {})
        self._has_ignored = bool(self._ignored) or any(image.has_ignored for image in self._annotations.values())

    def load_mask(self, path: str) -> Mask:
        """Load a mask, or draw annotations: shape (H, W), uint8, 1 on the defect.

        Raises:
            InvalidInputError: If it marks nothing.
        """
        advice = "mark the defect, or move its image to the normal images and remove the mask"
        image_path = self._image_of.get(path)
        if image_path is None:
            return check_not_empty(super().load_mask(path), f"mask {path}", advice)
        width, height = read_size(image_path)
        drawn = self._annotations[image_path].mask((height, width))
        mask = Mask(torch.from_numpy(drawn), dtype=torch.uint8)
        return check_not_empty(mask, f"annotation {path}", "annotate the defect, or remove the annotation")

    def load_ignored(self, sample: pd.Series, image: torch.Tensor) -> Mask | None:
        """Load what is neither defective nor normal, shape (H, W), uint8; ``None`` if that is known of no image."""
        if not self._has_ignored:
            return None
        size = (image.shape[-2], image.shape[-1])
        marks = np.zeros(size, bool)
        if sample.image_path in self._annotations:
            marks = self._annotations[sample.image_path].ignored(size)
        elif sample.image_path in self._ignored:
            path = str(self._ignored[sample.image_path])
            with reading("mask", path):
                marks = read_mask(path)
            check_size(path, marks.shape[::-1], sample.image_path, size[::-1])
        return Mask(torch.from_numpy(marks), dtype=torch.uint8)
