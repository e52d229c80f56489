"""Small data sets and models for the tests of HTP-GAN."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anomalib.data import AnomalibDataModule, Folder
from lightning.pytorch import Callback

from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import Run, fit, seed_all


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the root of a generated data set, in the layout of anomalib's ``Folder``."""
    folder = tmp_path / "data"
    write_folder_data(folder, image_size=(40, 48), normal=4, normal_test=2, defective=2)
    return folder


@pytest.fixture
def datamodule(root: Path) -> Folder:
    """Return its data module; the normal training images are 000.png to 003.png."""
    return folder_datamodule(root)


@pytest.fixture
def tiny() -> Callable[..., HtpGan]:
    """Return a factory of the smallest useful model; keyword arguments override its settings."""

    def build(**arguments: Any) -> HtpGan:
        settings = {"image_size": (24, 32), "num_scales": 2, "min_size": 16, "width": 2, "iterations_per_scale": 2}
        return HtpGan(**settings | {"evaluator": False, "visualizer": False} | arguments)

    return build


@pytest.fixture
def train(tiny: Callable[..., HtpGan], tmp_path: Path) -> Callable[..., Run]:
    """Return a function that trains such a model on a data module."""

    def run(datamodule: AnomalibDataModule, *callbacks: Callback, **arguments: Any) -> Run:
        seed_all(0)
        return fit(tiny(**arguments), datamodule, tmp_path / "results", {}, callbacks)

    return run
