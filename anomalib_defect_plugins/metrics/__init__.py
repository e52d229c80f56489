"""Metrics for the evaluator of any anomalib model, in Python or a configuration file.

>>> from anomalib.metrics import Evaluator
>>> from anomalib_defect_plugins.metrics import DefectIoU, MeanIoU, PixelAccuracy
>>> evaluator = Evaluator(test_metrics=[DefectIoU(), MeanIoU(), PixelAccuracy()])

They compare ``pred_mask`` with ``gt_mask`` by default; set ``fields`` for other fields of the batch. ``AUROC`` and
``AUPR`` take the place of anomalib's where scores may be outside [0, 1].
"""

from anomalib_defect_plugins.metrics.curves import AUPR, AUROC
from anomalib_defect_plugins.metrics.segmentation import DefectIoU, MeanIoU, PixelAccuracy

__all__ = ["AUPR", "AUROC", "DefectIoU", "MeanIoU", "PixelAccuracy"]
