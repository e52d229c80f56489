"""Poisson blending: the discrete equation and its border condition are satisfied."""

from typing import Any

import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators import PoissonDefects
from anomalib_defect_plugins.generators.poisson import blend, crop_and_scale, solve_poisson


def laplacian(image: Tensor) -> Tensor:
    """Return the five-point Laplacian (C, H - 2, W - 2) of an image (C, H, W)."""
    neighbours = image[:, 2:, 1:-1] + image[:, :-2, 1:-1] + image[:, 1:-1, 2:] + image[:, 1:-1, :-2]
    return neighbours - 4 * image[:, 1:-1, 1:-1]


def random_image(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pasted(inside: Tensor, target: Tensor) -> Tensor:
    result = target.clone()
    result[:, 1:-1, 1:-1] = inside
    return result


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("shape", [(3, 12, 30), (1, 90, 7), (3, 130, 130)])
def test_a_blended_patch_keeps_its_laplacian_and_meets_the_border_of_the_target(
    shape: tuple[int, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    patch, target = random_image(*shape, dtype=dtype), random_image(*shape, seed=1, dtype=dtype)
    # The Laplacian next to the ring includes its pixels, so this covers the border condition too.
    difference = laplacian(pasted(blend(patch, target), target)) - laplacian(patch)
    assert difference.abs().max() < tolerance


def test_blending_a_brighter_copy_of_the_target_restores_the_target() -> None:
    target = random_image(3, 40, 25)
    torch.testing.assert_close(blend(target + 0.3, target), target[:, 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_a_flat_pixel_becomes_the_mean_of_its_neighbours() -> None:
    target = torch.tensor([[[9.0, 1, 9], [2, 9, 3], [9, 6, 9]]])
    assert blend(torch.zeros(1, 3, 3), target).item() == pytest.approx((1 + 2 + 3 + 6) / 4)


def test_the_solution_for_two_unknowns_is_that_of_a_hand_calculation() -> None:
    # 4a - b = 15 and 4b - a = 0 give a = 4 and b = 1.
    torch.testing.assert_close(solve_poisson(torch.tensor([[[15.0, 0.0]]])), torch.tensor([[[4.0, 1.0]]]))


def test_the_patch_comes_from_another_image_of_the_batch() -> None:
    flat, rough = torch.full((3, 64, 64), 0.5), random_image(3, 64, 64)
    for seed in range(5):
        defective, masks = PoissonDefects(area=(0.05, 0.1))(
            torch.stack([flat, rough]), torch.Generator().manual_seed(seed)
        )
        assert defective[0].permute(1, 2, 0)[masks[0, 0]].std() > 0.1
        # A flat patch adopts the border and is harmonic inside.
        assert laplacian(defective[1])[:, masks[1, 0, 1:-1, 1:-1]].abs().max() < 1e-4


def test_the_patch_of_a_single_image_comes_from_elsewhere_in_it() -> None:
    image = 0.4 + 0.2 * random_image(1, 64, 64)
    generator = PoissonDefects(area=(0.02, 0.1), scale=(1, 1))
    for seed in range(5):
        defective, masks = generator(image[None], torch.Generator().manual_seed(seed))
        inside = masks[0, 0, 1:-1, 1:-1].nonzero()
        (top, left), (height, width) = inside.amin(0).tolist(), (inside.amax(0) - inside.amin(0) + 1).tolist()
        blended = laplacian(defective[0])[0, top : top + height, left : left + width]
        # Blending keeps the Laplacian, whose value at the first pixel identifies the origin of the patch.
        original = laplacian(image)[0]
        y, x = divmod(int((original - blended[0, 0]).abs().argmin()), original.shape[1])
        torch.testing.assert_close(blended, original[y : y + height, x : x + width], atol=1e-4, rtol=0)
        assert (y, x) != (top, left)


@pytest.mark.parametrize("side", [64, 256])
def test_rectangles_have_the_given_areas(side: int) -> None:
    images = random_image(48, 1, side, side)
    _, masks = PoissonDefects(area=(0.01, 0.1), aspect=(1, 1))(images, torch.Generator().manual_seed(0))
    sides = masks.flatten(1).sum(1).sqrt() / side
    # Squares of 1 to 10 % have sides of 0.1 to 0.316, +- half a pixel.
    assert 0.1 - 0.5 / side <= sides.min() < 0.13
    assert 0.28 < sides.max() <= 0.3163 + 0.5 / side


def test_a_patch_is_resized_from_the_requested_position() -> None:
    ramp = torch.arange(40.0).expand(1, 30, 40)
    patch = crop_and_scale(ramp, (5, 10), (8, 12), scale=2.0)
    # Columns 10 to 15 at double size: pixel i shows column 10 + (i + 0.5) / 2 - 0.5.
    assert patch.shape == (1, 8, 12)
    assert patch[0, 0, 1:-1].tolist() == [10 + (i + 0.5) / 2 - 0.5 for i in range(1, 11)]


def test_a_patch_that_would_leave_the_image_is_moved_inwards() -> None:
    ramp = torch.arange(40.0).expand(1, 30, 40)
    assert crop_and_scale(ramp, (25, 35), (10, 10), scale=1.0)[0, 0].tolist() == list(range(30, 40))
    assert crop_and_scale(ramp, (0, 0), (20, 20), scale=0.25).shape == (1, 20, 20)


@pytest.mark.parametrize("arguments", [{"area": (0.0, 0.1)}, {"aspect": (3, 1)}, {"scale": (0.1, 1)}], ids=str)
def test_an_invalid_argument_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"{next(iter(arguments))} of PoissonDefects is "):
        PoissonDefects(**arguments)
