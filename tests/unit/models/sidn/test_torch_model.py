"""Network of SIDN: shapes and costs of the paper, and the result of each module."""

import pytest
import torch
from torch import nn

from anomalib_defect_plugins.layers import spread
from anomalib_defect_plugins.models.sidn.torch_model import GlobalSemanticRelation, SidnModel, fuse, make_fem

C, K = 16, 12


@pytest.fixture(scope="module")
def model() -> SidnModel:
    torch.manual_seed(0)
    return SidnModel()


def product_cost(left: torch.Size, right: torch.Size) -> int:
    """Return the multiplications and additions of a product of matrices (n, m) and (m, p): n p (2 m - 1)."""
    (n, m), p = left, right[1]
    return n * p * (2 * m - 1)


def test_attention_costs_match_table_i(model):
    """Table I, computed from the shapes in the network at 256 x 256."""
    output = model.train()(torch.rand(1, 1, 256, 256))
    tokens, centers = output.texture_features[0], model.texture.centers
    assert tuple(tokens.shape) == (256, 16 * C)
    assert tuple(centers.shape) == (K, 16 * C)
    assert product_cost(tokens.shape, tokens.T.shape) == 33_488_896  # K'Q^T
    assert product_cost((len(tokens), len(tokens)), tokens.shape) == 33_488_896  # MQ
    assert product_cost(tokens.shape, centers.T.shape) == 1_569_792 == 256 * 12 * 511  # K'C^T
    # The table has 256 * 256 * 23 for MC, where each of the 256 x 256 results is a sum of 12 products.
    assert product_cost((len(tokens), K), centers.shape) == 1_507_328


def test_shared_features_have_half_the_size_and_twice_the_channels():
    """Section III-B: Z is W/2 x H/2 x 2C."""
    assert make_fem(C, "batch")(torch.rand(2, 1, 64, 96)).shape == (2, 2 * C, 32, 48)


def test_relation_adds_the_attended_centres_to_the_values():
    """Eq. 23 and 24 at one position: key (1, 0) attends to centres (ln 3, 0) and (0, 0) with 3/4 and 1/4."""
    gsrm = GlobalSemanticRelation(2)
    for convolution in (gsrm.key, gsrm.value):
        nn.init.zeros_(convolution.bias)
        convolution.weight.data = torch.eye(2)[..., None, None]
    centers = torch.tensor([[torch.tensor(3.0).log(), 0.0], [0.0, 0.0]])
    features = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    result = gsrm(features, centers).flatten()
    assert torch.allclose(result, torch.tensor([1 + 0.75 * torch.tensor(3.0).log(), 0.0]))


def test_relation_of_a_position_does_not_depend_on_other_positions():
    torch.manual_seed(0)
    gsrm, centers, features = GlobalSemanticRelation(4), torch.randn(3, 4), torch.randn(1, 4, 5, 6)
    changed = features.clone()
    changed[..., 2, 3] += 1
    difference = (gsrm(changed, centers) - gsrm(features, centers)).abs().sum(1)[0]
    assert difference.nonzero().tolist() == [[2, 3]]


def test_fusion_is_the_weighted_mean_of_inverted_texture_and_defect():
    """Eq. 26 with lambda_f = 0.75: 0.25 (1 - 0.8) + 0.75 * 0.4 = 0.35."""
    assert float(fuse(torch.tensor(0.8), torch.tensor(0.4), 0.75)) == pytest.approx(0.35)


def test_features_have_unit_length(model):
    output = model.train()(torch.rand(1, 1, 64, 64))
    for features in (output.texture_features, output.defect_features):
        assert torch.allclose(features.norm(dim=-1), torch.ones(1, 16), atol=1e-5)


def test_maps_have_the_size_of_the_images_and_lie_in_0_to_1(model):
    with torch.inference_mode():
        result = model.eval()(torch.rand(2, 1, 64, 96))
    assert result.anomaly_map.shape == (2, 1, 64, 96)
    assert result.pred_score.shape == (2,)
    assert 0 <= result.anomaly_map.min() <= result.anomaly_map.max() <= 1


def test_without_the_relation_module_there_are_fewer_weights_and_no_attention():
    full, without = SidnModel(), SidnModel(gsrm=False)
    assert without.texture.gsrm is None
    # Two 1x1 convolutions of 256 to 256 channels with bias, in each of two branches.
    removed = 2 * 2 * (256 * 256 + 256)
    counts = [sum(weight.numel() for weight in model.parameters()) for model in (full, without)]
    assert counts[0] - counts[1] == removed


# Encoder


@pytest.fixture(scope="module")
def encoded() -> SidnModel:
    torch.manual_seed(0)
    return SidnModel(4, 3, backbone="test_resnet.r160_in1k", pre_trained=False, skips=True, density_weight=2.0)


def test_both_branches_read_the_maps_of_the_encoder(encoded):
    images = torch.rand(1, 3, 64, 64)
    z, maps = encoded.extract(images)
    assert [one.shape[-1] for one in maps] == [16, 8, 4, 2]
    other = [torch.rand_like(one) for one in maps]
    for branch in (encoded.texture, encoded.defect):
        plain = branch(z, maps)[0]
        for index in range(3):
            changed = [*maps[:index], other[index], *maps[index + 1 :]]
            assert not torch.allclose(branch(z, changed)[0], plain, atol=1e-4)


def test_skips_add_the_features_of_the_branch_to_its_segmentation(encoded):
    branch, (z, maps) = encoded.defect, encoded.extract(torch.rand(1, 3, 64, 64))
    with_skips = branch(z, maps)[0]
    branch.skips = False
    without = branch(z, maps)[0]
    branch.skips = True
    assert not torch.allclose(with_skips, without, atol=1e-4)


@pytest.mark.parametrize("score", ["distances", "product"])
def test_map_and_score_come_from_log_odds_and_distances(encoded, monkeypatch, score):
    images, model = torch.rand(2, 3, 64, 64), encoded.eval()
    monkeypatch.setattr(model, "score", score)
    with torch.inference_mode():
        z, maps = model.extract(images)
        odds = (model.defect(z, maps)[0] - model.texture(z, maps)[0]) / 2
        distance = model.density(maps[1:], (64, 64))
        result = model(images)
    assert torch.allclose(result.anomaly_map, model.median(odds + 2 * distance), atol=1e-5)
    expected = spread(distance) * (spread(odds) if score == "product" else 1)
    assert torch.allclose(result.pred_score, expected, atol=1e-5)


def test_weights_load_under_the_former_names_of_the_densities(encoded):
    state = encoded.state_dict()
    former = {
        name.replace("density.fine.", "fine_density.").replace("density.coarse.", "coarse_density."): value
        for name, value in state.items()
    }
    assert former.keys() != state.keys()
    encoded.load_state_dict(former)


def test_centres_have_the_length_of_the_features_in_the_relation_module():
    """Logits K'C^T / sqrt(d), and sqrt(d) times the attended centres: those of length 1 in d = 4 have length 2."""
    gsrm = GlobalSemanticRelation(4, center_length=2.0)
    nn.init.zeros_(gsrm.key.bias)
    gsrm.key.weight.data = torch.eye(4)[..., None, None]
    features = torch.tensor([2.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1)
    context = gsrm.context(features, torch.eye(4)[:2]).flatten()
    share = torch.tensor([2.0, 0.0]).softmax(0)
    assert torch.allclose(context, torch.tensor([2 * share[0], 2 * share[1], 0.0, 0.0]))
