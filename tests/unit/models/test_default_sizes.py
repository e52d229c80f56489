"""Models that take their image size from the training images: the size that is trained on, and that is restored."""

from pathlib import Path

import pytest
from anomalib.data import AnomalibDataModule
from tiny_models import CLASSES, SETTINGS

from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.sidn import Sidn
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import Run, fit

SIZES = {"cutpaste": (48, 64), "isugan": (48, 72), "sidn": (48, 64)}
"""Multiples of 16, and of 8 for isugan, that are nearest to 50 x 70."""


@pytest.fixture
def data(tmp_path: Path) -> AnomalibDataModule:
    write_folder_data(tmp_path / "data", (50, 70), normal=2, normal_test=2, defective=3)
    return folder_datamodule(tmp_path / "data", batch_size=2)


def train(method: str, data: AnomalibDataModule, folder: Path, **arguments: object) -> Run:
    settings = {**SETTINGS[method], "iterations": 1, "evaluator": False, "visualizer": False, **arguments}
    settings.pop("image_size", None)
    return fit(CLASSES[method](**settings), data, folder, {})


@pytest.mark.parametrize("method", SIZES)
def test_training_without_an_image_size_uses_that_of_the_images_and_a_checkpoint_restores_it(
    method: str, data: AnomalibDataModule, tmp_path: Path
) -> None:
    data = WithDefects(data, real=1) if method == "isugan" else data
    run = train(method, data, tmp_path / "results")
    assert run.model.image_size == SIZES[method]
    restored = CLASSES[method].load_from_checkpoint(run.checkpoint, map_location="cpu").eval()
    assert restored.image_size == SIZES[method]
    assert restored(run.images()).anomaly_map.shape[-2:] == SIZES[method]


@pytest.mark.parametrize(("crop_size", "crop"), [(32, (32, 32)), (128, (48, 64))])
def test_a_crop_is_limited_to_the_size_of_the_training_images(
    data: AnomalibDataModule, tmp_path: Path, crop_size: int, crop: tuple[int, int]
) -> None:
    run = train("sidn", data, tmp_path / "results", crop_size=crop_size)
    assert isinstance(run.model, Sidn)
    images = run.model.pre_processor.transform(run.images())
    assert run.model.augmentation(images).shape[-2:] == crop
