"""anomalib's areas under curves, computed from scores on any scale.

torchmetrics applies a sigmoid to scores outside [0, 1], such as those of a model without thresholds. Large scores all
become 1 then, and their order is lost.
"""

from anomalib.metrics import AnomalibMetric
from anomalib.metrics.aupr import _AUPR
from anomalib.metrics.auroc import _AUROC
from anomalib.metrics.precision_recall_curve import BinaryPrecisionRecallCurve


class _RawAUROC(_AUROC):
    update = BinaryPrecisionRecallCurve.update


class _RawAUPR(_AUPR):
    update = BinaryPrecisionRecallCurve.update


class AUROC(AnomalibMetric, _RawAUROC):  # type: ignore[misc]
    """Area under the ROC curve of scores or maps on any scale; the arguments are those of anomalib's metric."""


class AUPR(AnomalibMetric, _RawAUPR):  # type: ignore[misc]
    """Area under the precision-recall curve of scores or maps on any scale; the arguments are those of anomalib's."""
