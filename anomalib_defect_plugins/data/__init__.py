"""Data sets, as anomalib data modules."""

from anomalib_defect_plugins.data.base import CheckedDataset, check_samples
from anomalib_defect_plugins.data.codebrim import Codebrim, CodebrimDataset
from anomalib_defect_plugins.data.crack_forest import CrackForest, CrackForestDataset
from anomalib_defect_plugins.data.defect_folder import DefectFolder, DefectFolderDataset
from anomalib_defect_plugins.data.supervision import WithDefects
from anomalib_defect_plugins.data.texture_defects import TextureDefects, TextureDefectsDataset
from anomalib_defect_plugins.data.wood_defects import WoodDefects
from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

__all__ = [
    "CheckedDataset",
    "Codebrim",
    "CodebrimDataset",
    "CrackForest",
    "CrackForestDataset",
    "DefectFolder",
    "DefectFolderDataset",
    "TextureDefects",
    "TextureDefectsDataset",
    "WithDefects",
    "WoodDefects",
    "check_samples",
]


@hookimpl
def register_datamodules(register: Register) -> None:
    """Register the data modules of this package."""
    for cls in (TextureDefects, CrackForest, Codebrim, DefectFolder, WoodDefects, WithDefects):
        register(cls)
