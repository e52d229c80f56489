"""Gradient reversal: what comes after it learns something that what comes before it must unlearn.

Paper: Unsupervised domain adaptation by backpropagation, ICML 2015, https://arxiv.org/abs/1409.7495, section 3.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


class GradientReversal(nn.Module):
    """The identity, whose gradient is multiplied by -weight.

    Args:
        weight: lambda of the paper; may be set anew at each step, see :func:`reversal_weight`.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """Give a tensor of any shape as it is."""
        return _Reverse.apply(x, self.weight)


def reversal_weight(progress: float) -> float:
    """Weight that grows from 0 to 1 over a training, as in DANN (https://arxiv.org/abs/1505.07818, section 5.2.2).

    Args:
        progress: Share of the training that is done, in [0, 1].
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1
