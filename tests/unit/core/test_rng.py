"""Random generators seeded from a torch generator."""

import torch

from anomalib_defect_plugins.core.rng import device_rng, numpy_rng


def test_the_torch_generator_advances_when_a_numpy_one_is_seeded() -> None:
    rng = torch.Generator().manual_seed(0)
    assert numpy_rng(rng).random() != numpy_rng(rng).random()


def test_a_generator_on_the_device_is_returned_itself() -> None:
    rng = torch.Generator()
    assert device_rng(rng, torch.device("cpu")) is rng
