"""Masks of synthetic defects mark what changed: pixels of the region that keep their value are not defective."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.core.defect_generator import VISIBLE, DefectGenerator, visible_change
from anomalib_defect_plugins.generators import PerturbDefects, PoissonDefects


class HalfChanged(DefectGenerator):
    """Marks the left half, changes only its upper half."""

    name: ClassVar[str] = "half"

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        del rng
        changed, mask = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        mask[..., :16] = True
        changed[..., :16, :16] += 0.5
        return changed, mask


def test_a_mask_leaves_out_what_did_not_change():
    images = torch.full((1, 3, 32, 32), 0.25)
    _, mask = HalfChanged()(images)
    assert mask[0, 0, :16, :16].all()
    assert mask.sum() == 16 * 16


def test_gaps_of_up_to_four_pixels_are_closed_and_larger_ones_are_not():
    images, changed = torch.zeros(2, 1, 1, 40, 40)
    for start, stop in ((0, 8), (12, 20), (25, 33)):  # gaps of 4 and 5 pixels
        changed[..., start:stop] = 1
    row = visible_change(images, changed)[0, 0, 20]
    assert row[:20].all()
    assert not row[20:25].any()


def test_a_change_that_8_bits_cannot_show_is_not_marked():
    images = torch.full((1, 1, 32, 32), 0.5)
    assert not visible_change(images, images + 0.99 * VISIBLE).any()
    assert visible_change(images, images + 1.01 * VISIBLE).all()


@pytest.mark.parametrize(
    "generator",
    [PerturbDefects(), PerturbDefects(contents=["fade"]), PoissonDefects()],
    ids=["perturb", "fade", "poisson"],
)
def test_marked_pixels_of_a_smooth_texture_differ_or_are_next_to_one_that_does(generator):
    rng = torch.Generator().manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(16, 1, 16, 16, generator=rng), (128, 128), mode="bicubic")
    images = images.clamp(0, 1)
    defective, mask = generator(images, rng)
    changed = ((defective - images).abs() > VISIBLE).float()
    near = torch.nn.functional.max_pool2d(changed, 5, 1, 2) > 0
    assert mask.any()
    assert (near | ~mask).all()
    assert float(changed[mask].mean()) > 0.8
