"""Defect-GAN: adds defects of a chosen type at a chosen location, removes defects, and detects what it would remove."""

from anomalib_defect_plugins.models.defectgan.generator import DefectGanDefects
from anomalib_defect_plugins.models.defectgan.lightning_model import DefectGan
from anomalib_defect_plugins.models.defectgan.torch_model import DefectGanModel, Synthesized
from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

__all__ = ["DefectGan", "DefectGanDefects", "DefectGanModel", "Synthesized"]


@hookimpl
def register_models(register: Register) -> None:
    """Register the model."""
    register(DefectGan)


@hookimpl
def register_defect_generators(register: Register) -> None:
    """Register the generator of defects by a trained model."""
    register(DefectGanDefects, DefectGanDefects.name)
