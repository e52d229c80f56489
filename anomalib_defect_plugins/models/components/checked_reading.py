"""Trainer callback that has the readers of this package read the data of anomalib's data modules and loaders."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader

from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.core.value_range import warn_of_little_range
from anomalib_defect_plugins.data.stock_datasets import checked
from anomalib_defect_plugins.models.components.checks import datamodule_of

SUBSETS = ("train_data", "val_data", "test_data")


class CheckedReading(Callback):
    """Replaces anomalib's data sets, so that a model predicts on the same pixels that it was trained on.

    The data module keeps the new ones. A loader is replaced by a copy for this run.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace the data sets before loaders start, and warn of images that use little of their range."""
        datamodule = datamodule_of(trainer)
        for name in SUBSETS:
            if getattr(datamodule, name, None) is not None:
                setattr(datamodule, name, checked(getattr(datamodule, name)))
        for source in _sources(trainer):
            source.instance = apply_to_collection(source.instance, DataLoader, _checked_loader)
        if trainer.is_global_zero and stage in {"fit", "predict"}:
            warn_of_little_range(_images(trainer, () if stage == "predict" else _looked_at(pl_module)))


def _sources(trainer: Trainer) -> Iterator[Any]:
    """Iterate over the places where Lightning keeps loaders that it was passed; there is no public access to them."""
    validation = trainer.fit_loop.epoch_loop.val_loop
    for loop in (trainer.fit_loop, validation, trainer.validate_loop, trainer.test_loop, trainer.predict_loop):
        if not loop._data_source.is_module():
            yield loop._data_source


def _checked_loader(loader: "DataLoader[Any]") -> "DataLoader[Any]":
    """Return the loader, or a copy of it with another data set."""
    dataset = checked(loader.dataset)
    if dataset is loader.dataset:
        return loader
    loader = copy.copy(loader)
    vars(loader)["dataset"] = dataset  # assignment is refused, because a sampler might not fit another data set
    loader._iterator = None  # persistent workers have the former data set
    return loader


def _looked_at(model: LightningModule) -> tuple[str, ...]:
    """Return the subsets whose images are looked at: a model of one image opens no other one of training."""
    return SUBSETS[1:] if getattr(model, "supervision", None) is Supervision.ONE_SHOT else SUBSETS


def _images(trainer: Trainer, subsets: Sequence[str]) -> Iterator[str]:
    """Iterate over the image files of some subsets of the data module, and of all loaders."""
    datasets = [getattr(datamodule_of(trainer), name, None) for name in subsets]
    loaders: list[DataLoader[Any]] = []
    for source in _sources(trainer):
        apply_to_collection(source.instance, DataLoader, loaders.append)
    for dataset in [*datasets, *(loader.dataset for loader in loaders)]:
        paths = getattr(dataset, "image_filenames", None)
        yield from map(str, getattr(dataset, "samples", {}).get("image_path", ()) if paths is None else paths)
