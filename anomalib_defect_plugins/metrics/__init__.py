"""Metrics for the evaluator of any anomalib model, in Python or a configuration file.

>>> from anomalib.metrics import Evaluator
>>> from anomalib_defect_plugins.metrics import DefectIoU, MeanIoU, PixelAccuracy
>>> evaluator = Evaluator(test_metrics=[DefectIoU(), MeanIoU(), PixelAccuracy()])

They compare ``pred_mask`` with ``gt_mask`` by default; set ``fields`` for other fields of the batch. ``AUROC`` and
``AUPR`` take the place of anomalib's where scores may be outside [0, 1].
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomalib_defect_plugins.metrics.curves import AUPR, AUROC
    from anomalib_defect_plugins.metrics.segmentation import DefectIoU, MeanIoU, PixelAccuracy

__all__ = ["AUPR", "AUROC", "DefectIoU", "MeanIoU", "PixelAccuracy"]


def __getattr__(name: str) -> object:
    """Import a metric on first use: the statistics of operating points need neither torch nor anomalib."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module = "curves" if name in {"AUPR", "AUROC"} else "segmentation"
    globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return globals()[name]
