"""Cross-entropy of the one-stage paper, eq. 3, as a weighted mean over the pixels of the images that count."""

import torch
from torch import Tensor
from torch.nn import functional


def pixel_weights(
    mask: Tensor, counts: Tensor | None = None, defect_weight: float = 0.0, ignored: Tensor | None = None
) -> Tensor:
    """Compute the weight of each pixel in the losses; those of an image that counts sum to 1 / number of such images.

    Args:
        mask: H, shape (B, 1, H, W), bool, true on defects.
        counts: Images that count, shape (B,), bool; all by default. All weights are 0 if none does.
        defect_weight: Lowest total weight of the defect pixels of an image that has any, in [0, 1); its other pixels
            have the rest. With 0 all pixels have equal weight, as in the paper.
        ignored: Pixels that do not count, shape (B, 1, H, W), bool; none by default.

    Returns:
        Weights, shape (B, 1, H, W), float.
    """
    known = torch.ones_like(mask) if ignored is None else ~ignored
    defects, normal = _count(mask & known), _count(~mask & known)
    share = defects / (defects + normal).clamp(min=1)
    share = torch.where(defects > 0, share.clamp(min=defect_weight), 0)
    weights = torch.where(mask, share / defects.clamp(min=1), (1 - share) / normal.clamp(min=1)) * known
    images = torch.ones(len(mask), device=mask.device) if counts is None else counts.float()
    return weights * (images / images.sum().clamp(min=1))[:, None, None, None]


def _count(region: Tensor) -> Tensor:
    return region.sum((1, 2, 3), keepdim=True)


def cross_entropy(log_defect: Tensor, log_normal: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy from log probabilities, eq. 3: weighted sum of -H log F - (1 - H) log(1 - F).

    Args:
        log_defect: log F, shape (B, 1, H, W).
        log_normal: log(1 - F), shape (B, 1, H, W).
        mask: H, shape (B, 1, H, W), bool, true on defects.
        weights: See :func:`pixel_weights`.
    """
    return -(weights * torch.where(mask, log_defect, log_normal)).sum()


def stage_loss(logits: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Loss_k, eq. 2 and 3: cross-entropy of one stage's map with the mask.

    Args:
        logits: f_k, shape (B, 1, H, W).
        mask: As in :func:`cross_entropy`.
        weights: See :func:`pixel_weights`.
    """
    return functional.binary_cross_entropy_with_logits(logits, mask.to(logits.dtype), weights, reduction="sum")
