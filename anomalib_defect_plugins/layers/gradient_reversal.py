"""Gradient reversal, for features that are invariant to what the layers after it learn to predict.

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
    """Identity whose gradient is multiplied by -weight.

    Args:
        weight: The paper's lambda; may be changed at each step, see :func:`reversal_weight`.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of any shape unchanged."""
        result: Tensor = _Reverse.apply(x, self.weight)
        return result


def reversal_weight(progress: float) -> float:
    """Return a weight that grows from 0 to 1 during training, as in https://arxiv.org/abs/1505.07818, section 5.2.2.

    Args:
        progress: Completed fraction of the training, in [0, 1].
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1
