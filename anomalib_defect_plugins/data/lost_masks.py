"""Names masks whose defect vanishes when they are resized to the size of the model."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName
from PIL import Image
from torchvision.transforms.v2 import Resize
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.mask_io import read_mask
from anomalib_defect_plugins.data.dataset import CheckedDataset, load_checked_mask, reading
from anomalib_defect_plugins.data.mask_resize import flat_steps, keep_thin
from anomalib_defect_plugins.data.wrapped_dataset import innermost

logger = logging.getLogger(__name__)

SPLITS = {"validate": ("val",), "test": ("test",)}
"""Splits of a stage, unless it uses all."""


class LostMask(NamedTuple):
    """A mask that loses a defect at the size of the model.

    Attributes:
        path: Its file.
        size: Height and width.
        is_kept: Whether the data set marks the defect all the same.
    """

    path: str
    size: tuple[int, int]
    is_kept: bool


def warn_of_lost_masks(datamodule: AnomalibDataModule, stage: str | None = None) -> None:
    """Log one warning if masks lose a defect at the size of the model.

    Args:
        datamodule: Data module. Once it is set up for a trainer, the augmentations of its data sets resize for the
            model. It remembers the masks that have been checked.
        stage: ``fit``, ``validate`` or ``test``.

    Raises:
        MissingDataError: If a mask does not exist.
        InvalidInputError: If a mask cannot be read, or marks everything.
    """
    if datamodule.trainer is None or datamodule.trainer.global_rank:
        return
    splits = SPLITS.get(str(getattr(stage, "value", stage)), ("train", "val", "test"))
    datasets = [dataset for name in splits if (dataset := getattr(datamodule, f"{name}_data", None))]
    checked: set[str] = vars(datamodule).setdefault("_checked_masks", set())
    lost = [mask for dataset in datasets for mask in _lost_masks(dataset, checked)]
    if lost:
        (path, (height, width), is_kept), number = lost[0], len(lost)
        masks = f"mask {path} loses" if number == 1 else f"{number} masks, such as {path}, lose"
        effect = "each pixel that it touches is marked instead" if is_kept else "it is neither learnt nor measured"
        msg = "%s a defect when resized to %dx%d pixels for the model: %s; use a larger image_size"
        logger.warning(msg, masks, width, height, effect)


def _lost_masks(dataset: AnomalibDataset, checked: set[str]) -> Iterator[LostMask]:
    """Yield the masks of a data set that lose their defect, except those that were checked before."""
    resize = flat_steps(dataset.augmentations)[-1]
    is_classification = dataset.samples.attrs.get("task") == TaskType.CLASSIFICATION
    if not isinstance(resize, Resize) or is_classification or "tile_top" in dataset.samples:
        return
    source = innermost(dataset)
    defective = dataset.samples[dataset.samples.label_index == LabelName.ABNORMAL]
    for path in sorted({path for path in defective.mask_path if isinstance(path, str) and path}):
        key = f"{path} {resize.size}"
        mask = None if key in checked else _load(source, path)
        checked.add(key)
        if mask is None:
            continue
        resized: Mask = resize(mask)
        if not torch.equal(keep_thin(mask, resized), resized):
            yield LostMask(path, (resized.shape[0], resized.shape[1]), isinstance(source, CheckedDataset))


def _load(dataset: AnomalibDataset, path: str) -> Mask | None:
    """Load a mask, shape (H, W); ``None`` for a format that only the data set could read."""
    if isinstance(dataset, CheckedDataset):
        return load_checked_mask(dataset, path)
    if Path(path).suffix.lower() not in Image.registered_extensions():
        return None
    with reading("mask", path):
        return Mask(torch.from_numpy(read_mask(path)), dtype=torch.uint8)
