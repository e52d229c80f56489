"""Coarse and fine background suppression: eq. 1 and 4 of the one-stage paper, https://doi.org/10.3390/s20071829.

The losses need logarithms. Those of the printed products become log 0 as soon as a pixel saturates, so they are
computed from the logits here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def coarse_logits(stages: Sequence[Tensor]) -> Tensor:
    """Logits of C, eq. 1: the sum of the stages' maps f_k, all of the same shape."""
    return torch.stack(tuple(stages)).sum(0)


def suppress(coarse: Tensor, deepest: Tensor | None, iterations: int) -> Tensor:
    """Compute F, eq. 4: C multiplied pixel by pixel with powers of the sigmoid of f_1.

    Args:
        coarse: Logits of C, shape (B, 1, H, W).
        deepest: f_1, shape (B, 1, H, W); without it, F is C.
        iterations: Number of multiplications; 3 in the paper, and with 0, F is C.

    Returns:
        F, shape (B, 1, H, W), in [0, 1], at most C.
    """
    suppressed = coarse.sigmoid()
    if deepest is None or not iterations:
        return suppressed
    return suppressed * deepest.sigmoid() ** iterations


def log_suppress(coarse: Tensor, deepest: Tensor | None, iterations: int) -> tuple[Tensor, Tensor]:
    """Compute log F and log(1 - F) with finite gradients for any logits.

    1 - F of a product follows from that of one factor fewer: 1 - pq = (1 - p) + p (1 - q).

    Args:
        coarse: As in :func:`suppress`.
        deepest: As in :func:`suppress`.
        iterations: As in :func:`suppress`.
    """
    defect, normal = functional.logsigmoid(coarse), functional.logsigmoid(-coarse)
    if deepest is None:
        return defect, normal
    factor, rest = functional.logsigmoid(deepest), functional.logsigmoid(-deepest)
    for _ in range(iterations):
        normal = torch.logaddexp(normal, defect + rest)
        defect = defect + factor
    return defect, normal
