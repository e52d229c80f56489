"""Gradient reversal: the identity in the forward pass, -lambda times the gradient in the backward pass."""

import math

import pytest
import torch

from anomalib_defect_plugins.layers import GradientReversal, reversal_weight


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_gradient_is_minus_lambda_times_that_of_the_identity(weight: float) -> None:
    x = torch.randn(3, 5, requires_grad=True)
    other = torch.randn(3, 5)
    result = GradientReversal(weight)(x)
    assert torch.equal(result, x)
    (result * other).sum().backward()
    assert torch.equal(x.grad, -weight * other)


def test_the_weight_can_be_changed_between_steps() -> None:
    x, layer = torch.ones(1, requires_grad=True), GradientReversal()
    layer.weight = 0.25
    layer(x).sum().backward()
    assert x.grad.item() == -0.25


def test_the_weight_grows_from_0_to_1_as_in_dann() -> None:
    assert reversal_weight(0) == 0
    # 2 / (1 + e^-5) - 1 = tanh(2.5)
    assert reversal_weight(0.5) == pytest.approx(math.tanh(2.5))
    assert 0.9999 < reversal_weight(1) < 1
