"""Equations 7 to 11 and 16 on cases calculated by hand."""

import pytest
import torch

from anomalib_defect_plugins.models.isugan.loss import adversarial_loss, difference, discriminator_loss
from anomalib_defect_plugins.models.isugan.similarity import anomaly_map_of, repair_error, ssim_map


def test_the_adversarial_loss_is_the_squared_distance_of_scores_from_1():
    # Eq. 8, as a mean: (0.5 - 1)^2 = 0.25 and (3 - 1)^2 = 4
    assert adversarial_loss(torch.tensor([0.5, 3.0])).item() == pytest.approx(2.125)
    assert adversarial_loss(torch.ones(2, 1, 3, 3)) == 0


def test_the_discriminator_loss_is_0_for_scores_of_1_for_real_and_0_for_fake_images():
    # Eq. 9: mean of (0 - 1)^2 and (2 - 1)^2, plus mean of 0.5^2 and 1.5^2
    assert discriminator_loss(torch.tensor([0.0, 2.0]), torch.tensor([0.5, -1.5])).item() == pytest.approx(1 + 1.25)
    assert discriminator_loss(torch.ones(3), torch.zeros(3)) == 0


def test_ssim_of_identical_images_is_1():
    torch.manual_seed(0)
    for image in (torch.rand(2, 3, 20, 17), torch.zeros(1, 1, 12, 12), torch.ones(1, 1, 12, 12)):
        assert torch.allclose(ssim_map(image, image), torch.ones_like(image), atol=1e-5)


def test_ssim_of_flat_images_is_the_comparison_of_their_means():
    # Eq. 7 without deviations: l = (2 * 0.2 * 0.6 + C1) / (0.2^2 + 0.6^2 + C1), C1 = 0.01^2, and c = s = 1
    x, y = torch.full((1, 1, 12, 12), 0.2), torch.full((1, 1, 12, 12), 0.6)
    assert torch.allclose(ssim_map(x, y), torch.full_like(x, 0.2401 / 0.4001), atol=1e-4)


def test_ssim_of_opposite_contrasts_is_that_of_equation_7():
    # Columns 0.4, 0.6, 0.4, ... against 0.6, 0.4, 0.6, ...: in a window wide enough the means are 0.5 each, the
    # variances 0.01 and the covariance -0.01, so SSIM = (2 * -0.01 + C2) / (2 * 0.01 + C2), C2 = 0.03^2.
    x = (0.4 + 0.2 * (torch.arange(24) % 2)).expand(1, 1, 24, 24)
    expected = (-0.02 + 0.0009) / (0.02 + 0.0009)
    assert ssim_map(x, 1 - x)[0, 0, 12, 12].item() == pytest.approx(expected, abs=0.01)


def test_ssim_is_local_to_its_window():
    torch.manual_seed(0)
    x = torch.rand(1, 1, 30, 30)
    y = x.clone()
    y[..., 15, 15] += 0.2
    changed = (ssim_map(x, y)[0, 0] - 1).abs() > 1e-4
    rows, columns = changed.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (11, 19, 11, 19)  # 9 pixels a side


def test_anomaly_maps_are_in_0_to_1_and_the_mean_over_channels():
    torch.manual_seed(0)
    x, y = torch.rand(2, 2, 1, 16, 16)
    grey = anomaly_map_of(x, y)
    assert 0 <= grey.min() < grey.max() <= 1
    assert torch.allclose(grey, (1 - ssim_map(x, y)) / 2)
    colours = anomaly_map_of(torch.cat([x, x, x], 1), torch.cat([y, x, x], 1))
    assert torch.allclose(colours, grey / 3, atol=1e-6)


def test_the_structural_difference_is_1_minus_ssim_of_the_images_in_0_to_1():
    # Eq. 10 and 11, e < k; the flat images 0.2 and 0.6 from above, scaled to [-1, 1]
    x, y = torch.full((1, 1, 12, 12), -0.6), torch.full((1, 1, 12, 12), 0.2)
    assert difference(x, y, structural=True).item() == pytest.approx(1 - 0.2401 / 0.4001, abs=1e-4)


def test_the_later_difference_is_the_mean_absolute_error():
    # Eq. 10 and 11, e >= k: (0.5 + 0 + 1 + 0.5) / 4
    x, y = torch.tensor([[[[0.5, 0.0], [-1.0, 0.5]]]]), torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]])
    assert difference(x, y, structural=False).item() == pytest.approx(0.5)


def test_the_error_of_a_repair_is_the_mean_square_in_grey_levels():
    # Eq. 16: pixels that are off by 2, 0, 4 and 0 levels of 255 have the mean square (4 + 16) / 4
    image = torch.full((2, 1, 2, 2), 100 / 255)
    repaired = image.clone()
    repaired[0, 0] += torch.tensor([[2.0, 0.0], [-4.0, 0.0]]) / 255
    assert repair_error(image, repaired).tolist() == pytest.approx([5.0, 0.0], abs=1e-4)
