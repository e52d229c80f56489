"""Base classes of data sets and data modules that change the items of another one."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from anomalib.data import AnomalibDataset

from anomalib_defect_plugins.data.dataclasses import DefectBatch, DefectItem


class WrappedDataset(AnomalibDataset):
    """The samples of any anomalib data set, whose rows are indices into it.

    Args:
        dataset: Data set to wrap.
    """

    def __init__(self, dataset: AnomalibDataset) -> None:
        super().__init__(augmentations=dataset.augmentations)
        self.dataset = dataset
        # The setter of ``samples`` would sort the table, but its rows are indices into ``dataset``.
        self._samples = dataset.samples.copy()
        self._category = dataset.category

    @property
    def name(self) -> str:
        """Name of the wrapped data set."""
        return self.dataset.name

    @property
    def collate_fn(self) -> Callable[..., Any]:
        """Function that collates items into a ``DefectBatch``."""
        return DefectBatch.collate

    def load_whole(self, index: int) -> Any:
        """Load a sample of the wrapped data set without augmentations."""
        self.dataset.augmentations = None
        return self.dataset[index]


def innermost(dataset: AnomalibDataset) -> AnomalibDataset:
    """Return the data set that reads the files."""
    while isinstance(dataset, WrappedDataset):
        dataset = dataset.dataset
    return dataset


def defect_item(item: Any, **changes: Any) -> DefectItem:
    """Return an ``ImageItem`` of any data set with changed fields and, if it has no mask, an empty ``mask_path``."""
    values = {field.name: getattr(item, field.name) for field in fields(item)}
    values["mask_path"] = item.mask_path if isinstance(item.mask_path, str) else ""
    return DefectItem(**{**values, **changes})


def subset_names(datamodule: Any, names: Sequence[str] = ("train", "val", "test")) -> list[str]:
    """Return the names of the splits that a data module has."""
    return [name for name in names if getattr(datamodule, f"{name}_data", None) is not None]
