"""A data set that cannot be downloaded names the address, the folder and its expected content."""

from pathlib import Path
from types import ModuleType

import pytest
from datamodules import error_line, set_up

from anomalib_defect_plugins.core.errors import MissingDataError
from anomalib_defect_plugins.data import CrackForest, KolektorSdd, MagneticTile
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.datasets import crack_forest, kolektor_sdd, magnetic_tile

URL = "http://127.0.0.1:9/archive.zip"


@pytest.mark.parametrize(
    ("module", "datamodule", "layout"),
    [
        (crack_forest, CrackForest, "image/NNN.jpg (001-118 and 201-208) and groundTruth/NNN.mat (001-118)"),
        (kolektor_sdd, KolektorSdd, "kosNN/PartM.jpg and kosNN/PartM_label.bmp for kos01 to kos50 (399 images)"),
        (magnetic_tile, MagneticTile, "MT_Free, MT_Blowhole"),
    ],
)
def test_a_failed_download_names_the_address_and_the_layout(
    module: ModuleType, datamodule: type[DefectDataModule], layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    monkeypatch.setattr(module, "URL", URL)
    message = error_line(lambda: set_up(datamodule(root)), MissingDataError, root)
    assert f"cannot download {URL}" in message
    assert f"ROOT contains {layout}" in message
    assert not root.exists()
