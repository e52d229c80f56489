"""Eq. 5 to 12 on cases calculated by hand."""

import math

import pytest
import torch
from torch import nn

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.models.defectgan.loss import (
    LossWeights,
    Task,
    adversarial_loss,
    class_loss,
    critic_loss,
    discriminate,
    discriminator_losses,
    generator_losses,
    gradient_penalty,
    map_cycle_loss,
    map_size_loss,
    paired_losses,
    reconstruction_loss,
)
from anomalib_defect_plugins.models.defectgan.torch_model import Synthesized, compose


def test_the_adversarial_losses_are_those_of_a_wasserstein_gan():
    real, fake = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 2.0])
    assert critic_loss(real, fake).item() == 1.5 - 4
    assert adversarial_loss(fake).item() == -1.5


def test_the_penalty_is_the_squared_distance_of_the_gradients_norm_from_1():
    # The gradient of the score is (3, 4) everywhere, with norm 5; the sum of two such scores has twice that.
    weights = torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2)
    real, fake, position = torch.rand(2, 1, 1, 2), torch.rand(2, 1, 1, 2), torch.rand(2, 1, 1, 1)
    assert gradient_penalty(lambda x: (weights * x).sum((1, 2, 3)), real, fake, position).item() == pytest.approx(16)
    twice = gradient_penalty(lambda x: (weights * x).sum((1, 2, 3))[:, None].expand(-1, 2), real, fake, position)
    assert twice.item() == pytest.approx(81)


def test_the_penalty_is_taken_between_the_real_image_and_the_fake_one():
    # The score is the square x^2, whose gradient at x is 2x: 2 * (0.25 * 4 + 0.75 * 0) = 2.
    real, fake = torch.full((1, 1, 1, 1), 4.0), torch.zeros(1, 1, 1, 1)
    penalty = gradient_penalty(torch.square, real, fake, torch.full((1, 1, 1, 1), 0.25))
    assert penalty.item() == pytest.approx((2 - 1) ** 2)


def test_the_penalty_has_a_gradient_for_the_discriminator_and_not_for_the_generator():
    layer, fake = nn.Conv2d(1, 1, 1), torch.rand(1, 1, 2, 2, requires_grad=True)
    gradient_penalty(layer, torch.rand(1, 1, 2, 2), fake, torch.rand(1, 1, 1, 1)).backward()
    assert layer.weight.grad.abs().sum() > 0
    assert fake.grad is None


def test_mutually_exclusive_types_have_a_cross_entropy_with_a_class_for_normal():
    # Probabilities 1/2, 1/4, 1/4 of "normal", first and second type.
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert class_loss(logits, torch.tensor([[0.0, 0.0]]), False).item() == pytest.approx(math.log(2))
    assert class_loss(logits, torch.tensor([[0.0, 1.0]]), False).item() == pytest.approx(math.log(4))


def test_independent_types_have_a_binary_cross_entropy_each_and_normal_images_have_no_type():
    # The sigmoid of log(3) is 3/4. Images with both types, the first one only, none: mean of the sums over both types.
    logits = torch.tensor([[math.log(3), math.log(3)]] * 3)
    labels = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    hit, miss = math.log(4 / 3), math.log(4)
    expected = (2 * hit + (hit + miss) + 2 * miss) / 3
    assert class_loss(logits, labels, True).item() == pytest.approx(expected)


def test_the_losses_of_images_and_maps_are_mean_absolute_values():
    ones = torch.ones(2, 1, 4, 4)
    assert reconstruction_loss(ones, -ones).item() == 2  # eq. 8
    assert map_cycle_loss(0.75 * ones, 0.5 * ones).item() == 0.25  # eq. 9
    assert map_size_loss(0.75 * ones, 0.5 * ones).item() == 1.25  # eq. 10


class Painter(nn.Module):
    """Generator that blends images with white for a defect and with black otherwise; it ignores the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, image, control, rng):
        foreground = self.weight * (2 * control[:, :1] - 1).expand_as(image)
        return compose(image, foreground, torch.where(control[:, :1] > 0, 0.5, 0.25).expand_as(image[:, :1]))


class Mean(nn.Module):
    """Discriminator whose score is the mean of an image; both classes are equally likely."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, image):
        score = self.weight * image.mean((1, 2, 3))
        return score, torch.stack([0 * score, 0 * score], 1)


@pytest.fixture
def task():
    """A normal image of 0 and a defective one of 0.8, each with the label of the other as its target."""
    images = torch.zeros(2, 1, 4, 4)
    images[1] = 0.8
    labels = torch.tensor([[0.0], [1.0]])
    return Task(images, labels, labels.roll(1, 0), False)


def rng():
    return torch.Generator().manual_seed(0)


def test_the_discriminators_losses_are_those_of_equation_11_with_their_weights(task):
    generator, discriminator = Painter(), Mean()
    losses = discriminator_losses(generator, discriminator, task, LossWeights(), rng(), rng())
    # Fakes: n -> d is 0.5 * 0 + 0.5 * 1 = 0.5; d -> n is 0.75 * 0.8 - 0.25 = 0.35. The gradient of the mean of 16
    # numbers has norm 1/4.
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {
            "critic_loss": (0.5 + 0.35) / 2 - (0 + 0.8) / 2,
            "penalty_loss": 10 * (0.25 - 1) ** 2,
            "real_class_loss": 2 * math.log(2),
        },
        abs=1e-6,
    )
    sum(losses.values()).backward()
    assert generator.weight.grad is None


def test_the_generators_losses_are_those_of_equation_12_with_their_weights(task):
    losses, maps = generator_losses(Painter(), Mean(), task, LossWeights(), rng())
    # Reconstructions: 0.75 * 0.5 - 0.25 = 0.125 for n, 0.5 * 0.35 + 0.5 = 0.675 for d. Maps: 0.5 and 0.25.
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {
            "adversarial_loss": -(0.5 + 0.35) / 2,
            "fake_class_loss": 5 * math.log(2),
            "reconstruction_loss": 5 * (0.125 + 0.125) / 2,
            "map_cycle_loss": 5 * 0.25,
            "map_size_loss": 0.75 / 2 * 2,
        },
        abs=1e-6,
    )
    assert maps.mean((1, 2, 3)).tolist() == [0.5, 0.25]


def test_map_losses_with_weight_0_are_omitted(task):
    losses, _ = generator_losses(Painter(), Mean(), task, LossWeights(map_cycle=0, map_size=0), rng())
    assert set(losses) == {"adversarial_loss", "fake_class_loss", "reconstruction_loss"}


class ClassScores(nn.Module):
    """Discriminator with a score for each of three classes: 1, 2 and 4 times the mean of an image."""

    def forward(self, image):
        factors = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
        return factors * image.mean((1, 2, 3), keepdim=True), None


@pytest.mark.parametrize(
    ("label", "score"), [([0.0, 0.0], 1.0), ([1.0, 0.0], 2.0), ([0.0, 1.0], 4.0), ([1.0, 1.0], 3.0)]
)
def test_a_score_per_class_is_that_of_normal_of_the_type_or_the_mean_over_the_types(label, score):
    scores, logits = discriminate(ClassScores(), torch.ones(1, 3, 2, 2), torch.tensor([label]))
    assert scores.flatten().tolist() == [score]
    assert logits is None


def test_with_a_score_per_class_there_are_no_class_losses():
    images = torch.stack([torch.full((1, 4, 4), 0.0), torch.full((1, 4, 4), 0.8)])
    labels = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    task = Task(images, labels, labels.roll(1, 0), False)
    losses = discriminator_losses(Painter(), ClassScores(), task, LossWeights(), rng(), rng())
    assert set(losses) == {"critic_loss", "penalty_loss"}
    # Real: 1 * 0 for normal and 4 * 0.8. Fake: Painter paints by the first type only, so 0.75 * 0 - 0.25 = -0.25 as a
    # defect and 0.75 * 0.8 - 0.25 = 0.35 as normal.
    assert losses["critic_loss"].item() == pytest.approx((4 * -0.25 + 0.35) / 2 - (0 + 4 * 0.8) / 2)
    assert "fake_class_loss" not in generator_losses(Painter(), ClassScores(), task, LossWeights(), rng())[0]


def test_real_and_fake_images_are_augmented_for_both_networks_and_the_cycle_is_not(task):
    seen = []

    def augment(images):
        seen.append(images.detach())
        return images + 1

    plain, changed = task, task._replace(augment=augment)
    before = generator_losses(Painter(), Mean(), plain, LossWeights(), rng())[0]
    after = generator_losses(Painter(), Mean(), changed, LossWeights(), rng())[0]
    assert after["adversarial_loss"].item() == pytest.approx(before["adversarial_loss"].item() - 1)
    assert after["reconstruction_loss"] == before["reconstruction_loss"]
    seen.clear()
    losses = discriminator_losses(Painter(), Mean(), changed, LossWeights(), rng(), rng())
    assert len(seen) == 2  # fake and real
    expected = discriminator_losses(Painter(), Mean(), plain, LossWeights(), rng(), rng())["critic_loss"]
    assert losses["critic_loss"].item() == pytest.approx(expected.item())  # both shifted by 1


class Square(DefectGenerator):
    """Generator of one white quarter."""

    name = "square"

    def draw(self, images, rng):
        masks = torch.zeros_like(images[:, :1], dtype=torch.bool)
        masks[..., :16, :16] = True
        return torch.where(masks, 1.0, images), masks


def test_the_paired_losses_compare_with_the_clean_image_and_the_mask():
    """A restoration that subtracts nothing and marks a quarter with 0.75 everywhere."""

    class Idle(nn.Module):
        categories = 2

        def forward(self, image, control, rng):
            assert control.shape == (1, 2, 1, 1)
            assert not control.any()
            return Synthesized(image, torch.full_like(image[:, :1], 0.75))

    losses = paired_losses(Idle(), torch.zeros(1, 3, 32, 32), Square(), LossWeights(reconstruction=2), rng(), rng())
    assert losses["paired_loss"].item() == pytest.approx(2 * 0.25)  # from 0 to 1 on a quarter
    place = -(0.25 * math.log(0.75) + 0.75 * math.log(0.25))
    assert losses["paired_map_loss"].item() == pytest.approx(2 * place)
