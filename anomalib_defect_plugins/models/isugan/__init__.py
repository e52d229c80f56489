"""ISU-GAN: repairs defects, and finds them by what the repair changed; learns from unpaired, unmasked images."""

from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

from .lightning_model import IsuGan
from .torch_model import IsuGanModel

__all__ = ["IsuGan", "IsuGanModel"]


@hookimpl
def register_models(register: Register) -> None:
    """Register the model."""
    register(IsuGan)
