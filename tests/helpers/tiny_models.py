"""The smallest useful models of all methods, and data that all of them train on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule

from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.cutpaste import CutPaste
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.models.sidn import Sidn
from anomalib_defect_plugins.testing import folder_datamodule

CLASSES: dict[str, Callable[..., AnomalibModule]] = {
    "cutpaste": CutPaste,
    "defectgan": DefectGan,
    "htpgan": HtpGan,
    "isugan": IsuGan,
    "onestage": OneStage,
    "sidn": Sidn,
}

SETTINGS: dict[str, dict[str, Any]] = {
    "cutpaste": {
        "image_size": (32, 32),
        "backbone": "test_resnet.r160_in1k",
        "pre_trained": False,
        "iterations": 4,
    },
    "defectgan": {
        "image_size": (32, 32),
        "channels": 2,
        "residual_blocks": 1,
        "batch_size": 2,
        "critic_updates": 2,
        "iterations": 4,
    },
    "htpgan": {"image_size": (32, 32), "num_scales": 2, "min_size": 16, "width": 2, "iterations_per_scale": 4},
    "isugan": {
        "image_size": (32, 32),
        "backbone": None,
        "width": 4,
        "residual_blocks": 0,
        "iterations": 4,
        "batch_size": 2,
    },
    "onestage": {"image_size": (32, 32), "backbone": "test_efficientnet", "iterations": 4},
    "sidn": {"image_size": (32, 32), "backbone": None, "channels": 2, "clusters": 2, "iterations": 4},
}


def make_model(method: str, **arguments: Any) -> AnomalibModule:
    """Return a new model that trains for four steps, or for four per scale."""
    return CLASSES[method](**{**SETTINGS[method], "evaluator": False, "visualizer": False, **arguments})


def make_datamodule(root: Path, batch_size: int = 4) -> AnomalibDataModule:
    """Return a data module with two defective training images.

    Args:
        root: Folder that ``write_folder_data`` has filled.
        batch_size: Batch size of training and evaluation.
    """
    return WithDefects(folder_datamodule(root, batch_size), real=2)
