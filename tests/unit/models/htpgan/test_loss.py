"""Losses of HTP-GAN against values calculated by hand: log(1 + e) = 1.313262 and log(1 + 1/e) = 0.313262."""

import math

import pytest
import torch

from anomalib_defect_plugins.models.htpgan.loss import discriminator_loss, generator_loss


def logits(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("real", "fake", "share", "expected"),
    [
        (0.0, 0.0, 0.0, 2 * math.log(2)),
        (0.0, 0.0, 0.7, 2 * math.log(2)),  # the loss of an uninformed discriminator does not depend on the target
        (1.0, -1.0, 0.0, 0.313262 + 0.313262),
        (-1.0, 1.0, 0.0, 1.313262 + 1.313262),
        (1.0, -1.0, 1.0, 0.313262 + 1.313262),  # the "generated" pixel is real
        (1.0, -1.0, 0.25, 0.313262 + 0.25 * 1.313262 + 0.75 * 0.313262),
    ],
)
def test_discriminator_loss_is_the_cross_entropy_of_real_and_generated_pixels(real, fake, share, expected):
    loss = discriminator_loss(logits(real), logits(fake), logits(share))
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_discriminator_loss_is_the_mean_over_pixels():
    loss = discriminator_loss(logits(1, -1), logits(-1, -1), logits(0, 1))
    assert float(loss) == pytest.approx((0.313262 + 1.313262) / 2 + (0.313262 + 1.313262) / 2, abs=1e-5)


@pytest.mark.parametrize(("fake", "expected"), [(0.0, math.log(2)), (-1.0, 1.313262), (1.0, 0.313262)])
def test_generator_loss_is_the_cross_entropy_with_real(fake, expected):
    assert float(generator_loss(logits(fake))) == pytest.approx(expected, abs=1e-5)


def test_generator_loss_does_not_saturate_where_the_discriminator_is_certain():
    fake = logits(-30.0).requires_grad_()
    generator_loss(fake).backward()
    assert float(fake.grad) == pytest.approx(-1.0, abs=1e-5)


def test_losses_of_extreme_logits_are_finite():
    assert float(discriminator_loss(logits(-500.0), logits(500.0), logits(0.0))) == pytest.approx(1000)
    assert float(generator_loss(logits(-500.0))) == pytest.approx(500)
