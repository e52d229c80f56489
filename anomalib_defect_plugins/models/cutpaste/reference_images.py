"""The images that a density is fitted to."""

import copy

from anomalib.data.utils import LabelName
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Subset


def normal_images(trainer: Trainer) -> DataLoader:
    """Give batches of the normal training images, in order, read as evaluation images are.

    Args:
        trainer: Its data module is set up. In distributed training each process gets other images.
    """
    datamodule = trainer.datamodule
    dataset = copy.copy(datamodule.train_data)
    evaluation = getattr(datamodule, "test_data", None) or getattr(datamodule, "val_data", None)
    dataset.augmentations = getattr(evaluation, "augmentations", None)
    normal = (dataset.samples.label_index == LabelName.NORMAL).to_numpy().nonzero()[0].tolist()
    return DataLoader(
        Subset(dataset, normal[trainer.global_rank :: trainer.world_size]),
        batch_size=datamodule.eval_batch_size,
        num_workers=datamodule.num_workers,
        collate_fn=dataset.collate_fn,
    )
