"""The contract of data modules: batches, the sample table, and splits without leaks."""
# ruff: noqa: S101, D102 - these classes consist of asserts, and a test's name is its description

from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from anomalib.data import AnomalibDataModule, ImageBatch
from jsonargparse import ArgumentParser
from pandas import DataFrame
from pandas.testing import assert_frame_equal

COLUMNS = ("image_path", "split", "label", "label_index", "mask_path", "defect_type")
STAGES = ("train", "val", "test")


class DataModuleContract:
    """Tests that every data module must pass.

    Attributes:
        stages: Stages that have data.
        masks: Whether defective images have masks.
    """

    stages: ClassVar[tuple[str, ...]] = STAGES
    masks: ClassVar[bool] = True

    def config(self, root: Path) -> dict[str, Any]:
        """Return ``class_path`` and ``init_args`` as in a configuration file: plain values only.

        Args:
            root: Empty folder for the data, shared by the tests of a class.
        """
        raise NotImplementedError

    def build(self, root: Path) -> AnomalibDataModule:
        """Instantiate the data module from its configuration, as anomalib's command line does, and set it up."""
        parser = ArgumentParser()
        parser.add_subclass_arguments(AnomalibDataModule, "data")
        parsed = parser.parse_object({"data": self.config(root)})
        datamodule = cast(AnomalibDataModule, parser.instantiate_classes(parsed).data)
        datamodule.prepare_data()
        datamodule.setup()
        return datamodule

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Folder of the data."""
        return tmp_path_factory.mktemp("data")

    @pytest.fixture(scope="class")
    @classmethod
    def datamodule(cls, root: Path) -> AnomalibDataModule:
        """Data module that the tests of a class share."""
        return cls().build(root)

    def test_batches_hold_images_labels_and_masks_of_the_image_size(self, datamodule: AnomalibDataModule) -> None:
        for stage in self.stages:
            batch: Any = next(iter(_loader(datamodule, stage)))
            assert isinstance(batch, ImageBatch), stage
            self._check_batch(batch, stage)

    def _check_batch(self, batch: Any, stage: str) -> None:
        # Both a tensor and a list of images of different sizes.
        for image in batch.image:
            assert len(image) == 3, stage
            assert image.is_floating_point(), stage
            assert 0 <= image.min() < image.max() <= 1, stage
        assert batch.gt_label.shape == (len(batch.image),), stage
        if self.masks:
            assert [mask.shape for mask in batch.gt_mask] == [image.shape[1:] for image in batch.image], stage
            assert all(mask.dtype == torch.bool for mask in batch.gt_mask), stage
        else:
            assert batch.gt_mask is None, stage

    def test_defective_images_have_defect_pixels_and_normal_ones_none(self, datamodule: AnomalibDataModule) -> None:
        for stage in self.stages if self.masks else ():
            for batch in _loader(datamodule, stage):
                marked = torch.stack([mask.any() for mask in batch.gt_mask])
                wrong = [
                    path for path, agrees in zip(batch.image_path, marked == batch.gt_label, strict=True) if not agrees
                ]
                assert not wrong, f"{stage}: label and mask disagree on {wrong}"

    def test_table_has_all_columns_and_a_row_for_each_image(self, datamodule: AnomalibDataModule) -> None:
        for stage in self.stages:
            table = _table(datamodule, stage)
            assert len(table) > 0, stage
            assert not set(COLUMNS) - set(table.columns), stage
            assert table.image_path.is_unique, stage
            assert set(table.label_index) <= {0, 1}, stage
            assert (table.groupby("label_index").label.nunique() == 1).all(), f"{stage}: the labels of one index differ"

    def test_defective_images_name_their_mask_file_and_defect_type(self, datamodule: AnomalibDataModule) -> None:
        for stage in self.stages:
            table = _table(datamodule, stage)
            defective = table[table.label_index == 1]
            assert (defective.mask_path.map(lambda path: Path(path).is_file()) == self.masks).all(), stage
            assert defective.defect_type.astype(bool).all(), stage
            assert not set(defective.defect_type) & set(table[table.label_index == 0].defect_type), stage

    def test_batches_have_the_defect_types_of_the_table(self, datamodule: AnomalibDataModule) -> None:
        for stage in self.stages:
            types = _table(datamodule, stage).set_index("image_path").defect_type
            batch = next(iter(_loader(datamodule, stage)))
            assert batch.defect_type == [types[path] for path in batch.image_path], stage

    def test_no_image_is_both_for_training_and_for_test_or_validation(self, datamodule: AnomalibDataModule) -> None:
        train = _table(datamodule, "train")
        for stage in set(self.stages) - {"train"}:
            other = _table(datamodule, stage)
            for column in {"image_path", "group"} & set(train.columns):
                assert not set(train[column]) & set(other[column]), f"{column} is shared by train and {stage}"

    def test_same_configuration_gives_the_same_tables(self, datamodule: AnomalibDataModule, root: Path) -> None:
        again = self.build(root)
        for stage in self.stages:
            assert_frame_equal(_table(again, stage), _table(datamodule, stage))


def _loader(datamodule: AnomalibDataModule, stage: str) -> torch.utils.data.DataLoader[Any]:
    return cast(torch.utils.data.DataLoader[Any], getattr(datamodule, f"{stage}_dataloader")())


def _table(datamodule: AnomalibDataModule, stage: str) -> DataFrame:
    return getattr(datamodule, f"{stage}_data").samples
