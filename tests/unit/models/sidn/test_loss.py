"""Equations of SIDN on cases small enough to calculate by hand."""

import math

import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.models.sidn.loss import (
    center_loss,
    clustering_loss,
    hypersphere_radii,
    segmentation_loss,
    similarity_loss,
    soft_assignment,
    squared_distances,
    start_centers,
    target_distribution,
)


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def test_segmentation_loss_weights_texture_by_lambda_1():
    """Eq. 5 on one texture pixel with I_t = 0.8, I_d = 0.3 and one defect pixel with I_t = 0.4, I_d = 0.9."""
    texture, defect, mask = pixels(0.8, 0.4), pixels(0.3, 0.9), pixels(0, 1)
    texture_term = -(0.1 * math.log(0.8) + math.log(1 - 0.4)) / 2
    defect_term = -(0.1 * math.log(1 - 0.3) + math.log(0.9)) / 2
    loss = segmentation_loss(texture.logit(), defect.logit(), mask)
    assert float(loss) == pytest.approx(texture_term + defect_term, rel=1e-5)
    assert float(loss) == pytest.approx(0.337086, abs=1e-5)


def test_segmentation_loss_does_not_depend_on_the_number_of_pixels_or_images():
    texture, defect, mask = (torch.randn(2, 1, 3, 3) for _ in range(3))
    one = segmentation_loss(texture, defect, mask > 0)
    many = segmentation_loss(*(tensor.repeat(3, 1, 2, 2) for tensor in (texture, defect, mask > 0)))
    assert torch.allclose(one, many)


def test_similarity_is_the_mean_inner_product_of_the_features_of_a_position():
    """Eq. 8: (1*2 + 2*0 + -1*1 + 3*1) / 2 = 2."""
    texture, defect = torch.tensor([[1.0, 2.0], [-1.0, 3.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    assert float(similarity_loss(texture, defect)) == 2.0


def test_soft_assignment_is_a_students_t_of_the_distances():
    """Eq. 9 and 11, alpha = 1: squared distances 1 and 9 give 1/2 and 1/10, so 5/6 and 1/6."""
    features, centers = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert squared_distances(features, centers).tolist() == [[1.0, 9.0]]
    assert soft_assignment(features, centers)[0].tolist() == pytest.approx([5 / 6, 1 / 6])
    # alpha = 3: (1 + 1/3)^-2 = 9/16 and (1 + 3)^-2 = 1/16.
    assert soft_assignment(features, centers, alpha=3.0)[0].tolist() == pytest.approx([0.9, 0.1])


def test_target_distribution_sharpens_and_balances():
    """Eq. 15 with frequencies f = (1.2, 0.8)."""
    assignment = torch.tensor([[0.8, 0.2], [0.4, 0.6]], requires_grad=True)
    first = (0.64 / 1.2, 0.04 / 0.8)
    second = (0.16 / 1.2, 0.36 / 0.8)
    target = target_distribution(assignment)
    assert target[0].tolist() == pytest.approx([value / sum(first) for value in first])
    assert target[1].tolist() == pytest.approx([value / sum(second) for value in second])
    assert not target.requires_grad


def test_clustering_loss_is_the_divergence_from_the_target():
    """Eq. 17 on two features and two centres on a line, at distances 0 and 1: Q = (2/3, 1/3) and (1/3, 2/3)."""
    features, centers = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[0.0], [1.0]])
    # f = (1, 1), so P = (4/9, 1/9) / (5/9) = (0.8, 0.2), and the reverse.
    expected = 0.8 * math.log(0.8 / (2 / 3)) + 0.2 * math.log(0.2 / (1 / 3))
    assert float(clustering_loss(features, centers)) == pytest.approx(expected, rel=1e-5)


def test_clustering_loss_pulls_features_to_their_centre():
    features = torch.tensor([[[0.1, 0.2], [1.1, 0.8]]], requires_grad=True)
    centers = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    (gradient,) = torch.autograd.grad(clustering_loss(features, centers), features)
    before = squared_distances(features, centers).min(-1).values
    after = squared_distances(features - 0.1 * gradient, centers).min(-1).values
    assert (after < before).all()


def test_center_loss_is_the_mean_cosine_of_all_pairs():
    """Eq. 18: cosines of (2, 0) with (0, 1), (1, 1) are 0 and 1/sqrt(2); of (0, 3) they are 1 and 1/sqrt(2)."""
    texture, defect = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert float(center_loss(texture, defect)) == pytest.approx((0 + 1 + math.sqrt(2)) / 4)


def test_opposite_centres_do_not_lower_the_loss():
    """The cosines of (1, 0) with (-1, 0) and (0, 1) are -1 and 0."""
    assert float(center_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]]))) == 0


def test_printed_losses_are_sums_over_pixels_and_features():
    texture, defect, mask = (torch.randn(2, 1, 3, 3) for _ in range(3))
    mean = segmentation_loss(texture, defect, mask > 0)
    assert torch.allclose(segmentation_loss(texture, defect, mask > 0, printed=True), 9 * mean)
    features, centers = torch.randn(2, 5, 4), torch.randn(3, 4)
    assert torch.allclose(clustering_loss(features, centers, printed=True), 10 * clustering_loss(features, centers))


def test_hard_pixels_are_the_normal_ones_with_the_highest_losses():
    """One defect pixel with I_d = 0.9 and the hardest of two normal ones, with I_d = 0.3 and 0.6; I_t = 1 - I_d."""
    defect = pixels(0.9, 0.3, 0.6)
    loss = segmentation_loss((1 - defect).logit(), defect.logit(), pixels(1, 0, 0), hard_ratio=1.0)
    assert float(loss) == pytest.approx(2 * -(math.log(0.9) + math.log(0.4)) / 2, rel=1e-5)


def test_the_loss_of_a_batch_is_the_mean_of_its_images():
    texture, defect, mask = (torch.randn(2, 1, 6, 6) for _ in range(3))
    both = segmentation_loss(texture, defect, mask > 1, hard_ratio=3.0)
    single = [
        segmentation_loss(texture[n : n + 1], defect[n : n + 1], mask[n : n + 1] > 1, hard_ratio=3.0) for n in (0, 1)
    ]
    assert torch.allclose(both, sum(single) / 2)


def test_without_defects_one_normal_pixel_counts():
    loss = segmentation_loss(pixels(0.8, 0.6).logit(), pixels(0.1, 0.2).logit(), pixels(0, 0), hard_ratio=3.0)
    assert float(loss) == pytest.approx(-math.log(0.6) - math.log(0.8), rel=1e-5)


def test_scaled_distances_sharpen_the_assignment():
    """Squared distances 1 and 2, times 20: 1/21 and 1/41."""
    features, centers = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    assignment = soft_assignment(features, centers, scale=20.0)[0].tolist()
    assert assignment == pytest.approx([41 / 62, 21 / 62])


def test_first_centres_are_the_means_of_clusters():
    features = torch.tensor([[0.0, 0.0], [0.2, 0.0], [5.0, 0.0], [0.0, 3.0], [4.8, 0.0]])
    centers = start_centers(features, 3)
    torch.testing.assert_close(centers, torch.tensor([[0.1, 0.0], [4.9, 0.0], [0.0, 3.0]]))


def test_centres_of_fewer_features_are_repeated():
    assert start_centers(torch.tensor([[1.0, 2.0]]), 3).tolist() == [[1.0, 2.0]] * 3


def test_radius_is_the_mean_distance_plus_three_deviations_of_the_nearest_features():
    """Eq. 13 and 14: the first centre has features at distances 1 and 3, the second one at 2, the third none."""
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 99.0]])
    features = torch.tensor([[1.0, 0.0], [0.0, 3.0], [10.0, 2.0]])
    radii = hypersphere_radii(features, centers)
    assert radii[:2].tolist() == pytest.approx([2 + 3 * 1, 2.0])
    assert radii[2].isnan()
