"""Training sets with defects: any anomalib data set with defect types added and synthetic defects drawn on it."""

from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName
from pandas import DataFrame
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.tv_tensors import Image, Mask

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.data.dataclasses import GOOD, DefectBatch, DefectItem, is_mixed
from anomalib_defect_plugins.data.wrapped_dataset import WrappedDataset, defect_item


@runtime_checkable
class DefectTraining(Protocol):
    """A data module that adds defects to the training split of another one, as ``WithDefects`` does.

    Attributes:
        synthetic: Generator of the synthetic defects, if there are any.
        synthetic_ratio: Share of the normal training images that get a synthetic defect, in (0, 1].
        train_on_real: Whether the real defective images are trained on.
    """

    synthetic: DefectGenerator | None
    synthetic_ratio: float
    train_on_real: bool


@runtime_checkable
class PublishedDefects(Protocol):
    """A data module whose published training split may have defective images.

    Attributes:
        train_defects: These images; ``None`` if there are none.
    """

    train_defects: AnomalibDataset | None


def published_defects(datamodule: AnomalibDataModule) -> AnomalibDataset | None:
    """Return the defective images of the published training split of a data module that is set up, if it has any."""
    return datamodule.train_defects if isinstance(datamodule, PublishedDefects) else None


def with_defect_types(samples: DataFrame) -> DataFrame:
    """Add the column ``defect_type`` to a table that lacks it.

    The types are taken from the column ``label``, where anomalib's own data sets keep them.
    """
    if "defect_type" in samples:
        return samples
    # anomalib's Folder keeps members of an enumeration there.
    label = samples["label"].map(lambda label: str(getattr(label, "value", label))) if "label" in samples else "defect"
    return samples.assign(defect_type=label).assign(
        defect_type=lambda table: table.defect_type.mask(table.label_index == LabelName.NORMAL, GOOD)
    )


class TrainingSet(WrappedDataset):
    """The samples of any anomalib data set, with defect types and with or without masks.

    Args:
        dataset: Data set to wrap.
        masks: Whether to return masks; if not, defective images have a label only.
    """

    def __init__(self, dataset: AnomalibDataset, masks: bool) -> None:
        super().__init__(dataset)
        self.masks = masks
        self._samples = with_defect_types(dataset.samples).copy()
        self._samples.attrs["task"] = str((TaskType.SEGMENTATION if masks else TaskType.CLASSIFICATION).value)

    def subsample(self, indices: Sequence[int], inplace: bool = False) -> "TrainingSet":
        """Select samples by index, as in anomalib."""
        subset = TrainingSet(self.dataset.subsample(indices), self.masks)
        subset.augmentations = self.augmentations
        if inplace:
            vars(self).update(vars(subset))
        return self if inplace else subset

    def __getitem__(self, index: int) -> DefectItem:
        """Load a sample: image, shape (3, H, W), and, with ``masks``, its mask, shape (H, W), bool."""
        self.dataset.augmentations = self.augmentations
        item = self.dataset[index]
        defect_type = self.samples.defect_type.iloc[index]
        if not self.masks:
            return defect_item(item, defect_type=defect_type, mask_path="", gt_mask=None)
        return defect_item(item, defect_type=defect_type, gt_mask=self._mask(item.gt_mask, item.image))

    @staticmethod
    def _mask(mask: Mask | None, image: Any) -> Mask:
        return Mask(torch.zeros(image.shape[-2:], dtype=torch.bool)) if mask is None else mask


class SyntheticDefects(Dataset[DefectItem]):
    """Training samples, a random share of whose normal images get a new synthetic defect each time they are loaded.

    Randomness comes from the global torch generator of the loading process, which data loaders seed by worker and
    epoch.

    Args:
        dataset: The samples.
        generator: Generator of the defects. A batched one does not draw here: its images are only marked by
            ``needs_synthetic_defect``, for :func:`draw_missing_defects`.
        ratio: Share of the normal samples that get a defect, in (0, 1].
        rank: Rank of the process in distributed training; each draws different defects.
    """

    def __init__(self, dataset: AnomalibDataset, generator: DefectGenerator, ratio: float, rank: int = 0) -> None:
        self.dataset = dataset
        # A batched one, such as a trained network, is not sent to worker processes.
        self.generator = None if generator.batched else generator
        self.ratio = ratio
        self.rank = rank

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> DefectItem:
        """Load a sample and, if it is drawn to get a defect, draw or request one."""
        item = cast(DefectItem, self.dataset[index])
        item.needs_synthetic_defect = bool(torch.rand(()) < self.ratio) and not item.gt_label
        if item.needs_synthetic_defect and self.generator is not None:
            image, mask = self.generator(cast(Tensor, item.image)[None], new_rng(self.rank))
            item.image = Image(image[0])
            item.gt_label = mask.any().long()
            item.gt_mask = None if item.gt_mask is None else Mask(mask[0, 0])
            item.defect_type = self.generator.name if mask.any() else GOOD
            item.needs_synthetic_defect = False
        return item


def draw_missing_defects(batch: DefectBatch, generator: DefectGenerator, rank: int = 0) -> None:
    """Draw the synthetic defects that a batch still needs, on its device.

    Args:
        batch: Images, shape (B, C, H, W), float in [0, 1]. Its images, labels, masks and defect types are changed in
            place.
        generator: Generator of the defects.
        rank: Rank of the process in distributed training.
    """
    filled: Any = batch  # a training batch has all fields used below, but its type allows ``None``
    rows = filled.needs_synthetic_defect.nonzero().flatten()
    filled.needs_synthetic_defect = None
    if not len(rows):
        return
    if is_mixed(filled.image):
        for row in rows.tolist():
            _draw_on(filled, row, generator, rank)
        return
    images, masks = generator(filled.image[rows], new_rng(rank))
    filled.image[rows] = images
    filled.gt_label[rows] = masks.flatten(1).any(1)
    if filled.gt_mask is not None:
        filled.gt_mask[rows] = masks[:, 0]
    for row in rows[filled.gt_label[rows]].tolist():
        filled.defect_type[row] = generator.name


def _draw_on(batch: Any, row: int, generator: DefectGenerator, rank: int) -> None:
    """Draw a defect on one image of a batch of images of different sizes."""
    image, mask = generator(batch.image[row][None], new_rng(rank))
    batch.image[row] = Image(image[0])
    batch.gt_label[row] = mask.any()
    if batch.gt_mask is not None:
        batch.gt_mask[row] = Mask(mask[0, 0])
    if mask.any():
        batch.defect_type[row] = generator.name


def new_rng(rank: int) -> torch.Generator:
    """Return a generator seeded from the global one and ``rank``, because processes may share the global seed."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())) + rank)
