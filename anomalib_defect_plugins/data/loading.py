"""Batches of images of different sizes, and the checks of loader arguments that all data modules share."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, cast

from anomalib.data import AnomalibDataModule, ImageBatch, ImageItem
from anomalib.data.utils import LabelName
from torch import Tensor
from torch.utils.data import DataLoader

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data.dataclasses import DefectBatch, DefectItem, is_mixed, two_sizes
from anomalib_defect_plugins.data.lost_masks import warn_of_lost_masks
from anomalib_defect_plugins.data.mask_batches import apart

LEAST = {"train_batch_size": 1, "eval_batch_size": 1, "num_workers": 0}
"""Lowest value of each loader argument."""

MOST_WORKERS = 8
"""Loading processes of anomalib's data modules."""


def default_workers() -> int:
    """Return the number of loading processes: one for each core but two, which training needs, up to ``MOST_WORKERS``.

    Processes start anew in each epoch: on two cores, training steps on 190 small images took 1.6 s with eight of them
    and 1.1 s with none. Where processes do not inherit memory, as on Windows, they import all libraries again, so there
    are none either.
    """
    starts_by_fork = multiprocessing.get_all_start_methods()[0] == "fork"
    return min(MOST_WORKERS, max(0, (os.cpu_count() or 1) - 2)) if starts_by_fork else 0


class SizeKeepingDataModule(AnomalibDataModule):
    """Base class of data modules whose batches keep the size of each image until the pre-processor resizes it."""

    def setup(self, stage: str | None = None) -> None:
        """Set up the splits, check that there are normal images to train on, and name masks that lose their defect."""
        super().setup(stage)
        model = getattr(self.trainer, "lightning_module", None)
        if model is not None and str(getattr(stage, "value", stage)) == "fit":
            check_normal_images(model, self)
        warn_of_lost_masks(self, stage)

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the training batches."""
        return _size_keeping(super().train_dataloader())

    def val_dataloader(self) -> "DataLoader[Any]":
        """Return the validation batches."""
        return apart(_size_keeping(super().val_dataloader()))

    def test_dataloader(self) -> "DataLoader[Any]":
        """Return the test batches."""
        return apart(_size_keeping(super().test_dataloader()))

    def on_after_batch_transfer(self, batch: object, dataloader_idx: int) -> object:
        """Check that the pre-processor of the model will resize all images of a batch to one size."""
        del dataloader_idx
        if self.trainer is not None and is_mixed(getattr(batch, "image", None)):
            model: Any = self.trainer.lightning_module
            transform = getattr(getattr(model, "pre_processor", None), "transform", None)
            images = cast(Any, batch).image
            check_one_size(transform(images) if transform else images, type(model).__name__)
        return batch


def _size_keeping(loader: Any) -> "DataLoader[Any]":
    loader.collate_fn = keep_sizes(loader.collate_fn)
    return cast("DataLoader[Any]", loader)


def keep_sizes(collate: Callable[..., Any]) -> Callable[..., Any]:
    """Return a collate function that leaves the size of images as it is, in place of anomalib's.

    anomalib's resizes all images of a batch to the size of the largest, so that the result for an image depends on its
    neighbours.

    Args:
        collate: Collate function; one that is not anomalib's is returned unchanged.
    """
    return collate_images if collate == ImageBatch.collate else collate


def collate_images(items: list[ImageItem]) -> ImageBatch:
    """Collate items: as anomalib does if they are its own and have one size, or else into a ``DefectBatch``."""
    is_ours = isinstance(items[0], DefectItem) or is_mixed([item.image for item in items])
    return cast(ImageBatch, (DefectBatch if is_ours else ImageBatch).collate(items))


def check_one_size(images: Tensor | Sequence[Tensor] | None, model: str) -> None:
    """Check that the images of a batch have one size after pre-processing.

    Args:
        images: Images, shape (B, C, H, W), or a list of images, shape (C, H, W).
        model: Name of the model, for the message.

    Raises:
        ConfigurationError: If sizes differ; names two of them.
    """
    if is_mixed(images):
        sizes = two_sizes(cast(Sequence[Tensor], images))
        msg = (
            f"a batch has {sizes}, and the pre-processor of {model} does not resize them to one size: set "
            "train_batch_size and eval_batch_size to 1, or use a pre-processor that does"
        )
        raise ConfigurationError(msg)


def check_loader_arguments(datamodule: AnomalibDataModule) -> None:
    """Check the batch sizes and the number of worker processes of any anomalib data module.

    Args:
        datamodule: Data module; it need not be set up.

    Raises:
        InvalidInputError: If one is not a whole number or too low; names it and its lowest value.
    """
    for name, least in LEAST.items():
        value = getattr(datamodule, name, least)
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            msg = f"{name} is {value!r}; it must be a whole number of at least {least}"
            raise InvalidInputError(msg)


def check_normal_images(model: Any, datamodule: AnomalibDataModule) -> None:
    """Check that the training set has normal images if the model needs them.

    Args:
        model: Model. Of those without ``supervision``, anomalib's, all need them except ``supervised`` ones.
        datamodule: Data module that is set up.

    Raises:
        ConfigurationError: If there are none.
    """
    needs = getattr(model, "supervision", Supervision.PIXEL_MASKS if getattr(model, "supervised", False) else None)
    if needs is Supervision.PIXEL_MASKS or (datamodule.train_data.samples.label_index == LabelName.NORMAL).any():
        return
    msg = (
        f"{model.name} trains on normal images, of which the training split of {datamodule.name} has none: add some, "
        "or choose a model that trains on pixel masks alone; 'anomalib-defects list' shows what each model needs"
    )
    raise ConfigurationError(msg)
