"""The cross-entropy of the one-stage paper, eq. 3, as a mean over the pixels of the images that count."""

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(
    log_defect: Tensor,
    log_normal: Tensor,
    mask: Tensor,
    counts: Tensor | None = None,
    defect_weight: float | None = None,
) -> Tensor:
    """Eq. 3, from logarithms of the predicted share: mean of -H log F - (1 - H) log(1 - F).

    Args:
        log_defect: log F, (B, 1, H, W).
        log_normal: log(1 - F), (B, 1, H, W).
        mask: H, (B, 1, H, W), 1 on defects.
        counts: (B,), bool: the images that count, all by default. If none does, the loss is 0.
        defect_weight: Weight, in (0, 1), of the mean over the defect pixels of an image; what is left to 1 is that of
            the mean over its other pixels. By default each pixel counts alike, as in the paper.
    """
    mask = mask.bool()
    if defect_weight is None:
        of_images = -torch.where(mask, log_defect, log_normal).flatten(1).mean(1)
    else:
        defect, normal = mean_where(log_defect, mask), mean_where(log_normal, ~mask)
        of_images = -defect_weight * defect - (1 - defect_weight) * normal
    if counts is None:
        return of_images.mean()
    return (of_images * counts).sum() / counts.sum().clamp(min=1)


def mean_where(values: Tensor, places: Tensor) -> Tensor:
    """Give the mean of each image's values at some places, (B,), 0 where it has none.

    Args:
        values: (B, 1, H, W).
        places: The same, bool.
    """
    chosen = torch.where(places, values, 0)
    return chosen.flatten(1).sum(1) / places.flatten(1).sum(1).clamp(min=1)


def stage_loss(
    logits: Tensor, mask: Tensor, counts: Tensor | None = None, defect_weight: float | None = None
) -> Tensor:
    """Loss_k, eq. 2 and 3: the cross-entropy of one stage's map with the mask.

    Args:
        logits: f_k, (B, 1, H, W).
        mask: As in :func:`cross_entropy`.
        counts: As in :func:`cross_entropy`.
        defect_weight: As in :func:`cross_entropy`.
    """
    return cross_entropy(functional.logsigmoid(logits), functional.logsigmoid(-logits), mask, counts, defect_weight)
