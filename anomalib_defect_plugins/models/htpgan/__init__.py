"""HTP-GAN: one-shot surface inspection from a single normal image."""

from collections.abc import Callable

from anomalib_defect_plugins.models.htpgan.lightning_model import HtpGan
from anomalib_defect_plugins.models.htpgan.torch_model import HtpGanModel
from anomalib_defect_plugins.plugins import hookimpl

__all__ = ["HtpGan", "HtpGanModel"]


@hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register HTP-GAN under ``htpgan``."""
    register(HtpGan)
