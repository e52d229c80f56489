"""What our models share that make their own training batches and draw their own chance."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from anomalib_defect_plugins.models.components.callbacks import TeardownOnFailure
from anomalib_defect_plugins.models.components.checkpoint_io import Checkpointed


class OwnBatches(Checkpointed):
    """Comes before ``AnomalibModule`` among the bases of a model, which registers the buffer ``seed`` as -1.

    Attributes:
        seed: Seed of all chance, fixed when training starts and kept in checkpoints.
    """

    seed: torch.Tensor
    _replaced: dict[str, Any] | None = None

    def use_loader(self, loader: DataLoader) -> None:
        """Put a loader in the place of the data module's training batches, until training ends or fails."""
        datamodule = self.trainer.datamodule
        # An attribute of the instance stands before the class's method, until teardown takes it away.
        self._replaced = {name: value for name, value in vars(datamodule).items() if name == "train_dataloader"}
        datamodule.train_dataloader = lambda: loader

    def teardown(self, stage: str) -> None:
        """Give the data module its own training batches back."""
        if stage == "fit" and self._replaced is not None:
            attributes = vars(self.trainer.datamodule)
            attributes.pop("train_dataloader", None)
            attributes.update(self._replaced)
            self._replaced = None

    def configure_callbacks(self) -> Sequence[Callback]:
        """Add a teardown that failures do not skip."""
        return [*super().configure_callbacks(), TeardownOnFailure()]

    def on_fit_start(self) -> None:
        """Fix the seed, unless a checkpoint has brought it."""
        if self.seed < 0:
            self.seed.fill_(torch.initial_seed() % 2**62)

    def rng(self, *numbers: int) -> torch.Generator:
        """Give a source of chance that depends on the seed and these numbers alone, so a resumed run repeats it."""
        mixed = np.random.SeedSequence((int(self.seed), *numbers)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(mixed[0]))
