"""Data sets, as anomalib data modules."""

from anomalib_defect_plugins.data.dataset import CheckedDataset, check_samples
from anomalib_defect_plugins.data.datasets.codebrim import Codebrim, CodebrimDataset
from anomalib_defect_plugins.data.datasets.crack_forest import CrackForest, CrackForestDataset
from anomalib_defect_plugins.data.datasets.dagm2007 import Dagm2007, Dagm2007Dataset
from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolder, DefectFolderDataset
from anomalib_defect_plugins.data.datasets.kolektor_sdd import KolektorSdd, KolektorSddDataset
from anomalib_defect_plugins.data.datasets.magnetic_tile import MagneticTile, MagneticTileDataset
from anomalib_defect_plugins.data.datasets.texture_defects import TextureDefects, TextureDefectsDataset
from anomalib_defect_plugins.data.datasets.wood_defects import WoodDefects
from anomalib_defect_plugins.data.with_defects import WithDefects
from anomalib_defect_plugins.data.with_region import WithRegion
from anomalib_defect_plugins.data.with_tiles import WithTiles
from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

__all__ = [
    "CheckedDataset",
    "Codebrim",
    "CodebrimDataset",
    "CrackForest",
    "CrackForestDataset",
    "Dagm2007",
    "Dagm2007Dataset",
    "DefectFolder",
    "DefectFolderDataset",
    "KolektorSdd",
    "KolektorSddDataset",
    "MagneticTile",
    "MagneticTileDataset",
    "TextureDefects",
    "TextureDefectsDataset",
    "WithDefects",
    "WithRegion",
    "WithTiles",
    "WoodDefects",
    "check_samples",
]

_DATA_MODULES = (
    TextureDefects,
    CrackForest,
    KolektorSdd,
    MagneticTile,
    Dagm2007,
    Codebrim,
    WoodDefects,
    DefectFolder,
    WithDefects,
    WithRegion,
    WithTiles,
)


@hookimpl
def register_datamodules(register: Register) -> None:
    """Register the data modules of this package."""
    for cls in _DATA_MODULES:
        register(cls)
