"""Base class of the data modules of published data sets."""

from pathlib import Path

import numpy as np
from anomalib.data import AnomalibDataset
from anomalib.data.utils import ValSplitMode
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset
from anomalib.utils.path import resolve_dataset_root
from torchvision.transforms.v2 import Transform

from anomalib_defect_plugins.data.loading import SizeKeepingDataModule, check_loader_arguments, default_workers
from anomalib_defect_plugins.data.sample_table import split_by_group


class DefectDataModule(SizeKeepingDataModule):
    """Base class of data modules that keep the published split.

    A subclass sets ``train_data`` and ``test_data`` in ``_setup``. Defective images of a published training split go to
    ``train_defects``: models train on normal images, unless ``WithDefects`` adds the defective ones.

    Args:
        root: Folder of the data set; ``None`` for a folder named after the class in anomalib's data set folder.
        train_batch_size: Training batch size, at least 1. The default lets recipes train in minutes on two CPU cores;
            anomalib's data modules use 32.
        eval_batch_size: Validation and test batch size, at least 1.
        num_workers: Number of data loading processes; 0 loads in the process that trains. ``None`` selects one for each
            core but two, up to 8, and 0 on Windows and macOS, where starting them in each epoch takes long.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations for the stages that have none of their own.
        val_split_mode: Source of the validation images. The default is ``same_as_test``, as in anomalib for data sets
            without validation images; thresholds fitted to them have then seen the test labels. With ``none``,
            ``from_train`` or ``synthetic`` they have not.
        val_split_ratio: Share of validation images, for modes that split; images of one object stay together.
        seed: Seed of the validation split; ``None`` for that of torch, which ``--seed_everything`` sets.

    Raises:
        InvalidInputError: If a batch size or ``num_workers`` is not a whole number or too low.
    """

    train_defects: AnomalibDataset | None = None
    """Defective images of the published training split, with their masks."""

    def __init__(
        self,
        root: Path | str | None = None,
        train_batch_size: int = 8,
        eval_batch_size: int = 8,
        num_workers: int | None = None,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=default_workers() if num_workers is None else num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        check_loader_arguments(self)
        self.root = resolve_dataset_root(root, type(self).__name__)

    def _create_test_split(self) -> None:
        """Keep the published test split."""

    def _create_val_split(self) -> None:
        if "group" not in self.train_data.samples:
            super()._create_val_split()
        elif self.val_split_mode == ValSplitMode.FROM_TEST:
            self.test_data, self.val_data = split_by_group(self.test_data, self.val_split_ratio, self.seed)
        elif self.val_split_mode == ValSplitMode.FROM_TRAIN:
            self.val_data = self._hold_out_from_train()
        elif self.val_split_mode == ValSplitMode.SYNTHETIC:
            self.val_data = SyntheticAnomalyDataset.from_dataset(self._hold_out_from_train())
        else:
            super()._create_val_split()

    def _hold_out_from_train(self) -> AnomalibDataset:
        """Move the normal images of some objects out of training, and remove defective images of these objects."""
        self.train_data, held_out = split_by_group(self.train_data, self.val_split_ratio, self.seed)
        if self.train_defects is not None:
            kept = ~self.train_defects.samples.group.isin(held_out.samples.group)
            self.train_defects = self.train_defects.subsample(list(np.flatnonzero(kept)))
        return held_out
