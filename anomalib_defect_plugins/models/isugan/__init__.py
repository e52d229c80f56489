"""ISU-GAN: repairs defects and finds them by what the repair changed; trained on unpaired images without masks."""

from anomalib_defect_plugins.models.isugan.lightning_model import IsuGan
from anomalib_defect_plugins.models.isugan.torch_model import IsuGanModel
from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

__all__ = ["IsuGan", "IsuGanModel"]


@hookimpl
def register_models(register: Register) -> None:
    """Register the model."""
    register(IsuGan)
