"""Small data for the tests of HTP-GAN."""

from pathlib import Path

import pytest
from anomalib.data import Folder

from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder of a generated data set, in the layout of anomalib's ``Folder``."""
    folder = tmp_path / "data"
    write_folder_data(folder, image_size=(40, 48), normal=4, normal_test=2, defective=2)
    return folder


@pytest.fixture
def datamodule(root: Path) -> Folder:
    """The data module on it; its normal training images are called 000.png to 003.png."""
    return folder_datamodule(root)
