"""Coarse and fine background suppression: eq. 1 and 4 of the one-stage paper, https://doi.org/10.3390/s20071829.

Training needs their logarithms. Those of the printed products end in log 0 as soon as a pixel is sure, so they are
computed from the logits here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def coarse_logits(stages: Sequence[Tensor]) -> Tensor:
    """Give the logits of C, eq. 1: the sum of the stages' maps f_k, all of one shape."""
    return torch.stack(tuple(stages)).sum(0)


def suppress(coarse: Tensor, deepest: Tensor | None, iterations: int) -> Tensor:
    """Give F, eq. 4: C, multiplied pixel by pixel with the sigmoid of f_1, several times.

    Args:
        coarse: Logits of C, (B, 1, H, W).
        deepest: f_1, shaped as ``coarse``; may be ``None`` without iterations.
        iterations: Number of multiplications; 3 is the paper's, without any F is C.

    Returns:
        F, shaped as ``coarse``, in [0, 1], nowhere more than C.
    """
    suppressed = coarse.sigmoid()
    return suppressed * deepest.sigmoid() ** iterations if iterations else suppressed


def log_suppress(coarse: Tensor, deepest: Tensor | None, iterations: int) -> tuple[Tensor, Tensor]:
    """Give log F and log(1 - F) with finite gradients, however sure the network is.

    1 - F of so many factors follows from that of one fewer: 1 - pq = (1 - p) + p (1 - q).

    Args:
        coarse: As in :func:`suppress`.
        deepest: As in :func:`suppress`.
        iterations: As in :func:`suppress`.
    """
    defect, normal = functional.logsigmoid(coarse), functional.logsigmoid(-coarse)
    for _ in range(iterations):
        normal = torch.logaddexp(normal, defect + functional.logsigmoid(-deepest))
        defect = defect + functional.logsigmoid(deepest)
    return defect, normal
