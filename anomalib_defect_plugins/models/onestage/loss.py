"""Cross-entropy of the one-stage paper, eq. 3, as a mean over the pixels of the images that count."""

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(
    log_defect: Tensor,
    log_normal: Tensor,
    mask: Tensor,
    counts: Tensor | None = None,
    defect_weight: float = 0.0,
) -> Tensor:
    """Cross-entropy from log probabilities, eq. 3: mean of -H log F - (1 - H) log(1 - F).

    Args:
        log_defect: log F, shape (B, 1, H, W).
        log_normal: log(1 - F), shape (B, 1, H, W).
        mask: H, shape (B, 1, H, W), 1 on defects.
        counts: Images that count, shape (B,), bool; all by default. The loss is 0 if none does.
        defect_weight: Lowest total weight of the defect pixels of an image that has any, in [0, 1); its other pixels
            have the rest. With 0 all pixels have equal weight, as in the paper.
    """
    mask = mask.bool()
    share = mask.flatten(1).float().mean(1)
    weight = torch.where(share > 0, share.clamp(min=defect_weight), 0)
    losses = -weight * mean_where(log_defect, mask) - (1 - weight) * mean_where(log_normal, ~mask)
    if counts is None:
        return losses.mean()
    return (losses * counts).sum() / counts.sum().clamp(min=1)


def mean_where(values: Tensor, region: Tensor) -> Tensor:
    """Mean of each image over a region, shape (B,); 0 where the region is empty.

    Args:
        values: Values, shape (B, 1, H, W).
        region: Pixels to average over, shape (B, 1, H, W), bool.
    """
    selected = torch.where(region, values, 0)
    return selected.flatten(1).sum(1) / region.flatten(1).sum(1).clamp(min=1)


def stage_loss(logits: Tensor, mask: Tensor, counts: Tensor | None = None, defect_weight: float = 0.0) -> Tensor:
    """Loss_k, eq. 2 and 3: cross-entropy of one stage's map with the mask.

    Args:
        logits: f_k, shape (B, 1, H, W).
        mask: As in :func:`cross_entropy`.
        counts: As in :func:`cross_entropy`.
        defect_weight: As in :func:`cross_entropy`.
    """
    return cross_entropy(functional.logsigmoid(logits), functional.logsigmoid(-logits), mask, counts, defect_weight)
