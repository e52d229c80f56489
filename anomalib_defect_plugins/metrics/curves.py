"""anomalib's areas under curves, computed from scores on any scale.

torchmetrics applies a sigmoid to scores outside [0, 1], such as those of a model without thresholds. Large scores all
become 1 then, and their order is lost. Where all labels are equal, it returns 0 for an area that is not defined. It is
NaN here.
"""

from typing import Any

import torch
from anomalib.metrics import AnomalibMetric
from anomalib.metrics.aupr import _AUPR
from anomalib.metrics.auroc import _AUROC
from anomalib.metrics.precision_recall_curve import BinaryPrecisionRecallCurve
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn


class _RawAUROC(_AUROC):
    update = BinaryPrecisionRecallCurve.update

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the area, a float scalar in [0, 1], or NaN if all labels are equal."""
        return _nan(self) if len(_labels(self)) == 1 else super().compute()


class _RawAUPR(_AUPR):
    update = BinaryPrecisionRecallCurve.update

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the area, a float scalar in [0, 1], or NaN if there is no defect."""
        return _nan(self) if _labels(self) == {0} else super().compute()


def _labels(metric: Any) -> set[int]:
    """Return the labels that occur, of 0 and 1."""
    if metric.thresholds is None:
        target = dim_zero_cat(metric.target)
        return {int(target.min()), int(target.max())}
    return set(metric.confmat[0].sum(1).nonzero().flatten().tolist())


def _nan(metric: Any) -> Tensor:
    label = "defective" if _labels(metric) == {1} else "normal"
    name = getattr(metric, "name", type(metric).__name__)
    rank_zero_warn(f"{name} is not defined, since everything that was tested is labelled {label}", UserWarning)
    return torch.tensor(torch.nan, device=metric.device)


class AUROC(AnomalibMetric, _RawAUROC):  # type: ignore[misc]
    """Area under the ROC curve of scores or maps on any scale; the arguments are those of anomalib's metric."""


class AUPR(AnomalibMetric, _RawAUPR):  # type: ignore[misc]
    """Area under the precision-recall curve of scores or maps on any scale; the arguments are those of anomalib's."""
