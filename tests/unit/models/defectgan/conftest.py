"""Small data and small models for the tests of Defect-GAN."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anomalib.data import Folder

from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a generated data set, in the layout of anomalib's ``Folder``: 6 + 2 normal images, 4 defective."""
    folder = tmp_path_factory.mktemp("defectgan")
    write_folder_data(folder, image_size=(40, 48), normal=6, normal_test=2, defective=4)
    return folder


@pytest.fixture
def folder(root: Path) -> Folder:
    """The data module on it, without defects in training."""
    return folder_datamodule(root)


@pytest.fixture
def tiny() -> Callable[..., DefectGan]:
    """Makes the smallest model that makes sense, with any argument otherwise."""

    def make(**arguments: Any) -> DefectGan:
        settings = {"image_size": (32, 36), "channels": 4, "residual_blocks": 1, "iterations": 4, "critic_updates": 2}
        return DefectGan(**settings | {"batch_size": 2, "evaluator": False, "visualizer": False} | arguments)

    return make
