"""Training images of the classifier."""

import pytest
import torch
from torch.nn import functional

from anomalib_defect_plugins.generators import CutPasteDefects, CutPasteScarDefects
from anomalib_defect_plugins.models.cutpaste.augmentation import TASKS, classes, vary


def textures(count: int = 4, size: tuple[int, int] = (64, 80)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("task", "generators"),
    [
        ("two_way", [CutPasteDefects]),
        ("scar", [CutPasteScarDefects]),
        ("three_way", [CutPasteDefects, CutPasteScarDefects]),
    ],
)
def test_each_image_appears_unchanged_and_with_the_patch_of_each_other_class_of_the_task(task, generators):
    normal = textures()
    images, labels = classes(normal, [generator() for generator in TASKS[task]], rng())
    assert labels.tolist() == [0] * 4 + [label for label, _ in enumerate(generators, 1) for _ in range(4)]
    assert torch.equal(images[:4], normal)
    for generator, part in zip(generators, images[4:].split(4), strict=True):
        changed = (part != normal).any(1).float().mean((1, 2))
        if generator is CutPasteDefects:
            assert (changed > 0.01).all()  # 2 to 15 % of an image, less if a patch is cut to fit
        else:
            assert ((changed > 0) & (changed < 0.01)).all()  # at 64 pixels a scar is 2 to 4 wide and 2.5 to 6 long


def test_without_shift_and_jitter_images_stay_unchanged():
    images = textures()
    assert torch.allclose(vary(images, None, 0.0, 0.0, rng()), images, atol=1e-5)


def test_images_are_shifted_and_mirrored_at_the_border():
    images = textures()
    shifted = vary(images, None, 0.125, 0.0, rng())
    wide = functional.pad(images, (10, 10, 8, 8), mode="reflect")
    offsets = []
    for image, source in zip(shifted, wide, strict=True):
        matches = [
            (top, left)
            for top in range(17)
            for left in range(21)
            if torch.allclose(source[:, top : top + 64, left : left + 80], image, atol=1e-5)
        ]
        assert len(matches) == 1
        offsets += matches
    assert len(set(offsets)) > 1


def test_crops_are_regions_of_their_image():
    images = textures()
    crops = vary(images, 32, 0.5, 0.0, rng())
    assert crops.shape == (4, 3, 32, 32)
    for crop, image in zip(crops, images, strict=True):
        patches = image.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
        assert (patches - crop).abs().amax((2, 3, 4)).min() < 1e-5


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_jittered_images_are_finite_and_in_range(level):
    images = torch.full((3, 3, 40, 40), level)
    varied = vary(images, None, 0.1, 0.5, rng())
    assert varied.isfinite().all()
    assert 0 <= varied.min() <= varied.max() <= 1


def test_equal_seeds_give_equal_images_and_another_seed_different_ones():
    images = textures()
    first, again, other = (vary(images, None, 0.1, 0.1, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
