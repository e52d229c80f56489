"""Networks of HTP-GAN: eq. 1, 3 and 5, and the sizes of the pyramid."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers import TexturePerceivingModule, top_mean
from anomalib_defect_plugins.models.htpgan.torch_model import Discriminator, Generator, HtpGanModel, pyramid_sizes

IMAGE_SIZE = (24, 36)


@pytest.fixture
def model() -> HtpGanModel:
    torch.manual_seed(0)
    return HtpGanModel(IMAGE_SIZE, num_scales=3, min_size=16, width=4)


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(4).eval()
    with torch.no_grad():  # no value is neutral, so that a mix-up changes the result
        for name, values in generator.state_dict().items():
            if "running" in name or name.endswith(("1.weight", "1.bias")):
                values.uniform_(0.5, 1.5)
    return generator


def noises(model: HtpGanModel, scale: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(scale)
    return [torch.randn(1, 3, *size, generator=random) for size in model.sizes[: scale + 1]]


def residual_of_the_paper(generator: Generator, image: Tensor) -> Tensor:
    """Section 2.1's psi: four times convolution, batch norm and LeakyReLU, then convolution and tanh."""
    state = generator.residual.state_dict()
    for block in range(4):
        image = functional.conv2d(functional.pad(image, (1, 1, 1, 1), "reflect"), state[f"{block}.0.weight"])
        norm = [state[f"{block}.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        image = functional.leaky_relu(functional.batch_norm(image, *norm), 0.2)
    image = functional.conv2d(functional.pad(image, (1, 1, 1, 1), "reflect"), state["4.weight"], state["4.bias"])
    return image.tanh()


def test_a_generator_adds_its_residual_of_noise_and_coarser_image_to_the_coarser_image(generator):
    noise, coarser = torch.randn(1, 3, 11, 15), torch.randn(1, 3, 11, 15)
    result = generator(noise, coarser)
    assert torch.allclose(result, coarser + residual_of_the_paper(generator, noise + coarser), atol=1e-5)  # eq. 1
    assert not torch.allclose(result, coarser, atol=1e-2)


def test_a_generator_with_a_zero_residual_returns_the_coarser_image(generator):
    for values in generator.residual[-2].parameters():
        nn.init.zeros_(values)
    coarser = torch.randn(1, 3, 11, 15)
    assert torch.equal(generator(torch.randn(1, 3, 11, 15), coarser), coarser)


def test_images_of_every_scale_are_generated_at_its_size(model):
    for scale, size in enumerate(model.sizes):
        assert model.generate(noises(model, scale)).shape == (1, 3, *size)


def test_an_image_is_refined_scale_by_scale(model):
    image = torch.zeros(1, 3, *model.sizes[0])
    for generator, noise in zip(model.eval().generators, noises(model, 2), strict=True):
        image = functional.interpolate(image, noise.shape[-2:], mode="bicubic", align_corners=False)
        image = generator(noise, image)
    assert torch.allclose(model.generate(noises(model, 2)), image, atol=1e-6)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_only_the_last_generator_gets_gradients(model, scale):
    model.generate(noises(model, scale)).square().mean().backward()
    touched = [any(values.grad is not None for values in generator.parameters()) for generator in model.generators]
    assert touched == [number == scale for number in range(3)]
    assert all(values.grad is not None for values in model.generators[scale].parameters())


def test_generation_without_gradients_records_no_graph(model):
    with torch.no_grad():
        assert not model.generate(noises(model, 1)).requires_grad


@pytest.mark.parametrize("texture_module", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_a_discriminator_returns_one_logit_per_pixel(texture_module, size):
    discriminator = Discriminator(4, size, texture_module)
    logits = discriminator(torch.randn(2, 3, *size))
    assert logits.shape == (2, 1, *size)
    assert any(isinstance(module, TexturePerceivingModule) for module in discriminator.modules()) == texture_module


def test_a_discriminator_without_texture_module_has_as_many_channels():
    with_module, without = (Discriminator(4, (16, 16), texture_module, 3) for texture_module in (True, False))
    assert with_module.head[0][0].in_channels == without.head[0][0].in_channels == 24


def test_logits_are_not_bounded():
    discriminator = Discriminator(4, (16, 16)).eval()
    with torch.no_grad():
        discriminator.head[-1].bias.fill_(7.0)
    assert discriminator(torch.randn(1, 3, 16, 16)).max() > 5  # loss and anomaly map apply the sigmoid of eq. 3


@pytest.mark.parametrize("texture_module", [True, False])
def test_the_receptive_field_of_a_logit_is_seven_by_seven_pixels(texture_module):
    torch.manual_seed(0)
    discriminator = Discriminator(8, (24, 24), texture_module).eval()
    image = torch.randn(1, 3, 24, 24, requires_grad=True)
    discriminator(image)[0, 0, 10, 12].backward()
    rows, columns = image.grad[0].abs().sum(0).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 13, 9, 15)


def test_exposure_of_an_image_has_no_effect(model):
    image = torch.rand(2, 3, *IMAGE_SIZE) * 0.5
    other = 0.6 * image + torch.tensor([0.1, 0.3, 0.5]).reshape(3, 1, 1)
    assert torch.allclose(model.eval()(other).anomaly_map, model(image).anomaly_map, atol=1e-4)


def test_normalised_images_have_zero_mean_and_the_given_contrast():
    model = HtpGanModel(IMAGE_SIZE, num_scales=2, min_size=16, width=2, contrast=0.3)
    image = torch.rand(2, 3, *IMAGE_SIZE) * torch.tensor([0.2, 1.0]).reshape(2, 1, 1, 1)
    result = model.normalise(image)
    assert torch.allclose(result.mean((-2, -1)), torch.zeros(2, 3), atol=1e-6)
    assert torch.allclose(result.std((1, 2, 3)), torch.full((2,), 0.3), atol=1e-3)


def test_normalising_keeps_the_proportions_of_an_image(model):
    image = torch.rand(1, 3, *IMAGE_SIZE)
    image[:, 2] *= 0.1
    original, result = (values - values.mean((-2, -1), keepdim=True) for values in (image, model.normalise(image)))
    factor = result.flatten()[0] / original.flatten()[0]
    assert torch.allclose(result, factor * original, atol=1e-6)


def test_noise_of_a_flat_image_is_not_blown_up(model):
    image = 0.5 + torch.randn(1, 3, *IMAGE_SIZE) * 0.1 / 255
    assert 0 < float(model.normalise(image).std()) < 0.1 * model.contrast
    assert not model.normalise(torch.full((1, 3, *IMAGE_SIZE), 0.5)).any()


class Fixed(nn.Module):
    """Discriminator that returns fixed logits and stores its input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.seen = torch.empty(0)

    def forward(self, image: Tensor) -> Tensor:
        """Return the fixed logits."""
        self.seen = image
        return self.logits


def with_logits(*logits: Tensor, fusion: str = "log_odds") -> HtpGanModel:
    model = HtpGanModel(IMAGE_SIZE, num_scales=len(logits), min_size=16, width=2, fusion=fusion)
    assert model.sizes == [tuple(values.shape[-2:]) for values in logits]
    model.discriminators = nn.ModuleList(Fixed(values) for values in logits)
    return model


SIZES = [(16, 24), (20, 29), (24, 36)]


@pytest.mark.parametrize(
    ("fusion", "expected"), [("log_odds", (-4 + 1 + 0) / 3), ("entropy", (0.0178283 + 0.3678794 + 0.3465736) / 3)]
)
def test_the_anomaly_map_is_the_mean_of_the_scales(fusion, expected):
    logits = [torch.full((1, 1, *size), value) for size, value in zip(SIZES, (4.0, -1.0, 0.0), strict=True)]
    anomaly_map = with_logits(*logits, fusion=fusion)(torch.rand(1, 3, *IMAGE_SIZE)).anomaly_map
    assert anomaly_map.shape == (1, 1, *IMAGE_SIZE)
    assert torch.allclose(anomaly_map, torch.full_like(anomaly_map, expected), atol=1e-5)


def test_scales_are_upsampled_to_the_image_size_before_the_mean():
    logits = [torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0)) for size in SIZES]
    anomaly_map = with_logits(*logits)(torch.rand(2, 3, *IMAGE_SIZE)).anomaly_map
    large = [functional.interpolate(-values, IMAGE_SIZE, mode="bilinear", align_corners=False) for values in logits]
    assert torch.allclose(anomaly_map, sum(large) / 3, atol=1e-6)


def test_a_spot_at_the_coarsest_scale_is_located_in_the_anomaly_map():
    logits = [torch.zeros(1, 1, *size) for size in SIZES]
    logits[0][0, 0, 12, 4] = -9.0
    anomaly_map = with_logits(*logits)(torch.rand(1, 3, *IMAGE_SIZE)).anomaly_map[0, 0]
    row, column = divmod(int(anomaly_map.argmax()), IMAGE_SIZE[1])
    assert abs((row + 0.5) / 24 - 12.5 / 16) < 1 / 24  # both as fractions of the height
    assert abs((column + 0.5) / 36 - 4.5 / 24) < 1 / 36


def test_the_score_is_the_mean_of_the_highest_share_of_the_map():
    logits = torch.zeros(1, 1, *IMAGE_SIZE)
    logits.view(-1)[: logits.numel() // 4] = -8.0  # log-odds of 8 in a quarter of the pixels
    sizes = pyramid_sizes(IMAGE_SIZE, 2, 16)
    model = HtpGanModel(IMAGE_SIZE, num_scales=2, min_size=16, width=2, fusion="log_odds", score_share=0.5)
    model.discriminators = nn.ModuleList([Fixed(torch.zeros(1, 1, *sizes[0])), Fixed(logits)])
    assert float(model(torch.rand(1, 3, *IMAGE_SIZE)).pred_score) == pytest.approx(2.0)  # half of 8 / 2 scales


def test_the_score_of_an_image_comes_from_its_fused_map():
    logits = [torch.randn(3, 1, *size) for size in SIZES]
    output = with_logits(*logits)(torch.rand(3, 3, *IMAGE_SIZE))
    assert output.pred_score.shape == (3,)
    assert torch.equal(output.pred_score, top_mean(output.anomaly_map, 0.01))


def test_each_discriminator_sees_the_image_at_its_scale():
    model = with_logits(*(torch.zeros(1, 1, *size) for size in SIZES))
    image = torch.rand(1, 3, *IMAGE_SIZE)
    model(image)
    for scale, discriminator in enumerate(model.discriminators):
        expected = functional.interpolate(model.normalise(image), SIZES[scale], mode="bicubic", antialias=True)
        assert torch.allclose(discriminator.seen, expected, atol=1e-5)
        assert torch.equal(model.at_scale(image, scale), discriminator.seen)


def test_the_anomaly_map_of_an_image_does_not_depend_on_the_others(model):
    images = torch.rand(3, 3, *IMAGE_SIZE)
    together = model.eval()(images).anomaly_map
    assert torch.allclose(together[1:2], model(images[1:2]).anomaly_map, atol=1e-5)


@pytest.mark.parametrize(
    ("image_size", "num_scales", "min_size", "expected"),
    [
        # each size is the previous one times the sixth root of 8
        ((256, 256), 7, 32, [(n, n) for n in (32, 45, 64, 91, 128, 181, 256)]),
        ((64, 64), 3, 16, [(16, 16), (32, 32), (64, 64)]),
        ((256, 256), 2, 32, [(32, 32), (256, 256)]),
        ((64, 128), 3, 16, [(16, 32), (32, 64), (64, 128)]),
        ((160, 40), 3, 20, [(80, 20), (113, 28), (160, 40)]),  # 20 times the root of 2 is 28.28
    ],
)
def test_the_pyramid_grows_in_equal_ratios_and_keeps_the_aspect_ratio(image_size, num_scales, min_size, expected):
    assert pyramid_sizes(image_size, num_scales, min_size) == expected


@pytest.mark.parametrize("num_scales", [2, 3, 6, 9, 12])
def test_the_papers_numbers_of_scales_give_different_sizes(num_scales):
    sizes = pyramid_sizes((256, 256), num_scales, 32)
    assert len(set(sizes)) == num_scales
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (((64, 64), 1, 32), "num_scales is 1; HTP-GAN's pyramid has 2 to 12 scales"),
        (((64, 64), 13, 32), "num_scales is 13; HTP-GAN's pyramid has 2 to 12 scales"),
        (((64, 96), 3, 64), r"min_size is 64; at an image size of \(64, 96\) it must be 16 to 63"),
        (((64, 64), 3, 15), r"min_size is 15; at an image size of \(64, 64\) it must be 16 to 63"),
    ],
)
def test_an_invalid_pyramid_is_rejected_in_one_line(arguments, line):
    with pytest.raises(InvalidInputError, match=f"^{line}$"):
        pyramid_sizes(*arguments)


def test_an_image_size_too_small_for_any_pyramid_is_rejected():
    with pytest.raises(InvalidInputError, match=r"^image_size is \(16, 16\); a pyramid needs more than 16 pixels"):
        HtpGanModel((16, 16), num_scales=2, min_size=16)


@pytest.mark.parametrize(("blocks", "head_kernel", "side"), [(1, 1, 5), (2, 1, 7), (3, 1, 9), (2, 3, 11), (3, 3, 13)])
def test_the_field_of_view_follows_the_blocks_and_the_head(blocks, head_kernel, side):
    torch.manual_seed(0)
    network = Discriminator(4, (31, 31), blocks=blocks, head_kernel=head_kernel).eval()
    image = torch.randn(1, 3, 31, 31, requires_grad=True)
    network(image)[0, 0, 15, 15].backward()
    seen = image.grad.abs().sum((0, 1)) > 0
    assert (int(seen.any(0).sum()), int(seen.any(1).sum())) == (side, side)


def test_weights_from_before_the_noise_had_an_amplitude_get_unit_noise(model):
    state = model.state_dict()
    del state["noise_amplitudes"]
    model.noise_amplitudes.fill_(0.3)
    model.load_state_dict(state)
    assert model.noise_amplitudes.tolist() == [1, 1, 1]
