"""Data of ``gain.py``: Magnetic Tile with some of its defects and additional synthetic training images."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, cast

import pandas as pd
from anomalib.data import AnomalibDataModule
from torch.utils.data import DataLoader

sys.path.append(str(Path(__file__).parents[1]))

from common import data_root

from anomalib_defect_plugins.data import DefectFolder, MagneticTile, WithDefects
from anomalib_defect_plugins.synthesis.folder import synthetic_defects


class Windows(DefectFolder):
    """Windows of ``windows.py``: ``train`` is the training set, ``test``, from other tiles, the test set.

    Args:
        root: Folder with both.
        named: Arguments of ``DefectFolder``.
    """

    def __init__(self, root: Path, **named: Any) -> None:
        super().__init__(root / "train", test_ratio=0, **named)

    def _setup(self, stage: str | None = None) -> None:
        super()._setup(stage)
        others = DefectFolder(Path(self.root).parent / "test", test_ratio=0.99)
        others.setup()
        self.train_defects, self.test_data = self.test_data, others.test_data


class WithFolder(WithDefects):
    """Data module with some or all defects of each type, and the synthetic images of a folder.

    Args:
        base: Data module to take the images from.
        per_type: Number of real defective images of each type; 0 for all.
        per_object: Maximum number of them from one tile.
        seed: Seed of their selection.
        folder: Folder with additional synthetic training images.
    """

    def __init__(
        self, base: AnomalibDataModule, per_type: int, per_object: int | None, seed: int, folder: Path | None = None
    ) -> None:
        amount = {"per_type": per_type, "per_object": per_object} if per_type else {"real": "all"}
        super().__init__(base, **amount, balanced=True, seed=seed)
        self.folder = folder

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader; the synthetic images are added here, after the split has been drawn and saved."""
        if self.folder is not None:
            # The data set of the base can read these files.
            training = cast(Any, self.train_data)
            real = training.dataset
            synthetic = synthetic_defects(self.folder).samples.assign(marked=True, group="synthetic")
            task = real.samples.attrs["task"]
            real.samples = pd.concat([real.samples, synthetic], ignore_index=True)
            real.samples.attrs["task"] = task
            self.train_data, self.folder = type(training)(real, masks=True), None
        return super().train_dataloader()


def make_data(options: Namespace, seed: int, batch_size: int, folder: Path | None = None) -> WithFolder:
    """Create the data module of a seed."""
    named = {"train_batch_size": batch_size, "eval_batch_size": batch_size, "num_workers": options.workers}
    base: AnomalibDataModule
    if options.windows is None:
        base = MagneticTile(data_root("magnetic_tile"), seed=seed, **named)
    else:
        base = Windows(options.windows, seed=seed, **named)
    return WithFolder(base, options.per_type, options.per_object, seed, folder)
