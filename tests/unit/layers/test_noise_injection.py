"""Noise injection: the identity at first, then noise of the learned strength."""

import pytest
import torch

from anomalib_defect_plugins.layers import NoiseInjection


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_block_starts_as_the_identity_and_its_strength_has_a_gradient() -> None:
    block, x = NoiseInjection(), torch.randn(2, 3, 4, 4)
    result = block(x, rng())
    assert torch.equal(result, x)
    result.square().sum().backward()
    assert block.strength.grad.abs() > 0


def test_the_noise_is_gaussian_of_the_learned_strength_and_independent_in_each_channel() -> None:
    block = NoiseInjection()
    block.strength.data.fill_(0.5)
    noise = block(torch.zeros(4, 2, 64, 64), rng()).detach()
    # 32768 numbers: within five standard errors.
    assert noise.mean() == pytest.approx(0, abs=5 * 0.5 / 32768**0.5)
    assert noise.std() == pytest.approx(0.5, rel=5 / (2 * 32768) ** 0.5)
    assert torch.corrcoef(noise.transpose(0, 1).flatten(1))[0, 1].abs() < 0.05


def test_without_a_random_generator_there_is_no_noise() -> None:
    block, x = NoiseInjection(), torch.randn(2, 3, 4, 4)
    block.strength.data.fill_(1.0)
    assert torch.equal(block(x), x)


def test_the_same_seed_yields_the_same_noise() -> None:
    block, x = NoiseInjection(), torch.zeros(1, 2, 4, 4)
    block.strength.data.fill_(1.0)
    assert torch.equal(block(x, rng(1)), block(x, rng(1)))
    assert not torch.equal(block(x, rng(1)), block(x, rng(2)))
