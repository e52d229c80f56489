"""Unpaired training batches: equal numbers of normal and defective images, whatever their counts in the data."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageItem
from anomalib.data.utils import LabelName
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.data.dataclasses import DefectItem
from anomalib_defect_plugins.data.loading import keep_sizes
from anomalib_defect_plugins.data.training_set import DefectTraining, SyntheticDefects

Pair = tuple[int, int]


class UnpairedSampler(Sampler[Pair]):
    """Samples each normal image once, in random order, with a defective one drawn with replacement.

    Args:
        normal: Indices of the normal images, shape (N,).
        defective: Indices of the defective images, shape (D,).
        weights: Relative probability of each defective image, shape (D,).
        rng: Returns the CPU generator of an epoch.
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


class Pairs(Dataset[tuple[ImageItem, ImageItem]]):
    """Pairs of a normal and a defective sample. An index past the end is a normal sample with a synthetic defect.

    Args:
        dataset: The samples.
        generator: Generator of the synthetic defects, if there are any.
        rank: Rank of the process in distributed training.
    """

    def __init__(self, dataset: AnomalibDataset, generator: DefectGenerator | None, rank: int = 0) -> None:
        self.dataset = dataset
        self.synthetic = None if generator is None else SyntheticDefects(dataset, generator, ratio=1.0, rank=rank)

    def __getitem__(self, pair: Pair) -> tuple[ImageItem, ImageItem]:
        """Load a pair."""
        normal, defective = (self._load(index) for index in pair)
        return normal, defective

    def _load(self, index: int) -> ImageItem:
        if self.synthetic is None:
            return cast(ImageItem, self.dataset[index])
        if index >= len(self.dataset):
            return self.synthetic[index - len(self.dataset)]
        item = cast(DefectItem, self.dataset[index])
        item.needs_synthetic_defect = False  # otherwise it could not be collated with samples that get one
        return item


class PairCollate:
    """Collates pairs into a batch of their first halves, followed by their second ones.

    A class, because functions within functions cannot be sent to spawned worker processes.

    Args:
        collate: Collate function of the samples.
    """

    def __init__(self, collate: Callable[[list[ImageItem]], Any]) -> None:
        self.collate = collate

    def __call__(self, pairs: list[tuple[ImageItem, ImageItem]]) -> Any:
        """Collate pairs."""
        return self.collate([item for half in zip(*pairs, strict=True) for item in half])


class LazyLoader(DataLoader[tuple[ImageItem, ImageItem]]):
    """Draws from its sampler only when the first batch is requested.

    Lightning creates the iterator before it has restored the epoch of a resumed run. Worker processes, which prefetch,
    would get the order of the previous epoch.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch declares a private type
        yield from super().__iter__()


def paired_loader(
    model: str, datamodule: AnomalibDataModule, batch_size: int, rng: Callable[[], torch.Generator], rank: int = 0
) -> LazyLoader:
    """Return batches of normal images followed by as many defective ones; an epoch has each normal image once.

    Real and synthetic defects are drawn in the proportions of the data module's own batches.

    Args:
        model: Name of the model, for the error message.
        datamodule: The data module, set up.
        batch_size: Number of images of each kind in a batch.
        rng: Returns the CPU generator of an epoch.
        rank: Rank of the process in distributed training.

    Raises:
        ConfigurationError: If the training set has no normal image.
    """
    dataset, loader = datamodule.train_data, datamodule.train_dataloader()
    label = dataset.samples.label_index.to_numpy()
    normal, real = (np.flatnonzero(label == kind) for kind in (LabelName.NORMAL, LabelName.ABNORMAL))
    if not len(normal):
        msg = f"{model} needs normal images in the training set; {datamodule.name} has none: add some"
        raise ConfigurationError(msg)
    generator: DefectGenerator | None = None
    ratio = 0.0
    if isinstance(datamodule, DefectTraining):
        generator, ratio = datamodule.synthetic, datamodule.synthetic_ratio
    drawn = normal[:0] if generator is None else normal + len(dataset)
    weights = np.concatenate([np.ones(len(real)), np.full(len(drawn), ratio)])
    return LazyLoader(
        Pairs(dataset, generator, rank),
        batch_size=batch_size,
        sampler=UnpairedSampler(normal, np.concatenate([real, drawn]), weights, rng),
        num_workers=datamodule.num_workers,
        collate_fn=PairCollate(keep_sizes(loader.collate_fn)),
    )


def flip(images: Tensor, rng: torch.Generator) -> Tensor:
    """Randomly flip each image horizontally, vertically or not at all, with equal probability.

    Args:
        images: Images, shape (B, C, H, W).
        rng: CPU generator.
    """
    flips: tuple[list[int], ...] = ([], [-1], [-2])
    choices = torch.randint(3, (len(images),), generator=rng).tolist()
    return torch.stack([image.flip(flips[choice]) for image, choice in zip(images, choices, strict=True)])
