"""Fixtures for the tests of ISU-GAN: a small data set and small models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anomalib.data import Folder

from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a generated data set in the layout of anomalib's ``Folder``: 6 + 2 normal images, 4 defective."""
    folder = tmp_path_factory.mktemp("isugan")
    write_folder_data(folder, image_size=(40, 48), normal=6, normal_test=2, defective=4)
    return folder


@pytest.fixture
def folder(root: Path) -> Folder:
    """Data module of the data set, without defects in training."""
    return folder_datamodule(root)


@pytest.fixture
def tiny() -> Callable[..., IsuGan]:
    """Factory of minimal models, which takes further arguments of the model."""

    def create(**arguments: Any) -> IsuGan:
        defaults: dict[str, Any] = {
            "image_size": (24, 32),
            "backbone": None,
            "layers": False,
            "paired_weight": 0.0,
            "width": 4,
            "residual_blocks": 1,
            "involution": False,
        }
        defaults |= {"iterations": 4, "evaluator": False, "visualizer": False}
        return IsuGan(**defaults | arguments)

    return create
