"""Trainer callback for batches of images of different sizes."""

import copy
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from anomalib_defect_plugins.data.loading import check_one_size, keep_sizes


class MixedSizes(Callback):
    """Makes the pre-processor resize each image from its own size, whatever data module or loader it comes from.

    The strategy's ``process_dataloader`` is the last method that gets each loader of each stage, after Lightning has
    created loaders again with its own samplers, and before it creates iterators and worker processes.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace anomalib's collate function in all loaders of this run."""
        del pl_module, stage
        self._restore(trainer)
        # An instance attribute shadows the method of the class until teardown removes it.
        strategy = vars(trainer.strategy)
        strategy["process_dataloader"] = _SizeKeeping(trainer.strategy.process_dataloader)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the strategy."""
        del pl_module, stage
        self._restore(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the strategy."""
        del pl_module, exception
        self._restore(trainer)

    @staticmethod
    def _restore(trainer: Trainer) -> None:
        vars(trainer.strategy).pop("process_dataloader", None)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Check that the pre-processor has resized all images to one size."""
        del trainer, batch_idx, dataloader_idx
        check_one_size(getattr(batch, "image", None), type(pl_module).__name__)

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = on_train_batch_start


class _SizeKeeping:
    """Replaces the collate function of a loader, without changing an object of the user.

    Args:
        process: ``process_dataloader`` of the strategy.
    """

    def __init__(self, process: Callable[[object], object]) -> None:
        self.process = process

    def __call__(self, loader: object) -> object:
        """Process a loader."""
        if isinstance(loader, DataLoader) and loader.collate_fn != keep_sizes(loader.collate_fn):
            loader = copy.copy(loader)
            loader._iterator = None  # persistent workers have the former collate function
            loader.collate_fn = keep_sizes(loader.collate_fn)
        return self.process(loader)
