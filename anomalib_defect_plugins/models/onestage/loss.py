"""The cross-entropy of the one-stage paper, eq. 3, as a mean over the pixels of the images that count."""

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(log_defect: Tensor, log_normal: Tensor, mask: Tensor, counts: Tensor | None = None) -> Tensor:
    """Eq. 3, from logarithms of the predicted share: mean of -H log F - (1 - H) log(1 - F).

    Args:
        log_defect: log F, (B, 1, H, W).
        log_normal: log(1 - F), (B, 1, H, W).
        mask: H, (B, 1, H, W), 1 on defects.
        counts: (B,), bool: the images that count, all by default. If none does, the loss is 0.
    """
    of_images = -torch.where(mask.bool(), log_defect, log_normal).flatten(1).mean(1)
    if counts is None:
        return of_images.mean()
    return (of_images * counts).sum() / counts.sum().clamp(min=1)


def stage_loss(logits: Tensor, mask: Tensor, counts: Tensor | None = None) -> Tensor:
    """Loss_k, eq. 2 and 3: the cross-entropy of one stage's map with the mask.

    Args:
        logits: f_k, (B, 1, H, W).
        mask: As in :func:`cross_entropy`.
        counts: As in :func:`cross_entropy`.
    """
    return cross_entropy(functional.logsigmoid(logits), functional.logsigmoid(-logits), mask, counts)
