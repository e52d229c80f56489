"""Training sets with defects: samples of any anomalib data set with defect types, and synthetic defects on them."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, cast

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from pandas import DataFrame
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.tv_tensors import Image, Mask

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.data.dataclasses import GOOD, DefectBatch, DefectItem


def with_defect_types(samples: DataFrame) -> DataFrame:
    """Add the column ``defect_type`` to a table that lacks it: the label, as anomalib's own data sets have it there."""
    if "defect_type" in samples:
        return samples
    # anomalib's Folder has members of an enumeration there.
    label = samples["label"].map(lambda label: str(getattr(label, "value", label))) if "label" in samples else "defect"
    return samples.assign(defect_type=label).assign(
        defect_type=lambda table: table.defect_type.mask(table.label_index == LabelName.NORMAL, GOOD)
    )


class TrainingSet(AnomalibDataset):
    """The samples of any anomalib data set, with their defect types, and with masks or without.

    Args:
        dataset: The data set.
        masks: Whether samples have a mask; if not, their label is all that is known of them.
    """

    def __init__(self, dataset: AnomalibDataset, masks: bool) -> None:
        super().__init__(augmentations=dataset.augmentations)
        self.dataset = dataset
        self.masks = masks
        # The order is that of the data set, so its table is not sorted anew.
        self._samples = with_defect_types(dataset.samples).copy()
        self._samples.attrs["task"] = str((TaskType.SEGMENTATION if masks else TaskType.CLASSIFICATION).value)
        self._category = dataset.category

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.dataset.name

    @property
    def collate_fn(self) -> Callable[..., Any]:
        """What makes a ``DefectBatch`` of samples."""
        return DefectBatch.collate

    def subsample(self, indices: Sequence[int], inplace: bool = False) -> "TrainingSet":
        """Take some samples, as in anomalib."""
        part = TrainingSet(self.dataset.subsample(indices), self.masks)
        part.augmentations = self.augmentations
        if inplace:
            vars(self).update(vars(part))
        return self if inplace else part

    def __getitem__(self, index: int) -> DefectItem:
        """Read a sample: image (3, H, W), and mask (H, W), bool, if there are masks."""
        self.dataset.augmentations = self.augmentations
        item = self.dataset[index]
        values = {field.name: getattr(item, field.name) for field in fields(item)}
        values["mask_path"] = item.mask_path if self.masks and isinstance(item.mask_path, str) else ""
        values["gt_mask"] = self._mask(item.gt_mask, item.image) if self.masks else None
        values["defect_type"] = self.samples.defect_type.iloc[index]
        return DefectItem(**values)

    @staticmethod
    def _mask(mask: Mask | None, image: Any) -> Mask:
        return Mask(torch.zeros(image.shape[-2:], dtype=torch.bool)) if mask is None else mask


class SyntheticDefects(Dataset[DefectItem]):
    """Training samples of which some normal ones get a synthetic defect, another one each time they are read.

    Randomness comes from torch's generator of the process that reads, which data loaders seed by worker and epoch.

    Args:
        dataset: The samples.
        generator: What draws the defects. If it is a batched one, its images are only marked as ``wanted``, for
            :func:`draw_wanted`.
        ratio: Share of the normal samples that get one, in (0, 1].
        rank: Number of the process in distributed training: each draws other defects.
    """

    def __init__(self, dataset: TrainingSet, generator: DefectGenerator, ratio: float, rank: int = 0) -> None:
        self.dataset = dataset
        self.generator = generator
        self.ratio = ratio
        self.rank = rank

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> DefectItem:
        """Read a sample, and draw a defect on it if it is its turn."""
        item = self.dataset[index]
        item.wanted = bool(torch.rand(()) < self.ratio) and not item.gt_label
        if item.wanted and not self.generator.batched:
            image, mask = self.generator(cast(Tensor, item.image)[None], new_rng(self.rank))
            item.image = Image(image[0])
            item.gt_label = mask.any().long()
            item.gt_mask = None if item.gt_mask is None else Mask(mask[0, 0])
            item.defect_type = self.generator.name if mask.any() else GOOD
            item.wanted = False
        return item


def draw_wanted(batch: DefectBatch, generator: DefectGenerator, rank: int = 0) -> None:
    """Draw the defects that a batch still lacks, on the device it is on.

    Args:
        batch: Images (B, C, H, W), float in [0, 1]. Its images, labels, masks and defect types are changed.
        generator: What draws the defects.
        rank: Number of the process in distributed training.
    """
    filled: Any = batch  # a batch in training has what is used here, but its type allows for less
    rows = filled.wanted.nonzero().flatten()
    filled.wanted = None
    if not len(rows):
        return
    images, masks = generator(filled.image[rows], new_rng(rank))
    filled.image[rows] = images
    filled.gt_label[rows] = masks.flatten(1).any(1)
    if filled.gt_mask is not None:
        filled.gt_mask[rows] = masks[:, 0]
    for row in rows[filled.gt_label[rows]].tolist():
        filled.defect_type[row] = generator.name


def new_rng(rank: int) -> torch.Generator:
    """A generator seeded by torch's own, whose seed all processes of a distributed training may share."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())) + rank)
