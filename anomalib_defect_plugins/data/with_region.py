"""``WithRegion`` restricts any data module and model to a region of interest."""

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from anomalib_defect_plugins.core.region_masks import RegionMasks, resize_region
from anomalib_defect_plugins.data.dataclasses import GOOD, DefectItem
from anomalib_defect_plugins.data.mask_resize import augment
from anomalib_defect_plugins.data.restriction import (
    fill_training_batch,
    keep_regions_in_checkpoints,
    set_region,
)
from anomalib_defect_plugins.data.stock_datasets import checked
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.data.wrapped_dataset import WrappedDataset, defect_item, subset_names
from anomalib_defect_plugins.data.wrapping import OuterDataModule
from anomalib_defect_plugins.layers.region import Region, fill_outside
from anomalib_defect_plugins.layers.restricted_forward import region_of

logger = logging.getLogger(__name__)

keep_regions_in_checkpoints()


class WithRegion(OuterDataModule):
    """Any data module with a region of interest, outside of which nothing trains, scores, thresholds or is marked.

    Each image is filled outside the region with its mean colour inside it before anything else, so that what is there
    changes no bit of a score or map. Defects there are removed from masks; an image without any other is normal. A
    model keeps the region of all images: checkpoints and exported graphs contain it. Regions of single images come with
    the data, and are passed to ``anomalib-defects inspect --roi-mask``.

    Args:
        base: Data module to wrap: an instance, or a mapping with ``class_path`` and ``init_args``. ``WithDefects`` is
            wrapped, and does not wrap.
        roi_mask: Mask of all images, of any size; LabelMe file (.json) with polygons or rectangles; or folder with such
            files, one for each image, with the same names.
        seed: As in ``WithDefects``.

    Raises:
        MissingDataError: If ``roi_mask`` does not exist or, on setup, an image has no region.
        InvalidInputError: If it cannot be read, or the region is empty.
    """

    order: ClassVar[int] = 1

    def __init__(self, base: AnomalibDataModule, roi_mask: Path | str, seed: int | None = None) -> None:
        super().__init__(base, seed)
        self.roi_mask = roi_mask
        self.regions = RegionMasks(roi_mask)

    def _setup(self, stage: str | None = None) -> None:
        self.base.setup(stage)
        for name in subset_names(self.base):
            setattr(self, f"{name}_data", RegionSet(checked(getattr(self.base, f"{name}_data")), self.regions))

    def setup(self, stage: str | None = None) -> None:
        """Set up the splits, and restrict the model of the trainer to the region."""
        super().setup(stage)
        self.restrict(getattr(self.trainer, "lightning_module", None))

    def restrict(self, model: Any) -> None:
        """Restrict a model to the region; what is known of its scores is kept."""
        if model is not None:
            fixed, before = self.regions.fixed, region_of(model)
            mask = None if fixed is None else torch.from_numpy(fixed)
            set_region(model, Region(mask, None if before is None else before.has_peak_scores))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Fill training batches outside the region, and note the regions of the images of others."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.trainer is None or not self.trainer.training:
            self.note_regions(batch)
        elif getattr(self.base, "synthetic", None) is not None and self.regions.fixed is not None:
            fill_training_batch(batch, torch.from_numpy(self.regions.fixed))
        return batch

    def note_regions(self, batch: Any) -> None:
        """Note the regions of the images of a batch, if each has its own."""
        region = region_of(getattr(self.trainer, "lightning_module", None))
        if region is not None and self.regions.fixed is None and batch.image_path is not None:
            region.current = [torch.from_numpy(self.regions(path)) for path in batch.image_path]


class RegionSet(WrappedDataset):
    """The samples of a data set, filled outside the region of interest.

    Args:
        dataset: Data set to wrap.
        regions: Regions of its images.
    """

    def __init__(self, dataset: AnomalibDataset, regions: RegionMasks) -> None:
        super().__init__(dataset)
        self.regions = regions
        self._samples = with_defect_types(dataset.samples).copy()
        self._samples.attrs = dataset.samples.attrs
        normal = {"label_index": int(LabelName.NORMAL), "defect_type": GOOD, "mask_path": ""}
        if "label" in self._samples:
            normal["label"] = LabelName.NORMAL.name.lower()
        defective = np.flatnonzero(self._samples.label_index == LabelName.ABNORMAL)
        outside = [int(row) for row in defective if self._is_outside(int(row))]
        if outside:
            logger.warning(
                "the defects of %d of %d defective images are outside the region of interest, and these images count "
                "as normal, such as %s; if that is not intended, check roi_mask",
                *(len(outside), len(defective), self._samples.image_path.iloc[outside[0]]),
            )
            self._samples.loc[self._samples.index[outside], list(normal)] = list(normal.values())

    def _is_outside(self, row: int) -> bool:
        """Whether the mask of a sample has marks outside the region only."""
        item = self.load_whole(row)
        return item.gt_mask is not None and bool(item.gt_mask.any()) and not self.load_mask(item).any()

    def inside(self, item: Any) -> Tensor:
        """Return the region of a sample at its size, shape (H, W), bool."""
        return torch.from_numpy(resize_region(self.regions(item.image_path), *item.image.shape[-2:]))

    def load_mask(self, item: Any) -> Any:
        """Return the marks of a sample inside the region, shape (H, W)."""
        return None if item.gt_mask is None else Mask(item.gt_mask.bool() & self.inside(item), dtype=torch.uint8)

    def __getitem__(self, index: int) -> DefectItem:
        """Load a sample: image, shape (3, H, W), and mask, shape (H, W), bool."""
        item, row = self.load_whole(index), self.samples.iloc[index]
        image, mask = Image(fill_outside(item.image, self.inside(item))), self.load_mask(item)
        ignored = getattr(item, "ignore_mask", None)
        ignored = None if ignored is None else Mask(ignored, dtype=torch.uint8)
        if self.augmentations:
            image, mask, ignored = augment(self.augmentations, image, mask, ignored)
        label = None if item.gt_label is None else torch.tensor(int(row.label_index))
        changes = {"image": image, "gt_mask": mask, "gt_label": label, "mask_path": row.mask_path or ""}
        changes["ignore_mask"] = None if ignored is None else ignored.bool()
        return defect_item(item, defect_type=row.defect_type, **changes)
