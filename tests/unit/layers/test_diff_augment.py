"""Differentiable augmentation: what each policy changes, its randomness and its gradient."""

import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers.diff_augment import POLICIES, DiffAugment


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 16, 24, generator=rng(7)) * 2 - 1


def test_without_a_policy_images_and_random_numbers_stay_as_they_are():
    given, generator = images(), rng()
    assert DiffAugment()(given, generator) is given
    assert torch.equal(generator.get_state(), rng().get_state())


@pytest.mark.parametrize("name", POLICIES)
def test_each_image_is_augmented_by_itself_and_the_same_seed_repeats_it(name):
    same = images(1).expand(4, -1, -1, -1)
    first, second, other = (DiffAugment([name])(same, rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not all(torch.equal(first[0], image) for image in first[1:])


@pytest.mark.parametrize("name", POLICIES)
def test_a_gradient_passes_through(name):
    given = images().requires_grad_()
    DiffAugment([name])(given, rng()).sum().backward()
    assert given.grad.abs().sum() > 0


def test_color_shifts_and_scales_but_keeps_the_texture():
    given = images()
    grey = given.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    changed = DiffAugment(["color"])(grey, rng())
    for before, after in zip(grey, changed, strict=True):
        ratio = (after - after.mean()) / (before - before.mean())
        assert ratio.std() < 1e-3
        assert 0.5 <= ratio.mean() <= 1.5
        assert abs(after.mean() - before.mean()) <= 0.5


def test_translation_moves_by_at_most_an_eighth_and_fills_with_0():
    # The brightest pixel moves by at most 2 rows of 16 and 3 columns of 24.
    given = torch.zeros(50, 1, 16, 24)
    given[:, :, 8, 12] = 1
    moved = DiffAugment(["translation"])(given, rng()).flatten(1).argmax(1)
    rows, columns = moved // 24 - 8, moved % 24 - 12
    assert set(rows.tolist()) == {-2, -1, 0, 1, 2}
    assert set(columns.tolist()) == {-3, -2, -1, 0, 1, 2, 3}


def test_cutout_hides_a_rectangle_of_half_the_sides():
    hidden = DiffAugment(["cutout"])(torch.ones(50, 1, 16, 24), rng()) == 0
    assert hidden.sum((1, 2, 3)).max() == 9 * 13  # a quarter of the side to both sides of the centre
    assert hidden.any(dim=3).sum(2).max() == 9


def test_an_unknown_policy_is_refused():
    with pytest.raises(
        InvalidInputError, match=r"^diff_augment is \['blur'\]; it must be a list of some of color, tra"
    ):
        DiffAugment(["blur"])
