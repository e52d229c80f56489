"""Background suppression: eq. 1 and 4 on numbers calculated by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anomalib_defect_plugins.models.onestage.suppression import coarse_logits, log_suppress, suppress

LOGITS = st.lists(st.floats(-60, 60, width=32), min_size=3, max_size=3)


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def test_coarse_map_is_the_sigmoid_of_the_sum_of_the_stages():
    """Eq. 1: odds 2, 3 and 1/2 multiply to 3, so C = 3/4; odds 1/2, 1/3 and 1/4 to 1/24, so C = 1/25."""
    stages = [pixels(math.log(a), math.log(b)) for a, b in ((2, 1 / 2), (3, 1 / 3), (1 / 2, 1 / 4))]
    assert coarse_logits(stages).sigmoid().flatten().tolist() == pytest.approx([3 / 4, 1 / 25])


@pytest.mark.parametrize(("iterations", "expected"), [(0, 0.75), (1, 0.6), (3, 0.384)])
def test_fine_map_is_the_coarse_one_times_powers_of_the_deepest(iterations, expected):
    """Eq. 4 with C = 3/4 and sigmoid(f_1) = 4/5: 0.75, 0.75 * 0.8, 0.75 * 0.512."""
    result = suppress(pixels(math.log(3)), pixels(math.log(4)), iterations)
    assert float(result) == pytest.approx(expected)


def test_without_iterations_the_deepest_map_is_not_needed():
    coarse = torch.randn(2, 1, 4, 4)
    assert torch.equal(suppress(coarse, None, 0), coarse.sigmoid())


@given(LOGITS, st.integers(0, 6))
def test_fine_map_is_nowhere_more_than_the_coarse_one(logits, iterations):
    stages = [pixels(value) for value in logits]
    coarse = coarse_logits(stages)
    assert 0 <= float(suppress(coarse, stages[0], iterations)) <= float(coarse.sigmoid())


def test_suppression_keeps_a_defect_and_shrinks_background():
    """A defect in both maps: 0.99 stays above 0.95. Noise that is low in f_1 (0.1): 0.6 falls to 0.0006."""
    coarse, deepest = pixels(0.99, 0.6).logit(), pixels(0.99, 0.1).logit()
    defect, noise = suppress(coarse, deepest, 3).flatten().tolist()
    assert defect == pytest.approx(0.99**4)
    assert defect > 0.95
    assert noise == pytest.approx(0.0006)


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_logarithms_are_those_of_the_map_and_of_its_complement(iterations):
    coarse, deepest = (torch.linspace(-3, 3, 7).double().reshape(1, 1, 1, 7).roll(shift, -1) for shift in (0, 2))
    result = suppress(coarse, deepest, iterations)
    log_defect, log_normal = log_suppress(coarse, deepest, iterations)
    assert torch.allclose(log_defect, result.log())
    assert torch.allclose(log_normal, (1 - result).log())


@given(LOGITS, st.integers(0, 6))
def test_logarithms_and_their_gradients_are_finite_for_saturated_logits(logits, iterations):
    stages = [pixels(10 * value).requires_grad_() for value in logits]
    for logarithm in log_suppress(coarse_logits(stages), stages[0], iterations):
        gradients = torch.autograd.grad(logarithm.sum(), stages, retain_graph=True)
        assert logarithm.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_saturated_false_alarm_still_has_a_gradient():
    """At f_1 = f_2 = f_3 = 40, F rounds to 1 and the printed log(1 - F) to minus infinity."""
    stages = [pixels(40.0).requires_grad_() for _ in range(3)]
    _, log_normal = log_suppress(coarse_logits(stages), stages[0], 3)
    # 1 - F = 3 exp(-40) to first order (the coarse term exp(-120) is negligible).
    assert float(log_normal) == pytest.approx(math.log(3) - 40, rel=1e-5)
    (gradient,) = torch.autograd.grad(log_normal.sum(), stages[:1])
    assert float(gradient) == pytest.approx(-1, rel=1e-5)
