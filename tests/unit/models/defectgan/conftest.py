"""Fixtures for the tests of Defect-GAN: a small data set and small models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anomalib.data import Folder

from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a generated data set in the layout of anomalib's ``Folder``: 6 + 2 normal images, 4 defective."""
    folder = tmp_path_factory.mktemp("defectgan")
    write_folder_data(folder, image_size=(40, 48), normal=6, normal_test=2, defective=4)
    return folder


@pytest.fixture
def folder(root: Path) -> Folder:
    """Data module of the data set, without defects in training."""
    return folder_datamodule(root)


@pytest.fixture
def tiny() -> Callable[..., DefectGan]:
    """Factory of minimal models, which takes further arguments of the model."""

    def create(**arguments: Any) -> DefectGan:
        defaults: dict[str, Any] = {"image_size": (32, 36), "channels": 4, "residual_blocks": 1, "batch_size": 2}
        defaults |= {"iterations": 4, "critic_updates": 2, "evaluator": False, "visualizer": False}
        return DefectGan(**defaults | arguments)

    return create
