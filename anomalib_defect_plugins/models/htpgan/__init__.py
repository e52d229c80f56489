"""HTP-GAN: one-shot surface inspection from a single normal image."""

from anomalib_defect_plugins.models.htpgan.lightning_model import HtpGan
from anomalib_defect_plugins.models.htpgan.torch_model import HtpGanModel
from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

__all__ = ["HtpGan", "HtpGanModel"]


@hookimpl
def register_models(register: Register) -> None:
    """Register the model."""
    register(HtpGan)
