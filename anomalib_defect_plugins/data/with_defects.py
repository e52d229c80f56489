"""``WithDefects`` adds real and synthetic defects to the training split of any anomalib data module."""

import logging
from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, cast

import pandas as pd
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName, ValSplitMode
from torch.utils.data import DataLoader, WeightedRandomSampler

from anomalib_defect_plugins.core.checks import check_fraction, check_positive
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.data.dataclasses import DefectBatch, DefectItem
from anomalib_defect_plugins.data.defect_selection import Amount, select
from anomalib_defect_plugins.data.split_file import SPLIT_FILE, read_split, write_split
from anomalib_defect_plugins.data.stock_datasets import checked
from anomalib_defect_plugins.data.training_set import (
    SyntheticDefects,
    TrainingSet,
    draw_missing_defects,
    published_defects,
    with_defect_types,
)
from anomalib_defect_plugins.data.wrapping import WrappingDataModule
from anomalib_defect_plugins.generators.mixed import build_generator

logger = logging.getLogger(__name__)

Split = dict[str, set[str]]
"""Image paths by name of the split."""


class WithDefects(WrappingDataModule):
    """Any data module with real or synthetic defects, or both, in its training split.

    Real defects are the defective images of the published training split where the data module has them
    (``train_defects``). Otherwise they are moved from the test split, together with all images of the same objects
    where the data module knows objects; normal images of these objects are trained on too. No image is in two splits.
    Images whose mask is empty or not known (column ``marked`` of the table) are not used for training with masks.

    To compare kinds of supervision, ``train_on_real=False`` removes the real defects from training and keeps them out
    of validation and test, so that all runs with one seed are tested on the same images. The selection depends on the
    data and ``seed`` only.

    Synthetic defects are drawn on normal training images on the fly, different ones in each epoch, on the training
    device if the generator supports it. Training writes its split to ``split.csv`` beside its results.

    Args:
        base: Data module to wrap: an instance, or a mapping with ``class_path`` and ``init_args``.
        real: Real defective images to train on: a number, a share in (0, 1], or ``all``.
        per_type: Minimum number of real defective images of each type, instead of ``real``.
        per_object: Maximum number of real defective images of each object, where the data module knows objects: 40
            defects of 40 parts teach more than 40 photographs of seven. By default objects are taken whole, which
            leaves the most to test with.
        train_on_real: Whether to train on the real defects; if not, they are only kept out of validation and test.
        held_out: Number or share of real defective images to keep out of validation and test, at least ``real``, which
            is a part of them: runs with 5, 10 and 20 of ``held_out=40`` are tested on the same images. By default as
            many as ``real``. Published training defects are in no other split, so it has no effect on them.
        balanced: Whether to draw defective images as often as normal ones, with replacement, where the training split
            has both. The number of images per epoch does not change.
        masks: Whether defective training images have pixel masks or only an image label.
        synthetic: Generator of synthetic defects: an instance, a name such as ``perturb``, a mapping, or a list, each
            of which draws a part of the defects.
        synthetic_ratio: Share of the normal training images that get a synthetic defect, in (0, 1].
        split_file: ``split.csv`` of an earlier run whose split is repeated, instead of ``real``, ``per_type``,
            ``per_object`` and ``held_out``.
        seed: Seed of the selection, and of the splits of ``base`` if it has no seed.
        normal: Number of normal images to train on, the first ones by path, to compare methods that learn from one or a
            few; by default all. The others are in no split.

    Raises:
        InvalidInputError: If an argument is invalid or there are fewer defects than requested.
        ConfigurationError: If the data has no masks but ``masks`` is true.
    """

    def __init__(
        self,
        base: AnomalibDataModule,
        real: Amount = 0,
        per_type: int | None = None,
        per_object: int | None = None,
        train_on_real: bool = True,
        held_out: Amount | None = None,
        balanced: bool = True,
        masks: bool = True,
        synthetic: DefectGenerator | str | Sequence[DefectGenerator | str] | None = None,
        synthetic_ratio: float = 0.5,
        split_file: Path | str | None = None,
        seed: int = 0,
        normal: int | None = None,
    ) -> None:
        super().__init__(base, seed)
        check_fraction("synthetic_ratio", synthetic_ratio, one=True)
        if split_file is not None and (real or per_type or per_object or held_out):
            msg = f"split_file {split_file} selects the images: leave out real, per_type, per_object and held_out"
            raise InvalidInputError(msg)
        if per_type and held_out is not None:
            msg = f"per_type is {per_type} and held_out is {held_out}: use held_out with real"
            raise InvalidInputError(msg)
        self.real = real
        self.per_type = per_type
        self.per_object = per_object
        self.train_on_real = train_on_real
        self.held_out = held_out
        self.balanced = balanced
        self.masks = masks
        self.synthetic: DefectGenerator | None = None
        if synthetic is not None:
            self.synthetic = build_generator(synthetic, "the generator synthetic")
        self.synthetic_ratio = synthetic_ratio
        self.split_file = split_file
        check_positive(normal=1 if normal is None else normal)
        self.normal = normal

    def setup(self, stage: str | None = None) -> None:
        """Set up the splits; for training, write them beside its results."""
        super().setup(stage)
        trainer = self.trainer
        if (
            trainer is not None
            and trainer.training
            and trainer.is_global_zero
            and not getattr(trainer, "fast_dev_run", False)
        ):
            write_split(Path(trainer.default_root_dir) / SPLIT_FILE, self._tables(), self._images())

    def _setup(self, stage: str | None = None) -> None:
        self.base.setup(stage)
        split = self._select() if self.split_file is None else self._read_split(Path(self.split_file))
        datasets = self._datasets()
        if not self.train_on_real:
            split["train"] -= _defective_paths(datasets)
        if self.normal is not None:
            split["train"] -= self._surplus(datasets, split["train"])
        self._check_masks(datasets, split["train"])
        self.train_data = TrainingSet(checked(_gather(datasets, split["train"])), self.masks)
        self.test_data = checked(_gather(datasets[::-1], split["test"]))
        if self._has_validation:
            self.val_data = checked(_gather([*datasets[1:], datasets[0]], split["val"]))
        elif hasattr(self.base, "val_data"):
            self.val_data = self.base.val_data

    def _surplus(self, datasets: Sequence[AnomalibDataset], training: set[str]) -> set[str]:
        """Return the paths of the normal training images beyond the first ``normal`` ones."""
        normal = sorted(training - _defective_paths(datasets))
        if len(normal) < cast(int, self.normal):
            found = counted(len(normal), "normal image")
            msg = f"normal is {self.normal}, but the training split of {self.base.name} has {found}"
            raise InvalidInputError(msg)
        return set(normal[self.normal :])

    @property
    def _has_synthetic_validation(self) -> bool:
        """Whether validation images are generated for each run, so that no other split can contain them."""
        return self.val_split_mode == ValSplitMode.SYNTHETIC

    @property
    def _has_validation(self) -> bool:
        """Whether there are validation images that are images of the data."""
        return hasattr(self.base, "val_data") and not self._has_synthetic_validation

    def _datasets(self) -> list[AnomalibDataset]:
        """All data sets of the wrapped data module, training first and test last."""
        base = self.base
        val = None if self._has_synthetic_validation else getattr(base, "val_data", None)
        datasets = [base.train_data, published_defects(base), val, base.test_data]
        return [dataset for dataset in datasets if dataset is not None]

    def _images(self) -> list[str]:
        return sorted({path for dataset in self._datasets() for path in dataset.samples.image_path})

    def _tables(self) -> dict[str, pd.DataFrame]:
        names = ["train", "val", "test"] if self._has_validation else ["train", "test"]
        return {name: with_defect_types(getattr(self, f"{name}_data").samples) for name in names}

    def _select(self) -> Split:
        """Add the selected defects to the training split of the wrapped data module."""
        base = self.base
        split = {
            name: set(getattr(base, f"{name}_data").samples.image_path) if hasattr(base, f"{name}_data") else set()
            for name in ("train", "val", "test")
        }
        published = published_defects(base)
        table = with_defect_types((base.test_data if published is None else published).samples)
        defects = table[table.label_index == LabelName.ABNORMAL]
        source = f"the {'test' if published is None else 'training'} split of {base.name}"
        if self.masks and "marked" in defects and not defects.marked.all():
            defects = defects[defects.marked]
            source += ", of images with masks,"
        of_seed = partial(select, defects, seed=cast(int, self.seed), source=source, per_object=self.per_object)
        selected = of_seed(self.real, self.per_type)
        split["train"].update(selected)
        if published is None:
            held_out = selected if self.held_out is None else of_seed(self.held_out, None, name="held_out")
            if len(held_out) < len(selected):
                msg = f"held_out is {self.held_out}, less than real, {self.real}, which is a part of it; increase it"
                raise InvalidInputError(msg)
            self._move_to_training(split, held_out)
        return split

    def _read_split(self, path: Path) -> Split:
        """Read the split of an earlier run. Older ones of benchmarks have no validation images."""
        samples = pd.concat([with_defect_types(dataset.samples) for dataset in self._datasets()])
        split = {"test": set[str](), **read_split(path, self._images(), samples)}
        if not self._has_validation and split.get("val", split["test"]) != split["test"]:
            mode = getattr(self.val_split_mode, "value", self.val_split_mode)
            msg = f"split file {path} names validation images, but val_split_mode {mode} uses none; set that of its run"
            raise InvalidInputError(msg)
        if self._has_validation and "val" not in split:
            validation, test = (set(data.samples.image_path) for data in (self.base.val_data, self.base.test_data))
            split["val"] = split["test"] if validation == test else validation - split["train"] - split["test"]
        return split

    def _move_to_training(self, split: Split, selected: list[str]) -> None:
        """Remove the selected images, and all others of the same objects, from validation and test."""
        if not selected:
            return
        table = pd.concat([dataset.samples for dataset in self._datasets()]).drop_duplicates("image_path")
        table = table.set_index("image_path")
        moved = set(table.index[table.group.isin(table.group[selected])]) if "group" in table else set(selected)
        split["train"] |= moved & set(table.index[table.label_index == LabelName.NORMAL])
        split["val"] -= moved
        split["test"] -= moved
        if not (table.label_index[list(split["test"])] == LabelName.ABNORMAL).any():
            logger.warning(
                "all defective images of %s are kept out of the test split, so none is left to test", self.base.name
            )

    def _check_masks(self, datasets: Sequence[AnomalibDataset], training: set[str]) -> None:
        if not self.masks:
            return
        for dataset in datasets:
            table = dataset.samples
            defects = table[table.image_path.isin(training) & (table.label_index == LabelName.ABNORMAL)]
            without = defects if dataset.task == TaskType.CLASSIFICATION else defects[~defects.mask_path.astype(bool)]
            if len(without):
                msg = f"{self.base.name} has no mask of {without.image_path.iloc[0]}: pass --data.masks false"
                raise ConfigurationError(msg)

    def train_dataloader(self) -> DataLoader[DefectItem]:
        """Return the training batches, whose images have their synthetic defects or are marked to get one."""
        dataset: Any = self.train_data
        if self.synthetic is not None:
            rank = 0 if self.trainer is None else self.trainer.global_rank
            dataset = SyntheticDefects(dataset, self.synthetic, self.synthetic_ratio, rank)
        is_mixed_split = self.train_data.samples.label_index.nunique() > 1
        sampler = self._sampler() if self.balanced and is_mixed_split else None
        return DataLoader(
            dataset,
            shuffle=sampler is None,
            sampler=sampler,
            batch_size=self.train_batch_size,
            num_workers=self.num_workers,
            collate_fn=self.external_collate_fn or DefectBatch.collate,
        )

    def _sampler(self) -> WeightedRandomSampler:
        label = self.train_data.samples.label_index
        return WeightedRandomSampler((1 / label.map(label.value_counts())).tolist(), len(label))

    def on_after_batch_transfer(self, batch: object, dataloader_idx: int) -> object:
        """Draw the synthetic defects that a batch still needs, on its device."""
        super().on_after_batch_transfer(batch, dataloader_idx)
        if isinstance(batch, DefectBatch) and batch.needs_synthetic_defect is not None and self.synthetic is not None:
            rank = 0 if self.trainer is None else self.trainer.global_rank
            draw_missing_defects(batch, self.synthetic, rank)
        return batch


def _defective_paths(datasets: Sequence[AnomalibDataset]) -> set[str]:
    table = pd.concat([dataset.samples for dataset in datasets])
    return set(table.image_path[table.label_index == LabelName.ABNORMAL])


def _gather(datasets: Sequence[AnomalibDataset], paths: set[str]) -> AnomalibDataset:
    """Collect images, each from the first data set that contains it, in one data set."""
    subsets, missing = [], set(paths)
    for dataset in datasets:
        rows = [row for row, path in enumerate(dataset.samples.image_path) if path in missing]
        missing -= set(dataset.samples.image_path)
        if rows:
            subsets.append(dataset.subsample(rows))
    try:
        return reduce(add, subsets) if subsets else datasets[0].subsample([])
    except TypeError as error:
        names = " and ".join(sorted({type(subset).__name__ for subset in subsets}))
        msg = f"images of {names} cannot be in one split: choose another test_split_mode of the base"
        raise ConfigurationError(msg) from error
