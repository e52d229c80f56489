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
    ignored: Tensor | None = None,
) -> Tensor:
    """Cross-entropy from log probabilities, eq. 3: mean of -H log F - (1 - H) log(1 - F).

    Args:
        log_defect: log F, shape (B, 1, H, W).
        log_normal: log(1 - F), shape (B, 1, H, W).
        mask: H, shape (B, 1, H, W), 1 on defects.
        counts: Images that count, shape (B,), bool; all by default. The loss is 0 if none does.
        defect_weight: Lowest total weight of the defect pixels of an image that has any, in [0, 1); its other pixels
            have the rest. With 0 all pixels have equal weight, as in the paper.
        ignored: Pixels that do not count, shape (B, 1, H, W), bool; none by default.
    """
    known = torch.ones_like(mask, dtype=torch.bool) if ignored is None else ~ignored
    defect, normal = mask.bool() & known, ~mask.bool() & known
    share = mean_where(defect.float(), known)
    weight = torch.where(share > 0, share.clamp(min=defect_weight), 0)
    losses = -weight * mean_where(log_defect, defect) - (1 - weight) * mean_where(log_normal, normal)
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


def stage_loss(
    logits: Tensor,
    mask: Tensor,
    counts: Tensor | None = None,
    defect_weight: float = 0.0,
    ignored: Tensor | None = None,
) -> Tensor:
    """Loss_k, eq. 2 and 3: cross-entropy of one stage's map with the mask.

    Args:
        logits: f_k, shape (B, 1, H, W).
        mask: As in :func:`cross_entropy`.
        counts: As in :func:`cross_entropy`.
        defect_weight: As in :func:`cross_entropy`.
        ignored: As in :func:`cross_entropy`.
    """
    log_defect, log_normal = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return cross_entropy(log_defect, log_normal, mask, counts, defect_weight, ignored)
