"""The data of ``gain.py``: Magnetic Tile with some of its defects, and synthetic images that train beside them."""

import os
from argparse import Namespace
from pathlib import Path

import pandas as pd
from anomalib.data import AnomalibDataModule
from torch.utils.data import DataLoader

from anomalib_defect_plugins.data import DefectFolder, MagneticTile, WithDefects
from anomalib_defect_plugins.synthesis.folder import synthetic_defects


class Windows(DefectFolder):
    """Windows of ``windows.py``: those of ``train`` train, and those of ``test``, which are of other tiles, test.

    Args:
        root: The folder of both.
        named: As for ``DefectFolder``.
    """

    def __init__(self, root: Path, **named: object) -> None:
        super().__init__(root / "train", test_ratio=0, **named)

    def _setup(self, stage: str | None = None) -> None:
        super()._setup(stage)
        others = DefectFolder(Path(self.root).parent / "test", test_ratio=0.99)
        others.setup()
        self.train_defects, self.test_data = self.test_data, others.test_data


class WithFolder(WithDefects):
    """A data module with some defects of each type, or all, and the synthetic images of a folder.

    Args:
        base: The data module.
        per_type: Real defective images of each type; 0 takes all.
        per_object: At most so many of them of a tile.
        seed: Seed of their choice.
        folder: Synthetic images that train too.
    """

    def __init__(
        self, base: AnomalibDataModule, per_type: int, per_object: int | None, seed: int, folder: Path | None = None
    ) -> None:
        amount = {"per_type": per_type, "per_object": per_object} if per_type else {"real": "all"}
        super().__init__(base, **amount, balanced=True, seed=seed)
        self.folder = folder

    def train_dataloader(self) -> DataLoader:
        """Add the synthetic images when the split has been made and written down."""
        if self.folder is not None:
            # The data set of the base reads these files as it reads its own.
            real = self.train_data.dataset
            made = synthetic_defects(self.folder).samples.assign(marked=True, group="synthetic")
            task = real.samples.attrs["task"]
            real.samples = pd.concat([real.samples, made], ignore_index=True)
            real.samples.attrs["task"] = task
            self.train_data, self.folder = type(self.train_data)(real, masks=True), None
        return super().train_dataloader()


def make_data(options: Namespace, seed: int, batch_size: int, folder: Path | None = None) -> WithFolder:
    """Give the data of a seed."""
    named = {"train_batch_size": batch_size, "eval_batch_size": batch_size, "num_workers": options.workers}
    if options.windows is None:
        base = MagneticTile(Path(os.environ["DEFECT_DATA_ROOT"]) / "magnetic_tile", seed=seed, **named)
    else:
        base = Windows(options.windows, seed=seed, **named)
    return WithFolder(base, options.per_type, options.per_object, seed, folder)
