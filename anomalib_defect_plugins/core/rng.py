"""Random generators seeded from a torch generator, so that one seed determines all random numbers."""

import numpy as np
import torch


def numpy_rng(rng: torch.Generator) -> np.random.Generator:
    """Return a numpy generator seeded from ``rng``, which advances."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))


def device_rng(rng: torch.Generator, device: torch.device) -> torch.Generator:
    """Return ``rng`` if it is on ``device``, else a generator on ``device`` seeded from it."""
    if device == rng.device:
        return rng
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
