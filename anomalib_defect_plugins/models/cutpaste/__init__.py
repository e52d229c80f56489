"""CutPaste: a one-class classifier on features trained to tell pasted patches from normal texture."""

from anomalib_defect_plugins.models.cutpaste.lightning_model import CutPaste
from anomalib_defect_plugins.models.cutpaste.torch_model import CutPasteModel
from anomalib_defect_plugins.plugins import hookimpl
from anomalib_defect_plugins.plugins.hookspecs import Register

__all__ = ["CutPaste", "CutPasteModel"]


@hookimpl
def register_models(register: Register) -> None:
    """Register the model."""
    register(CutPaste)
