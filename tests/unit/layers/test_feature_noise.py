"""Noise in a part of a feature map."""

import torch

from anomalib_defect_plugins.layers.feature_noise import add_feature_noise


def test_noise_has_the_deviation_of_each_channel_on_normal_images_and_stays_in_the_mask():
    torch.manual_seed(0)
    deviations = torch.tensor([0.5, 4.0]).reshape(1, 2, 1, 1)
    features = deviations * torch.randn(4, 2, 64, 64)
    features[3] *= 100  # shows a defect
    mask = torch.zeros(4, 1, 128, 128, dtype=torch.bool)
    mask[0, :, :64] = True
    added = add_feature_noise(features, mask, torch.tensor([True, True, True, False]), scale=2.0) - features
    assert not added[1:].any()
    assert not added[0, :, 32:].any()
    measured = added[0, :, :32].std((1, 2))
    torch.testing.assert_close(measured, 2 * deviations.flatten(), rtol=0.05, atol=0)


def test_noise_is_proportional_to_the_share_of_a_position_that_the_mask_covers():
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., :4, :4] = True  # the whole position (0, 0)
    mask[..., 9, 4:8] = True  # a quarter of the position (2, 1)
    torch.manual_seed(0)
    features = torch.randn(1, 2000, 4, 4)
    added = add_feature_noise(features, mask, torch.tensor([False]), 1.0) - features
    relative = (added / features.std((0, 2, 3), correction=0, keepdim=True)).std((0, 1))
    expected = torch.zeros(4, 4)
    expected[0, 0], expected[2, 1] = 1.0, 0.25
    torch.testing.assert_close(relative, expected, rtol=0.1, atol=1e-6)
