"""Metrics for the evaluator of any anomalib model, in Python or a configuration file.

>>> from anomalib.metrics import Evaluator
>>> from anomalib_defect_plugins.metrics import DefectIoU, MeanIoU, PixelAccuracy
>>> evaluator = Evaluator(test_metrics=[DefectIoU(), MeanIoU(), PixelAccuracy()])

They compare ``pred_mask`` with ``gt_mask`` by default; set ``fields`` for other fields of the batch.
"""

from anomalib_defect_plugins.metrics.segmentation import DefectIoU, MeanIoU, PixelAccuracy

__all__ = ["DefectIoU", "MeanIoU", "PixelAccuracy"]
