"""Batches of images that all have a mask, or all have none, so that a batch has a ``gt_mask`` or not."""

from collections.abc import Iterator, Sized
from typing import Any, cast

from anomalib import TaskType
from anomalib.data.utils import LabelName
from torch.utils.data import BatchSampler, DataLoader, Sampler


class MaskBatches(BatchSampler):
    """Batches of images with a mask, and of defective images without one.

    Args:
        sampler: Sampler of the rows of a data set.
        batch_size: Maximum number of images of a batch.
        drop_last: As in torch.
    """

    def __iter__(self) -> Iterator[list[int]]:
        """Yield a batch once it is full, the others at the end."""
        lacks = lacking_masks(_dataset(self.sampler))
        batches: tuple[list[int], list[int]] = ([], [])
        for row in self.sampler:
            batch = batches[row in lacks]
            batch.append(row)
            if len(batch) == self.batch_size:
                yield list(batch)
                batch.clear()
        yield from [batch for batch in batches if batch and not self.drop_last]

    def __len__(self) -> int:
        """Return the number of batches, of which an incomplete one of each kind may be among."""
        rows = list(self.sampler)
        lacks = lacking_masks(_dataset(self.sampler))
        counts = (sum(row in lacks for row in rows), sum(row not in lacks for row in rows))
        return sum(count // self.batch_size + bool(count % self.batch_size and not self.drop_last) for count in counts)


def lacking_masks(dataset: Any) -> set[int]:
    """Return the rows of defective images without a mask in a data set where others have one."""
    table = getattr(dataset, "samples", None)
    if table is None or "mask_path" not in table or table.attrs.get("task") != TaskType.SEGMENTATION:
        return set()
    lacks = (table.label_index == LabelName.ABNORMAL) & ~table.mask_path.fillna("").astype(bool)
    return set(lacks.to_numpy().nonzero()[0].tolist())


def apart(loader: "DataLoader[Any]") -> "DataLoader[Any]":
    """Return a loader of evaluation images whose batches have all masks or none."""
    if not lacking_masks(loader.dataset):
        return loader
    batches = MaskBatches(cast(Sampler[int], loader.sampler), cast(int, loader.batch_size), loader.drop_last)
    return DataLoader(
        loader.dataset, batch_sampler=batches, num_workers=loader.num_workers, collate_fn=loader.collate_fn
    )


def _dataset(sampler: Any) -> Sized:
    """Return the data set of torch's sequential sampler, or of a distributed one."""
    return cast(Sized, getattr(sampler, "data_source", None) or getattr(sampler, "dataset", None))
