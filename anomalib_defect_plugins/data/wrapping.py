"""Base class of data modules that wrap another one."""

from typing import Any, ClassVar

from anomalib.data import AnomalibDataModule
from torch.utils.data import DataLoader

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.data.loading import SizeKeepingDataModule, check_loader_arguments
from anomalib_defect_plugins.data.training_set import DefectTraining
from anomalib_defect_plugins.plugins.instantiate import build


class WrappingDataModule(SizeKeepingDataModule):
    """Any data module with a change, whose splits, batches and seed are kept.

    Args:
        base: Data module to wrap: an instance, or a mapping with ``class_path`` and ``init_args``.
        seed: Seed, also of the splits of ``base`` if it has none; by default that of ``base``.

    Attributes:
        order: A data module wraps those of a lower order only.

    Raises:
        ConfigurationError: If ``base`` has to be outside.
    """

    order: ClassVar[int] = 0

    def __init__(self, base: AnomalibDataModule, seed: int | None = None) -> None:
        base = build(AnomalibDataModule, base, "the data module base")  # type: ignore[type-abstract]
        if isinstance(base, WrappingDataModule) and base.order >= max(1, self.order):
            msg = (
                f"{type(self).__name__} wraps {type(base).__name__}; the order is WithTiles, WithRegion, WithDefects, "
            )
            raise ConfigurationError(msg + "and the data innermost")
        if base.seed is None:
            base.seed = seed
        super().__init__(
            train_batch_size=base.train_batch_size,
            eval_batch_size=base.eval_batch_size,
            num_workers=base.num_workers,
            train_augmentations=base.train_augmentations,
            val_augmentations=base.val_augmentations,
            test_augmentations=base.test_augmentations,
            val_split_mode=base.val_split_mode,
            val_split_ratio=base.val_split_ratio,
            test_split_mode=base.test_split_mode,
            test_split_ratio=base.test_split_ratio,
            seed=base.seed if seed is None else seed,
        )
        check_loader_arguments(self)
        self.base = base

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the wrapped data module with the name of the wrapper."""
        return f"{self.base.name}{type(self).__name__}"

    @property  # type: ignore[misc]
    def category(self) -> str:
        """Category of the wrapped data module."""
        return self.base.category

    def prepare_data(self) -> None:
        """Prepare the data of the wrapped data module."""
        self.base.prepare_data()

    def _create_test_split(self) -> None:
        """Keep the split of the wrapped data module."""

    def _create_val_split(self) -> None:
        """Keep the split of the wrapped data module."""


class OuterDataModule(WrappingDataModule):
    """A wrapper that may wrap ``WithDefects``, whose defects, sampling and batches it keeps.

    Its subclasses replace the data sets.

    Args:
        base: As in ``WrappingDataModule``.
        seed: As in ``WrappingDataModule``.
    """

    def __init__(self, base: AnomalibDataModule, seed: int | None = None) -> None:
        super().__init__(base, seed)
        if isinstance(self.base, DefectTraining):
            # Only then, so that a model that needs defects names the missing wrapper.
            self.synthetic = self.base.synthetic
            self.synthetic_ratio = self.base.synthetic_ratio
            self.train_on_real = self.base.train_on_real

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the training batches as the wrapped data module makes them."""
        base = self.base
        base.trainer = self.trainer
        before, base.train_data = base.train_data, self.train_data
        try:
            return base.train_dataloader()  # type: ignore[no-any-return]
        finally:
            base.train_data = before

    def on_after_batch_transfer(self, batch: object, dataloader_idx: int) -> object:
        """Check the sizes of images, and draw the synthetic defects that a batch of ``base`` still needs."""
        super().on_after_batch_transfer(batch, dataloader_idx)
        self.base.trainer = self.trainer
        return self.base.on_after_batch_transfer(batch, dataloader_idx)
