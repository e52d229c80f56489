"""SIDN: semantic information decomposition network, for texture defects."""

from anomalib_defect_plugins.models.sidn.lightning_model import Sidn
from anomalib_defect_plugins.models.sidn.separation import SeparationPlot
from anomalib_defect_plugins.models.sidn.torch_model import SidnModel
from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

__all__ = ["SeparationPlot", "Sidn", "SidnModel"]


@hookimpl
def register_models(register: Register) -> None:
    """Register the model."""
    register(Sidn)
