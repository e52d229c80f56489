"""Networks of ISU-GAN: weight counts from the paper's layer table, and inspection."""

import pytest
import torch
from anomalib.data import InferenceBatch
from timm.layers.squeeze_excite import SqueezeExcite
from torch import nn

from anomalib_defect_plugins.layers import Involution, top_mean
from anomalib_defect_plugins.models.isugan import torch_model
from anomalib_defect_plugins.models.isugan.torch_model import Generator, IsuGanModel, Skip, make_discriminator


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


PLAIN = (
    9 * (1 * 64 + 64 * 128 + 128 * 256)  # three 3x3 convolutions, 64 -> 128 -> 256; instance norm has no weights
    + 9 * 2 * 9 * 256 * 256  # nine residual blocks of two 3x3 convolutions
    + 16 * (256 * 128 + 128 * 64)  # two 4x4 transposed convolutions
    + 16 * 64 * 1  # the third, to the image
    + 1  # and its bias, as no norm follows
)
SKIP = 9 * (256 * 128 + 128 * 64)  # 3x3 convolutions from twice 128 to 128, and from twice 64 to 64 channels
INVOLUTION = 2 * (256 * 64 + 2 * 64 + 64 * 784 + 784)  # reduction 4; 16 groups of 7x7


def se(channels: int) -> int:
    return 2 * channels * (channels // 16) + channels // 16 + channels  # two 1x1 convolutions with biases


@pytest.mark.parametrize(
    ("skip", "involution", "squeeze_excitation", "expected"),
    [
        (False, False, False, PLAIN),
        (True, False, False, PLAIN + SKIP),
        (False, True, False, PLAIN + INVOLUTION),
        (False, False, True, PLAIN + 2 * se(256)),
        (True, True, True, PLAIN + SKIP + INVOLUTION + 2 * se(256) + se(128) + se(64)),
    ],
    ids=["cyclegan", "skip", "involution", "se", "isugan"],
)
def test_the_papers_generators_have_the_weights_counted_by_hand(skip, involution, squeeze_excitation, expected):
    network = Generator(skip=skip, involution=involution, squeeze_excitation=squeeze_excitation)
    assert count(network) == expected


def test_the_papers_discriminator_has_the_weights_counted_by_hand():
    # Four 4x4 convolutions, 128 -> 256 -> 512 -> 1, the last with a bias.
    assert count(make_discriminator()) == 16 * (1 * 128 + 128 * 256 + 256 * 512 + 512 * 1) + 1


def test_upsampling_treats_the_border_like_the_interior():
    torch.manual_seed(0)
    stripes = torch.rand(1, 4, 32, 1).expand(-1, -1, -1, 32)  # equal columns, so the border is like the interior
    pairs = torch_model.up(4, 6)(stripes).unflatten(-1, (-1, 2))  # the output has a period of two columns
    torch.testing.assert_close(pairs, pairs[..., :1, :].expand_as(pairs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", [{}, {"skip": False, "involution": False, "squeeze_excitation": False}])
def test_brighter_images_are_distinguished_from_darker_ones_despite_the_norms(variant):
    torch.manual_seed(0)
    network = Generator(width=8, residual_blocks=2, **variant).eval()
    image = 0.2 * torch.rand(1, 1, 64, 64)
    assert (network(image) - network(image - 0.5)).abs().max() > 1e-3


def test_the_generator_has_four_se_blocks_and_involutions_around_nine_residual_blocks():
    network = Generator(width=8)
    assert sum(isinstance(module, SqueezeExcite) for module in network.modules()) == 4
    names = [type(module).__name__ for module in network.middle]
    assert names == ["SEModule", "Involution", *["ResidualBlock"] * 9, "Involution", "SEModule"]
    assert all(isinstance(network.middle[index], Involution) for index in (1, -2))


@pytest.mark.parametrize("size", [(32, 32), (33, 46), (16, 23)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_generators_keep_shape_and_range_of_images_of_any_size(size, channels):
    torch.manual_seed(0)
    image = torch.rand(2, channels, *size) * 2 - 1
    output = Generator(channels, width=4, residual_blocks=1)(image)
    assert output.shape == image.shape
    assert -1 <= output.min() < output.max() <= 1


def test_discriminators_score_patches():
    assert make_discriminator(width=4)(torch.rand(2, 1, 64, 48)).shape == (2, 1, 7, 5)


@torch.no_grad()
def test_se_scales_each_channel_by_equation_2():
    # One hidden channel, W1 = (1, 2), W2 = (1, -1), no biases. The channel means y are 1 and 3, so the hidden value is
    # relu(1 * 1 + 2 * 3) = 7, and z = (sigmoid(7), sigmoid(-7)).
    block = torch_model.squeeze_excite(2, used=True)
    for conv, weights in ((block.fc1, [1.0, 2.0]), (block.fc2, [1.0, -1.0])):
        conv.weight.copy_(torch.tensor(weights).reshape(conv.weight.shape))
        conv.bias.zero_()
    x = torch.tensor([[[[0.0, 2.0]], [[3.0, 3.0]]]])
    z = 1 / (1 + torch.exp(torch.tensor([-7.0, 7.0])))
    assert torch.allclose(block(x), x * z[None, :, None, None])


@torch.no_grad()
def test_a_skip_connection_scales_the_shallow_map_and_not_the_deep_one():
    skip = Skip(4, squeeze_excitation=True)
    skip.scale.fc2.weight.zero_()
    skip.scale.fc2.bias.zero_()  # so the scale is sigmoid(0) = 1/2
    seen = []
    skip.merge[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    deep, shallow = torch.randn(1, 4, 6, 6), torch.randn(1, 4, 5, 5)
    skip(deep, shallow)
    assert torch.equal(seen[0][:, :4], deep)
    assert torch.allclose(seen[0][:, 4:, :5, :5], shallow / 2)
    assert torch.allclose(seen[0][:, 4:, 5, :5], shallow[..., 3, :] / 2)  # reflected at the last row


@torch.no_grad()
def test_only_the_last_convolution_of_generators_and_discriminators_has_no_norm():
    for network in (Generator(width=4, involution=False, squeeze_excitation=False), make_discriminator()):
        convs = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d)]
        assert len(convs) == len(norms) + 1


@torch.no_grad()
def test_an_image_that_is_repaired_to_itself_is_normal_and_a_changed_region_is_detected(monkeypatch):
    model = IsuGanModel(width=4, residual_blocks=1).eval()
    torch.manual_seed(0)
    image = torch.rand(2, 1, 32, 32).expand(2, 3, 32, 32)
    repaired = image[:, :1].clone()
    repaired[1, :, 8:12, 20:24] = 1 - repaired[1, :, 8:12, 20:24]
    monkeypatch.setattr(model, "repair", lambda _: repaired)
    output = model(image)
    assert isinstance(output, InferenceBatch)
    assert output.anomaly_map.shape == (2, 1, 32, 32)
    assert output.anomaly_map[0].abs().max() < 1e-6
    assert float(output.pred_score[0]) < 1e-6 < 0.1 < float(output.pred_score[1])
    top = output.anomaly_map[1, 0].argmax()
    assert 8 <= top // 32 < 12
    assert 20 <= top % 32 < 24


@torch.no_grad()
def test_grey_models_see_the_first_channel_and_colour_models_all():
    image = torch.rand(1, 3, 16, 16)
    other = image.clone()
    other[:, 1:] = 0
    for grey in (True, False):
        model = IsuGanModel(grey, width=4, residual_blocks=1).eval()
        assert torch.equal(model(image).anomaly_map, model(other).anomaly_map) == grey
        assert model.repair(image).shape == (1, 1 if grey else 3, 16, 16)
        assert 0 <= model.repair(image).min() < model.repair(image).max() <= 1


def test_layers_keep_the_image_where_their_map_is_0():
    torch.manual_seed(0)
    generator, image = Generator(width=4, residual_blocks=1, layers=True), torch.rand(1, 1, 24, 32) * 2 - 1
    assert (generator(image) - image).abs().mean() < 0.1  # 5 % of each pixel is painted at the start
    bias = generator.last[-1].bias
    nn.init.constant_(bias[-1:], -100)
    assert torch.equal(generator(image), image)
    nn.init.constant_(bias[-1:], 100)
    assert not torch.allclose(generator(image), image, atol=0.1)


@pytest.fixture(scope="module")
def encoded() -> IsuGanModel:
    torch.manual_seed(0)
    model = IsuGanModel(
        width=4,
        residual_blocks=1,
        involution=False,
        backbone="test_resnet.r160_in1k",
        pre_trained=False,
        repair_weight=2.0,
        density_weight=3.0,
    ).eval()
    moments = model.new_moments()
    model.observe(torch.rand(4, 3, 42, 51), moments)
    model.fit(moments)
    return model


@torch.no_grad()
def test_with_a_backbone_the_map_is_the_weighted_sum_of_both_distances(encoded):
    image = torch.rand(2, 3, 42, 51)
    maps, repaired_maps = encoded.encoder(image[:, :1]), encoded.encoder(encoded.repair(image))
    changes = [one - other for one, other in zip(maps, repaired_maps, strict=True)][:3]
    expected = 2 * encoded.repair_density(changes, (42, 51)) + 3 * encoded.density(maps[1:], (42, 51))
    output = encoded(image)
    assert output.anomaly_map.shape == (2, 1, 42, 51)
    assert torch.allclose(output.anomaly_map, expected, rtol=1e-4)
    assert torch.allclose(output.pred_score, top_mean(expected, 0.001), rtol=1e-4)


@torch.no_grad()
def test_the_density_of_repairs_sees_what_a_repair_changes_and_not_the_image(encoded, monkeypatch):
    image = torch.rand(1, 1, 64, 64).expand(2, 3, 64, 64)
    repaired = image[:, :1].clone()
    repaired[1, :, 8:16, 40:48] = 1 - repaired[1, :, 8:16, 40:48]
    distances = encoded.distances(image, repaired)
    assert torch.allclose(*distances["density"], rtol=1e-4)
    change = (distances["repair"][1] - distances["repair"][0])[0]
    assert change[4:20, 36:52].mean() > 5 * change[40:, :16].abs().mean()
    assert distances["repair"][0].std() < 1e-4  # the same at all positions


def test_a_part_without_weight_is_left_out():
    settings = {"width": 4, "residual_blocks": 0, "backbone": "test_resnet.r160_in1k", "pre_trained": False}
    image = torch.rand(1, 3, 32, 32)
    for absent, weights, count in (("repair", (0.0, 1.0), 2), ("density", (1.0, 0.0), 1)):
        model = IsuGanModel(**settings, repair_weight=weights[0], density_weight=weights[1]).eval()
        assert absent not in model.distances(image, model.repair(image))
        assert len(model.densities()) == len(model.normal_features(image)) == count


def test_the_backbone_is_not_trained(encoded):
    encoded.train()
    trained = [name for name, weight in encoded.named_parameters() if weight.requires_grad]
    assert trained
    assert all(name.startswith("generator.") for name in trained)
    assert not encoded.encoder.training
    encoded.eval()
