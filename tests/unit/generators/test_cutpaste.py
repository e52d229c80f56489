"""CutPaste and CutPaste-Scar: patches of the paper's sizes, from elsewhere in the same image."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators import CutPasteDefects, CutPasteScarDefects, DefectGenerator
from anomalib_defect_plugins.generators.cutpaste import jitter_colours, rotate


def numbered(channels: int = 1, side: int = 64) -> Tensor:
    """Return an image (1, C, side, side) of distinct pixels, whose values identify their positions."""
    values = torch.arange(side * side).reshape(1, 1, side, side) / (side * side)
    return torch.cat([values, 1 - values, 0.5 * values], dim=1)[:, :channels]


def defects(generator: DefectGenerator, images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    return generator(images, torch.Generator().manual_seed(seed))


def boxes(masks: Tensor) -> np.ndarray:
    """Return top, left, height and width (B, 4) of the masks' bounding boxes."""
    pixels = [mask[0].nonzero().numpy() for mask in masks]
    return np.array([[*points.min(0), *(np.ptp(points, axis=0) + 1)] for points in pixels])


def noise(batch: int = 64, side: int = 256) -> Tensor:
    return torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(0))


def test_rectangles_have_the_areas_and_aspects_of_the_paper() -> None:
    # Before the pixels that the pasted texture leaves unchanged are removed.
    _, masks = CutPasteDefects().draw(noise(), torch.Generator().manual_seed(0))
    _, _, height, width = boxes(masks).T
    assert (masks.flatten(1).sum(1).numpy() == height * width).all()
    # 2 to 15 % and 0.3 to 3.3, rounded to pixels: half a pixel of the shortest side of 20 is 2.5 %.
    share = height * width / 256**2
    assert 0.0195 < share.min() < 0.03
    assert 0.13 < share.max() < 0.154
    assert 0.29 < (width / height).min() < 0.4
    assert 2.5 < (width / height).max() < 3.4
    # Log-uniform: ln 3.3 / ln 11 = 50 % are wider than high.
    assert 0.3 < (width > height).mean() < 0.7


@pytest.mark.parametrize("channels", [1, 3])
def test_without_jitter_the_patch_is_a_rectangle_from_elsewhere_in_the_same_image(channels: int) -> None:
    images = numbered(channels)
    for seed in range(8):
        defective, masks = defects(CutPasteDefects(jitter=0), images, seed)
        top, left, height, width = boxes(masks)[0]
        patch = defective[0, :, top : top + height, left : left + width]
        y, x = divmod(round(float(patch[0, 0, 0]) * 64 * 64), 64)
        torch.testing.assert_close(patch, images[0, :, y : y + height, x : x + width], atol=1e-5, rtol=0)
        assert 2 * abs(y - top) >= height or 2 * abs(x - left) >= width


def test_jitter_of_a_tenth_changes_a_flat_patch_by_at_most_a_tenth() -> None:
    grey = torch.full((1, 8, 8), 0.5)
    levels = np.array([float(jitter_colours(grey, 0.1, np.random.default_rng(seed)).mean()) for seed in range(100)])
    # Contrast has no effect on a flat patch; brightness is a factor of 0.9 to 1.1.
    assert 0.45 <= levels.min() < 0.46
    assert 0.54 < levels.max() <= 0.55


def test_jitter_of_a_tenth_shifts_the_hue_by_at_most_a_tenth_of_a_turn() -> None:
    red = torch.tensor([0.8, 0.2, 0.2])[:, None, None].expand(3, 8, 8)
    for seed in range(20):
        r, g, b = jitter_colours(red, 0.1, np.random.default_rng(seed))[:, 0, 0].tolist()
        # From red, a sixth of a turn raises green or blue to the level of red; 0.1 of a turn is 0.6 of that.
        assert max(g, b) - min(g, b) <= 0.6 * (r - min(g, b)) + 1e-5


@pytest.mark.parametrize("side", [256, 512])
def test_scars_have_the_size_of_the_paper_and_scale_with_the_image(side: int) -> None:
    _, masks = defects(CutPasteScarDefects(rotation=0), noise(48, side))
    _, _, length, width = boxes(masks).T
    scale = side // 256
    assert 10 * scale <= length.min() < 13 * scale
    assert 22 * scale < length.max() <= 25 * scale
    assert 2 * scale <= width.min() < 5 * scale
    assert 13 * scale < width.max() <= 16 * scale


def test_scars_are_rotated_by_up_to_45_degrees_to_either_side() -> None:
    _, masks = defects(CutPasteScarDefects(length=(60, 60), width=(3, 3)), noise(48))
    angles = []
    for mask in masks:
        spread = np.cov(mask[0].nonzero().numpy().T)
        angles.append(np.degrees(0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])))
    assert -46.5 < min(angles) < -30  # within a pixel: one degree of a line of 60 pixels
    assert 30 < max(angles) < 46.5


def test_a_rotated_patch_keeps_its_area_and_its_pixels() -> None:
    patch = numbered(1, 32)[0, :, :20, :6] + 0.1
    canvas, shape = rotate(patch, 30)
    assert int(shape.sum()) == pytest.approx(20 * 6, rel=0.05)
    assert torch.isin(canvas[0][shape], patch).all()
    assert (canvas[0][~shape] == 0).all()


def test_a_quarter_turn_is_exact() -> None:
    patch = numbered(3, 32)[0, :, :20, :6] + 0.1
    canvas, shape = rotate(patch, 90)
    assert torch.equal(canvas, patch.rot90(1, (1, 2)))
    assert shape.all()


def test_scars_on_the_smallest_images_are_at_least_two_pixels_wide() -> None:
    for seed in range(10):
        _, masks = defects(CutPasteScarDefects(), noise(8, 32), seed)
        assert masks.flatten(1).sum(1).min() >= 3


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (CutPasteDefects, {"area": (0.1, 0.5)}, r"area of CutPasteDefects is \(0.1, 0.5\); .* from 0.0001 to 0.3"),
        (CutPasteDefects, {"area": (0.2, 0.1)}, "area of .*the least and the greatest"),
        (CutPasteDefects, {"aspect": (0.0, 1.0)}, "aspect of CutPasteDefects"),
        (CutPasteDefects, {"jitter": 0.7}, "jitter of CutPasteDefects is 0.7; it must be from 0 to 0.5"),
        (CutPasteScarDefects, {"width": (2, 16, 20)}, "width of CutPasteScarDefects"),
        (CutPasteScarDefects, {"length": (0, 16)}, "length of CutPasteScarDefects"),
        (CutPasteScarDefects, {"rotation": -10}, "rotation of CutPasteScarDefects is -10"),
        (CutPasteScarDefects, {"jitter": float("nan")}, "jitter of CutPasteScarDefects is nan"),
    ],
)
def test_an_invalid_argument_is_refused(cls: type[DefectGenerator], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        cls(**arguments)
