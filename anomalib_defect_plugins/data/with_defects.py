"""``WithDefects``: puts real and synthetic defects into the training split of any anomalib data module."""

import logging
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, cast

import pandas as pd
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName, ValSplitMode
from torch.utils.data import DataLoader, WeightedRandomSampler

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data.dataclasses import DefectBatch, DefectItem
from anomalib_defect_plugins.data.defect_selection import Amount, select
from anomalib_defect_plugins.data.split_file import read_split, write_split
from anomalib_defect_plugins.data.training_set import SyntheticDefects, TrainingSet, draw_wanted, with_defect_types
from anomalib_defect_plugins.plugins.instantiate import build

logger = logging.getLogger(__name__)

SPLIT_FILE = "split.csv"
"""Name of the file that a training leaves beside its results."""

Split = dict[str, set[str]]
"""Paths of the images by the name of the split."""


class WithDefects(AnomalibDataModule):
    """Any data module, with defects in its training split: real ones, synthetic ones or both.

    Real ones are the defective images of the published training split where the data module has them
    (``train_defects``). Otherwise they are moved over from the test split, with all images of the same object where the
    data module knows objects; the normal ones of these train too. No image is in two splits afterwards. Images whose
    mask was published empty (column ``marked`` of the table) are not taken where masks are wanted.

    To compare kinds of supervision, ``train_on_real=False`` leaves the real ones out of every split and changes nothing
    else: with the same seed, all are tested with the same images, whichever of them train. Which they are depends on
    the data and ``seed`` alone.

    Synthetic ones are drawn on normal training images on the fly, others in each epoch, on the training device where
    the generator can. A training leaves its split as ``split.csv`` beside its results.

    Args:
        base: The data module: an instance, or a mapping with ``class_path`` and ``init_args``.
        real: How many real defective images train: a number, a share in (0, 1], or ``all``.
        per_type: Instead of ``real``: how many of each defect type.
        per_object: At most so many of each object, where the data module knows objects: 40 defects of 40 parts teach
            more than 40 photographs of seven. By default objects are taken whole, which leaves most to test with.
        train_on_real: Whether the real ones train; if not, they are but kept out of validation and test.
        balanced: Whether training draws defective images as often as normal ones, however few there are. An epoch has
            as many images as without; they are drawn with replacement.
        masks: Whether the defects in training come with pixel masks, or with their image label only.
        synthetic: Generator of synthetic defects: an instance, a name such as ``cutpaste``, or a mapping.
        synthetic_ratio: Share of the normal training images that get a synthetic defect, in (0, 1].
        split_file: A ``split.csv`` of a former run, whose split is repeated; ``real``,
            ``per_type`` and ``per_object`` are left out.
        seed: Seed of the choice, and of the splits of ``base`` if it has none.

    Raises:
        InvalidInputError: An argument cannot be; more defects are asked for than there are.
        ConfigurationError: Masks are asked for that the data does not have.
    """

    def __init__(
        self,
        base: AnomalibDataModule,
        real: Amount = 0,
        per_type: int | None = None,
        per_object: int | None = None,
        train_on_real: bool = True,
        balanced: bool = False,
        masks: bool = True,
        synthetic: DefectGenerator | str | None = None,
        synthetic_ratio: float = 0.5,
        split_file: Path | str | None = None,
        seed: int = 0,
    ) -> None:
        base = build(AnomalibDataModule, base, "the data module base")  # type: ignore[type-abstract]
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
            seed=seed,
        )
        if not 0 < synthetic_ratio <= 1:
            msg = f"synthetic_ratio is {synthetic_ratio}; it must be in (0, 1]"
            raise InvalidInputError(msg)
        if split_file is not None and (real or per_type or per_object):
            msg = f"split_file {split_file} says which defects train: leave out real, per_type and per_object"
            raise InvalidInputError(msg)
        self.base = base
        self.real = real
        self.per_type = per_type
        self.per_object = per_object
        self.train_on_real = train_on_real
        self.balanced = balanced
        self.masks = masks
        self.synthetic: DefectGenerator | None = None
        if synthetic is not None:
            self.synthetic = build(DefectGenerator, synthetic, "the generator synthetic")  # type: ignore[type-abstract]
        self.synthetic_ratio = synthetic_ratio
        self.split_file = split_file

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the base, marked."""
        return f"{self.base.name}WithDefects"

    @property  # type: ignore[misc]
    def category(self) -> str:
        """Category of the base."""
        return self.base.category

    def prepare_data(self) -> None:
        """Let the base prepare its data."""
        self.base.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Set the splits up; before a training, write them beside its results."""
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
        split = self._choose() if self.split_file is None else read_split(Path(self.split_file), self._images())
        datasets = self._datasets()
        if not self.train_on_real:
            split["train"] -= _defective(datasets)
        self._check_masks(datasets, split["train"])
        self.train_data = TrainingSet(_gather(datasets, split["train"]), self.masks)
        self.test_data = _gather(datasets[::-1], split["test"])
        if hasattr(self.base, "val_data"):
            self.val_data = self.base.val_data if self._own_validation else _gather(datasets[1:], split["val"])

    def _create_test_split(self) -> None:
        """The base has made it."""

    def _create_val_split(self) -> None:
        """The base has made it."""

    @property
    def _own_validation(self) -> bool:
        """Whether validation images are made for each run, so that no other split can hold them."""
        return self.val_split_mode == ValSplitMode.SYNTHETIC

    def _datasets(self) -> list[AnomalibDataset]:
        """Everything that the base has, training first and test last."""
        base = self.base
        val = None if self._own_validation else getattr(base, "val_data", None)
        found = [base.train_data, getattr(base, "train_defects", None), val, base.test_data]
        return [dataset for dataset in found if dataset is not None]

    def _images(self) -> list[str]:
        return sorted({path for dataset in self._datasets() for path in dataset.samples.image_path})

    def _tables(self) -> dict[str, pd.DataFrame]:
        names = ["train", "test"] if self._own_validation or not hasattr(self, "val_data") else ["train", "val", "test"]
        return {name: with_defect_types(getattr(self, f"{name}_data").samples) for name in names}

    def _choose(self) -> Split:
        """Choose what trains; everything else stays where the base has it."""
        base = self.base
        split = {
            name: set(getattr(base, f"{name}_data").samples.image_path) if hasattr(base, f"{name}_data") else set()
            for name in ("train", "val", "test")
        }
        published = getattr(base, "train_defects", None)
        table = with_defect_types((base.test_data if published is None else published).samples)
        defects = table[table.label_index == LabelName.ABNORMAL]
        if self.masks and "marked" in defects:
            defects = defects[defects.marked]
        source = f"the {'test' if published is None else 'training'} split of {base.name}"
        chosen = select(defects, self.real, self.per_type, cast(int, self.seed), source, self.per_object)
        split["train"].update(chosen)
        if chosen and published is None:
            self._leave_evaluation(split, chosen)
        return split

    def _leave_evaluation(self, split: Split, chosen: list[str]) -> None:
        """Take what was chosen, and all else of the same objects, out of validation and test."""
        table = pd.concat([dataset.samples for dataset in self._datasets()]).drop_duplicates("image_path")
        table = table.set_index("image_path")
        leaving = set(table.index[table.group.isin(table.group[chosen])]) if "group" in table else set(chosen)
        split["train"] |= leaving & set(table.index[table.label_index == LabelName.NORMAL])
        split["val"] -= leaving
        split["test"] -= leaving
        if not (table.label_index[list(split["test"])] == LabelName.ABNORMAL).any():
            logger.warning("all defective images of %s train, so none is left to test", self.base.name)

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
        """Give the training batches, with synthetic defects or marked to get them."""
        dataset: Any = self.train_data
        if self.synthetic is not None:
            rank = 0 if self.trainer is None else self.trainer.global_rank
            dataset = SyntheticDefects(dataset, self.synthetic, self.synthetic_ratio, rank)
        sampler = self._sampler() if self.balanced else None
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
        """Draw the synthetic defects that the batch is to get, on the device that it is on now."""
        del dataloader_idx
        if isinstance(batch, DefectBatch) and batch.wanted is not None and self.synthetic is not None:
            rank = 0 if self.trainer is None else self.trainer.global_rank
            draw_wanted(batch, self.synthetic, rank)
        return batch


def _defective(datasets: Sequence[AnomalibDataset]) -> set[str]:
    """Give the paths of all defective images."""
    table = pd.concat([dataset.samples for dataset in datasets])
    return set(table.image_path[table.label_index == LabelName.ABNORMAL])


def _gather(datasets: Sequence[AnomalibDataset], wanted: set[str]) -> AnomalibDataset:
    """Put the wanted images together, each from the first data set that has it."""
    parts, missing = [], set(wanted)
    for dataset in datasets:
        rows = [row for row, path in enumerate(dataset.samples.image_path) if path in missing]
        missing -= set(dataset.samples.image_path)
        if rows:
            parts.append(dataset.subsample(rows))
    try:
        return reduce(add, parts) if parts else datasets[0].subsample([])
    except TypeError as error:
        kinds = " and ".join(sorted({type(part).__name__ for part in parts}))
        msg = f"images of {kinds} cannot be in one split: choose another test_split_mode of the base"
        raise ConfigurationError(msg) from error
