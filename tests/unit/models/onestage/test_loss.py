"""Cross-entropy of eq. 2 and 3 on numbers calculated by hand."""

import math

import pytest
import torch

from anomalib_defect_plugins.models.onestage.loss import cross_entropy, pixel_weights, stage_loss

# Two pixels: F = 0.8 on a defect, F = 0.4 on background.
SHARES = torch.tensor([0.8, 0.4]).reshape(1, 1, 1, 2)
MASK = torch.tensor([True, False]).reshape(1, 1, 1, 2)
EXPECTED = -(math.log(0.8) + math.log(1 - 0.4)) / 2


def test_loss_of_a_stage_is_the_mean_cross_entropy_of_its_sigmoid():
    """Eq. 2 and 3: -(log 0.8 + log 0.6) / 2 = 0.36698."""
    assert float(stage_loss(SHARES.logit(), MASK, pixel_weights(MASK))) == pytest.approx(EXPECTED, rel=1e-5)
    assert pytest.approx(0.36698, abs=1e-5) == EXPECTED


def test_loss_of_the_result_is_the_same_cross_entropy_from_its_logarithms():
    loss = cross_entropy(SHARES.log(), (1 - SHARES).log(), MASK, pixel_weights(MASK))
    assert float(loss) == pytest.approx(EXPECTED, rel=1e-5)


def test_loss_does_not_depend_on_the_number_of_pixels_or_images():
    masks = MASK.repeat(3, 1, 4, 2)
    many = stage_loss(SHARES.logit().repeat(3, 1, 4, 2), masks, pixel_weights(masks))
    assert float(many) == pytest.approx(EXPECTED, rel=1e-5)


@pytest.mark.parametrize(("background", "weight"), [(1, 0.5), (3, 0.3), (7, 0.3)])
def test_a_small_defect_has_the_defect_weight_and_a_large_one_its_share_of_the_image(background, weight):
    logits = SHARES.logit()[..., [0] + [1] * background]
    mask = torch.arange(1 + background).reshape(1, 1, 1, -1) == 0
    expected = -weight * math.log(0.8) - (1 - weight) * math.log(0.6)
    assert float(stage_loss(logits, mask, pixel_weights(mask, defect_weight=0.3))) == pytest.approx(expected, rel=1e-5)


def test_the_defect_weight_does_not_change_the_loss_of_an_image_without_defect():
    mask = torch.zeros_like(MASK)
    loss = stage_loss(SHARES.logit(), mask, pixel_weights(mask, defect_weight=0.3))
    assert float(loss) == pytest.approx(-(math.log(0.2) + math.log(0.6)) / 2, rel=1e-5)


def test_excluded_images_have_no_effect_on_the_loss():
    logits = torch.cat([SHARES.logit(), torch.full_like(SHARES, 30.0)]).requires_grad_()
    masks = torch.cat([MASK, ~MASK])
    loss = stage_loss(logits, masks, pixel_weights(masks, torch.tensor([True, False])))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss) == pytest.approx(EXPECTED, rel=1e-5)
    assert gradient[0].abs().min() > 0
    assert gradient[1].abs().max() == 0


def test_loss_is_0_if_all_images_are_excluded():
    assert float(stage_loss(SHARES.logit(), MASK, pixel_weights(MASK, torch.tensor([False])))) == 0


def test_ignored_pixels_have_no_effect_on_the_loss():
    logits = torch.cat([SHARES.logit(), torch.tensor([9.0, -9.0]).reshape(1, 1, 1, 2)], -1).requires_grad_()
    mask = torch.tensor([True, False, False, True]).reshape(1, 1, 1, 4)
    ignored = torch.tensor([False, False, True, True]).reshape(1, 1, 1, 4)
    loss = stage_loss(logits, mask, pixel_weights(mask, ignored=ignored))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss) == pytest.approx(EXPECTED, rel=1e-5)
    assert gradient.flatten()[:2].abs().min() > 0
    assert gradient.flatten()[2:].tolist() == [0, 0]
    assert float(stage_loss(logits, mask, pixel_weights(mask, ignored=torch.ones_like(mask)))) == 0
