"""OneStage: one-stage segmenter with dual background suppression, for a few defects with pixel masks."""

from anomalib_defect_plugins.models.onestage.lightning_model import OneStage
from anomalib_defect_plugins.models.onestage.torch_model import OneStageModel
from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

__all__ = ["OneStage", "OneStageModel"]


@hookimpl
def register_models(register: Register) -> None:
    """Register the model."""
    register(OneStage)
