"""Perturbations: each content is as its name says, with soft or hard edges."""

from typing import Any

import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators.perturb import CONTENTS, PerturbDefects, ShadingDefects, soft_edges


def stripes(count: int = 12) -> Tensor:
    column = 0.5 + 0.1 * torch.sin(torch.arange(64) / 2)
    return column.expand(count, 1, 64, 64) + 0.02 * torch.rand(count, 1, 64, 64)


def draw(content: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, defective images of full opacity, and masks."""
    images = stripes()
    generator = PerturbDefects(contents=[content], opacity=(1.0, 1.0), kinds=["ellipse"], most=1)
    return images, *generator(images, torch.Generator().manual_seed(seed))


def masked_pixels(images: Tensor, result: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the pixels inside the larger masks before and after."""
    pairs = [(before[inside], after[inside]) for before, after, inside in zip(images, result, mask, strict=True)]
    return [(before, after) for before, after in pairs if len(before) > 60]


def test_tone_leaves_one_grey_level() -> None:
    contrasts = [after.std() for _, after in masked_pixels(*draw("tone"))]
    assert min(contrasts) < 1e-6  # those with hard edges


def test_offset_keeps_the_texture() -> None:
    deviations = [(after - before).std() for before, after in masked_pixels(*draw("offset"))]
    assert min(deviations) < 1e-6  # those with hard edges


def test_fade_lowers_the_contrast_and_boost_raises_it() -> None:
    faded, boosted = (
        [
            float(after.std() / before.std())
            for seed in range(5)
            for before, after in masked_pixels(*draw(content, seed))
        ]
        for content in ("fade", "boost")
    )
    assert len(faded) > 10
    assert max(faded) < 1
    assert min(boosted) > 1.2


def test_elsewhere_is_texture_of_another_image() -> None:
    images = torch.stack([torch.full((1, 64, 64), level) for level in (0.2, 0.8)])
    generator = PerturbDefects(contents=["elsewhere"], opacity=(1.0, 1.0), kinds=["ellipse"], most=1)
    result, mask = generator(images, torch.Generator().manual_seed(1))
    # 0.7 to 1.3 times the other tone, +- 0.1: nearer to the other in both.
    assert result[0][mask[0]].max() > 0.4
    assert result[1][mask[1]].min() < 0.4


def test_soft_edges_rise_from_the_border_inwards() -> None:
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:24, 8:24] = True
    opacity = soft_edges(mask)[0, 0]
    assert torch.equal(opacity > 0, mask[0, 0])
    assert opacity.max() == 1
    line = opacity[16, 8:16]
    assert (line.diff() >= 0).all()
    assert line[0] < 0.8


def test_every_content_is_drawn_in_a_large_batch() -> None:
    images = stripes(60)
    changed = PerturbDefects()(images, torch.Generator().manual_seed(0))[0]
    assert ((changed - images).flatten(1).abs().amax(1) > 0).all()
    assert set(CONTENTS) == {"tone", "offset", "fade", "boost", "elsewhere", "noise", "shade"}


def test_shading_is_large_and_shallow() -> None:
    images = stripes(60)
    changed, masks = ShadingDefects()(images, torch.Generator().manual_seed(0))
    change = (changed - images).abs()[masks.expand_as(images)]
    assert masks.float().mean() > 0.08  # a defect of perturb covers 0.03 on average
    assert float(change.median()) < 0.25


def test_images_have_two_defects_on_average_with_a_maximum_of_three() -> None:
    images = torch.full((600, 1, 64, 64), 0.5)
    one, several = (
        PerturbDefects(["tone"], most=most)(images, torch.Generator().manual_seed(0))[1].float().mean()
        for most in (1, 3)
    )
    assert 1.7 < several / one < 2.3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"contents": ["glitter"]}, "contents of PerturbDefects is .*glitter"),
        ({"opacity": (0.0, 1.0)}, "opacity of PerturbDefects is"),
        ({"kinds": []}, "kinds of PerturbDefects is"),
        ({"most": 0}, "most of PerturbDefects is 0"),
    ],
)
def test_an_invalid_argument_is_refused(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidInputError, match=line):
        PerturbDefects(**arguments)
