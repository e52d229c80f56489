"""Unpaired training batches: as many defective images as normal ones in each, whatever the data module has of them.

ISU-GAN and Defect-GAN train on them.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageItem
from anomalib.data.utils import LabelName
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.data.training_set import SyntheticDefects

Pair = tuple[int, int]


class PairSampler(Sampler[Pair]):
    """Each normal image once in random order, and for each a defective one, drawn with replacement.

    Args:
        normal: Indices of the normal images.
        defective: Indices of the defective ones.
        weights: How likely each of these is drawn, (D,).
        rng: Gives the source of an epoch's chance, a generator of the CPU.
    """

    def __init__(
        self, normal: np.ndarray, defective: np.ndarray, weights: np.ndarray, rng: Callable[[], torch.Generator]
    ) -> None:
        self.normal = normal
        self.defective = defective
        self.weights = torch.from_numpy(weights)
        self.rng = rng

    def __len__(self) -> int:
        return len(self.normal)

    def __iter__(self) -> Iterator[Pair]:
        rng = self.rng()
        order = torch.randperm(len(self), generator=rng).numpy()
        drawn = torch.multinomial(self.weights, len(self), replacement=True, generator=rng).numpy()
        for one, other in zip(self.normal[order], self.defective[drawn], strict=True):
            yield int(one), int(other)


class Pairs(Dataset):
    """A normal and a defective sample of a data set; an index past its end is a normal sample with a synthetic defect.

    Args:
        dataset: The samples.
        generator: What draws synthetic defects, if there are any.
        rank: Number of the process in distributed training.
    """

    def __init__(self, dataset: AnomalibDataset, generator: DefectGenerator | None, rank: int = 0) -> None:
        self.dataset = dataset
        self.synthetic = None if generator is None else SyntheticDefects(dataset, generator, ratio=1.0, rank=rank)

    def __getitem__(self, pair: Pair) -> tuple[ImageItem, ImageItem]:
        """Read a pair."""
        normal, defective = (self._read(index) for index in pair)
        return normal, defective

    def _read(self, index: int) -> ImageItem:
        if self.synthetic is None:
            return self.dataset[index]
        if index >= len(self.dataset):
            return self.synthetic[index - len(self.dataset)]
        item = self.dataset[index]
        item.wanted = False  # else a batch could not be made of it and one that gets a defect
        return item


class LateLoader(DataLoader):
    """Asks its sampler for nothing before the first batch is wanted.

    Lightning makes the iterator before it knows which epoch a resumed training is in. Processes that read images would
    take the order of the epoch before, for they read ahead.
    """

    def __iter__(self) -> Iterator[object]:
        yield from super().__iter__()


def paired_loader(
    model: str, datamodule: AnomalibDataModule, batch_size: int, rng: Callable[[], torch.Generator], rank: int = 0
) -> DataLoader:
    """Give batches of normal images followed by as many defective ones; an epoch has each normal image once.

    Real and synthetic defects of a ``WithDefects`` are drawn as often as its own batches would hold them.

    Args:
        model: Name of the model, for the message.
        datamodule: The data module, set up.
        batch_size: Images of each kind in a batch.
        rng: Gives the source of an epoch's chance, a generator of the CPU.
        rank: Number of the process in distributed training.

    Raises:
        ConfigurationError: There is no normal image to train with.
    """
    dataset, loader = datamodule.train_data, datamodule.train_dataloader()
    label = dataset.samples.label_index.to_numpy()
    normal, real = (np.flatnonzero(label == kind) for kind in (LabelName.NORMAL, LabelName.ABNORMAL))
    if not len(normal):
        msg = f"{model} needs normal images in the training set; {datamodule.name} has none: add some"
        raise ConfigurationError(msg)
    generator = getattr(datamodule, "synthetic", None)
    drawn = normal[:0] if generator is None else normal + len(dataset)
    ratio = getattr(datamodule, "synthetic_ratio", 0.0)
    weights = np.concatenate([np.ones(len(real)), np.full(len(drawn), ratio)])

    def collate(pairs: list[tuple[ImageItem, ImageItem]]) -> object:
        return loader.collate_fn([item for half in zip(*pairs, strict=True) for item in half])

    return LateLoader(
        Pairs(dataset, generator, rank),
        batch_size=batch_size,
        sampler=PairSampler(normal, np.concatenate([real, drawn]), weights, rng),
        num_workers=datamodule.num_workers,
        collate_fn=collate,
    )


def flip(images: Tensor, rng: torch.Generator) -> Tensor:
    """Leave each image as it is, or flip it horizontally or vertically, all three by equal chance.

    Args:
        images: (B, C, H, W).
        rng: Source of the chance, a generator of the CPU.
    """
    flips = ([], [-1], [-2])
    choices = torch.randint(3, (len(images),), generator=rng).tolist()
    return torch.stack([image.flip(flips[choice]) for image, choice in zip(images, choices, strict=True)])
