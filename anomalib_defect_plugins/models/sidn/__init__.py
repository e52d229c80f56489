"""SIDN: semantic information decomposition network, for texture defects."""

from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

from .lightning_model import Sidn
from .separation import SeparationPlot
from .torch_model import SidnModel

__all__ = ["SeparationPlot", "Sidn", "SidnModel"]


@hookimpl
def register_models(register: Register) -> None:
    """Register the model."""
    register(Sidn)
