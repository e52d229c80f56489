"""Images that the density is fitted to."""

import copy
from typing import Any, cast

from anomalib.data import AnomalibDataModule
from anomalib.data.utils import LabelName
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Subset

from anomalib_defect_plugins.data.loading import keep_sizes
from anomalib_defect_plugins.models.components.checks import datamodule_of


def normal_images(trainer: Trainer, part: slice = slice(None)) -> "DataLoader[Any]":
    """Return a loader of the normal training images, in order and with the augmentations of evaluation images.

    Without normal images, it loads the defective ones, whose masks leave a normal background.

    Args:
        trainer: Trainer whose data module is set up. In distributed training each process gets different images.
        part: Which of the images to load.
    """
    datamodule = cast(AnomalibDataModule, datamodule_of(trainer))
    dataset = copy.copy(datamodule.train_data)
    evaluation = getattr(datamodule, "test_data", None) or getattr(datamodule, "val_data", None)
    dataset.augmentations = getattr(evaluation, "augmentations", None)
    is_normal = (dataset.samples.label_index == LabelName.NORMAL).to_numpy()
    normal = is_normal.nonzero()[0].tolist() or list(range(len(is_normal)))
    return DataLoader(
        Subset(dataset, normal[part][trainer.global_rank :: trainer.world_size]),
        batch_size=datamodule.eval_batch_size,
        num_workers=datamodule.num_workers,
        collate_fn=keep_sizes(dataset.collate_fn),
    )
