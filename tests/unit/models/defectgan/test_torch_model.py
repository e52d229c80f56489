"""Networks of Defect-GAN: weight counts of StarGAN and of the layer table, composition, control and noise."""

import math

import pytest
import torch

from anomalib_defect_plugins.layers import NoiseInjection, Spade
from anomalib_defect_plugins.models.defectgan.torch_model import (
    DefectGanModel,
    Discriminator,
    Generator,
    compose,
    default_layers,
    everywhere,
)


def count(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(**arguments: object) -> Generator:
    """Return a small generator with strong noise, as after training."""
    torch.manual_seed(0)
    generator = Generator(2, 4, 1, **arguments)
    for module in generator.modules():
        if isinstance(module, NoiseInjection):
            module.strength.data.fill_(0.5)
    return generator


def images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 20, generator=rng(7)) * 2 - 1


def test_with_all_components_off_the_networks_are_stargans():
    # Counts printed by StarGAN's reference implementation for 128 pixels and five attributes.
    generator = Generator(5, spatial_control=False, noise_injection=False, layer_composition=False)
    assert count(generator) == 8_430_528
    assert count(Discriminator((128, 128), 5)) == 44_762_048


def test_the_generator_has_the_weights_of_its_layer_table():
    # 7x7 to 64, 4x4 to 128 and 256, each with scale and shift of its norm; six times two 3x3 of 256.
    encoder = 3 * 64 * 49 + 64 * 128 * 16 + 128 * 256 * 16 + 2 * (64 + 128 + 256)
    residual = 6 * 2 * (256 * 256 * 9 + 2 * 256)
    # 3x3 to 128 and 64, each with SPADE of 128 hidden channels; the head outputs three colours and the map.
    decoder = 256 * 128 * 9 + 128 * 64 * 9 + 64 * 4 * 49
    spade = 2 * (5 * 9 + 1) * 128 + 2 * (128 * 9 + 1) * (128 + 64)
    noise = 3 + 6 * 2 + 2
    assert count(Generator(5)) == encoder + residual + decoder + spade + noise == 8_585_425


@pytest.mark.parametrize(
    ("size", "layers", "patches"),
    [
        ((128, 128), 6, (2, 2)),
        ((64, 64), 5, (2, 2)),
        ((80, 96), 5, (2, 3)),
        ((32, 32), 4, (2, 2)),
        ((256, 256), 6, (4, 4)),
    ],
)
def test_the_depth_of_the_discriminator_follows_the_image_size(size, layers, patches):
    assert default_layers(size) == layers
    scores, logits = Discriminator(size, 3, channels=2)(torch.rand(2, 3, *size))
    assert scores.shape == (2, 1, *patches)
    assert logits.shape == (2, 3)


def test_the_discriminator_can_be_made_shallower():
    scores, logits = Discriminator((64, 64), 3, channels=2, layers=3)(torch.rand(2, 3, 64, 64))
    assert scores.shape == (2, 1, 8, 8)
    assert logits.shape == (2, 3)


def test_the_result_is_the_foreground_where_the_map_is_1_and_the_image_where_it_is_0():
    # Eq. 2: 0.2 * (1 - 0.25) + 0.6 * 0.25 = 0.3.
    image, foreground = torch.full((1, 3, 1, 3), 0.2), torch.full((1, 3, 1, 3), 0.6)
    composed = compose(image, foreground, torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3))
    torch.testing.assert_close(composed.images, torch.tensor([0.2, 0.3, 0.6]).expand(1, 3, 1, 3))


def test_images_are_unchanged_where_the_map_is_0():
    generator = noisy()
    generator.head.weight.data[3] = 0
    generator.head.weight.data[3, :, 3, 3] = -100  # features behind a ReLU are positive, so the sigmoid is 0
    output, maps = generator(images(), torch.ones(2, 2, 1, 1), rng())
    zero = maps < 1e-6
    assert zero.float().mean() > 0.5
    assert ((output - images()).abs() * zero).max() < 1e-5


def test_noise_needs_a_generator_and_is_reproducible():
    generator, control = noisy(), torch.ones(2, 2, 1, 1)
    first, again, other, without = (
        generator(images(), control, seed).images for seed in (rng(1), rng(1), rng(2), None)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(without, generator(images(), control).images)
    assert not torch.equal(without, first)


def test_there_is_noise_after_each_convolutional_block_unless_it_is_disabled():
    def blocks(generator: Generator) -> int:
        return sum(isinstance(module, NoiseInjection) for module in generator.modules())

    assert blocks(Generator(2, 4)) == 3 + 2 * 6 + 2
    assert blocks(Generator(2, 4, noise_injection=False)) == 0


def test_each_block_of_the_decoder_and_none_of_the_encoder_has_the_control_map():
    generator = Generator(2, 4)
    assert [isinstance(block.norm, Spade) for block in generator.decoder] == [True, True]
    assert not any(isinstance(module, Spade) for module in generator.encoder.modules())


@pytest.mark.parametrize("spatial_control", [True, False])
def test_the_output_depends_on_the_control_map(spatial_control):
    generator = noisy(spatial_control=spatial_control)
    first, second = (generator(images(), everywhere(torch.tensor([row] * 2))).images for row in ([1.0, 0], [0, 1.0]))
    assert (first - second).abs().mean() > 1e-3


def test_more_than_nine_pixels_from_its_border_a_map_has_the_effect_of_a_constant_one():
    # To the right: 2 pixels at half size by SPADE, hence 5; 1 by the convolution after upsampling; 3 by the head.
    generator, image = noisy(), torch.rand(1, 3, 16, 64) * 2 - 1
    control = torch.zeros(1, 2, 16, 64)
    control[:, 1, :, :32] = 1
    half = generator(image, control)
    full, empty = (generator(image, label[:, :, None, None]) for label in (torch.tensor([[0.0, 1]]), torch.zeros(1, 2)))
    for result, left, right in zip(half, full, empty, strict=True):
        assert (left - right).abs().mean() > 1e-3
        torch.testing.assert_close(result[..., :23], left[..., :23], atol=1e-5, rtol=0)
        torch.testing.assert_close(result[..., 41:], right[..., 41:], atol=1e-5, rtol=0)
        assert not torch.allclose(result[..., 24:40], right[..., 24:40], atol=1e-5, rtol=0)


def test_without_composition_the_map_is_half_of_the_mean_change():
    output, maps = noisy(layer_composition=False)(images(), torch.ones(2, 2, 1, 1))
    torch.testing.assert_close(maps, ((output - images()) / 2).abs().mean(1, keepdim=True))


@pytest.mark.parametrize("layer_composition", [True, False])
def test_grey_images_stay_grey_if_the_foreground_is_grey(layer_composition):
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    for paints_grey in (True, False):
        generator = noisy(grey=paints_grey, layer_composition=layer_composition)
        output = generator(grey, torch.ones(2, 2, 1, 1), rng()).images
        assert output.shape == grey.shape
        assert (output - grey).abs().amax() > 0.1
        assert ((output.amax(1) - output.amin(1)).max() < 1e-6) == paints_grey


def test_the_anomaly_map_is_the_map_of_the_restoration():
    model, image = DefectGanModel(noisy(), 2, score_share=1.0), images() / 2 + 0.5
    result, restored = model(image), model.restore(image)
    expected = model.generator(2 * image - 1, torch.zeros(2, 2, 1, 1))
    torch.testing.assert_close(result.anomaly_map, expected.maps)
    torch.testing.assert_close(2 * restored.images - 1, expected.images)
    torch.testing.assert_close(result.pred_score, expected.maps.mean((1, 2, 3)))


def test_the_map_bias_is_the_map_where_the_features_are_0():
    generator = Generator(2, 4, 1, map_bias=-3)
    generator.head.weight.data.zero_()
    maps = generator(images(), everywhere(torch.zeros(2, 2))).maps
    assert maps.unique().tolist() == pytest.approx([1 / (1 + math.exp(3))])  # 0.047


def test_with_a_score_per_class_there_is_no_class_head():
    discriminator = Discriminator((32, 32), 3, channels=2, score_per_class=True)
    scores, logits = discriminator(torch.rand(2, 3, 32, 32))
    assert scores.shape == (2, 3, 2, 2)
    assert logits is None
    assert count(discriminator) == count(Discriminator((32, 32), 3, channels=2)) - 3 * 16 * 4 + 2 * 16 * 9
