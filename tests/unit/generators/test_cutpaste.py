"""CutPaste and CutPaste-Scar: patches of the sizes in the paper, from elsewhere in the same image."""

import numpy as np
import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators import CutPasteDefects, CutPasteScarDefects, DefectGenerator
from anomalib_defect_plugins.generators.cutpaste import jitter_colours, rotate


def numbered(channels: int = 1, side: int = 64) -> Tensor:
    """An image (1, C, side, side) whose pixels are all different, so that each tells where it was."""
    values = torch.arange(side * side).reshape(1, 1, side, side) / (side * side)
    return torch.cat([values, 1 - values, 0.5 * values], dim=1)[:, :channels]


def defects(generator: DefectGenerator, images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    return generator(images, torch.Generator().manual_seed(seed))


def boxes(masks: Tensor) -> np.ndarray:
    """Top, left, height and width (B, 4) of the masks' bounding boxes."""
    points = [mask[0].nonzero().numpy() for mask in masks]
    return np.array([[*found.min(0), *(np.ptp(found, axis=0) + 1)] for found in points])


def noise(batch: int = 64, side: int = 256) -> Tensor:
    return torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(0))


def test_rectangles_have_the_areas_and_aspects_of_the_paper():
    _, masks = defects(CutPasteDefects(), noise())
    _, _, height, width = boxes(masks).T
    assert (masks.flatten(1).sum(1).numpy() == height * width).all()
    # 2 to 15 per cent and 0.3 to 3.3, in whole pixels: half a pixel of the 20 of the shortest side is 2.5 per cent.
    share = height * width / 256**2
    assert 0.0195 < share.min() < 0.03
    assert 0.13 < share.max() < 0.154
    assert 0.29 < (width / height).min() < 0.4
    assert 2.5 < (width / height).max() < 3.4
    # Log-uniform: ln 3.3 / ln 11 = 50 per cent are wider than high.
    assert 0.3 < (width > height).mean() < 0.7


@pytest.mark.parametrize("channels", [1, 3])
def test_without_jitter_the_patch_is_a_rectangle_from_elsewhere_in_the_same_image(channels: int):
    images = numbered(channels)
    for seed in range(8):
        defective, masks = defects(CutPasteDefects(jitter=0), images, seed)
        top, left, height, width = boxes(masks)[0]
        patch = defective[0, :, top : top + height, left : left + width]
        y, x = divmod(round(float(patch[0, 0, 0]) * 64 * 64), 64)
        torch.testing.assert_close(patch, images[0, :, y : y + height, x : x + width], atol=1e-5, rtol=0)
        assert 2 * abs(y - top) >= height or 2 * abs(x - left) >= width


def test_jitter_of_a_tenth_changes_a_flat_patch_by_a_tenth_at_most():
    grey = torch.full((1, 8, 8), 0.5)
    levels = np.array([float(jitter_colours(grey, 0.1, np.random.default_rng(seed)).mean()) for seed in range(100)])
    # Contrast has no effect on a flat patch; brightness is a factor of 0.9 to 1.1.
    assert 0.45 <= levels.min() < 0.46
    assert 0.54 < levels.max() <= 0.55


def test_jitter_turns_the_hue_of_a_coloured_patch_by_a_tenth_of_a_turn_at_most():
    red = torch.tensor([0.8, 0.2, 0.2])[:, None, None].expand(3, 8, 8)
    for seed in range(20):
        r, g, b = jitter_colours(red, 0.1, np.random.default_rng(seed))[:, 0, 0].tolist()
        # From red, a sixth of a turn brings green or blue up to red: 0.1 of a turn brings them 0.6 of the way.
        assert max(g, b) - min(g, b) <= 0.6 * (r - min(g, b)) + 1e-5


@pytest.mark.parametrize("side", [256, 512])
def test_scars_have_the_size_of_the_paper_and_scale_with_the_image(side: int):
    _, masks = defects(CutPasteScarDefects(rotation=0), noise(48, side))
    _, _, length, width = boxes(masks).T
    scale = side // 256
    assert 10 * scale <= length.min() < 13 * scale
    assert 22 * scale < length.max() <= 25 * scale
    assert 2 * scale <= width.min() < 5 * scale
    assert 13 * scale < width.max() <= 16 * scale


def test_scars_lean_by_up_to_45_degrees_to_either_side():
    _, masks = defects(CutPasteScarDefects(length=(60, 60), width=(3, 3)), noise(48))
    leans = []
    for mask in masks:
        spread = np.cov(mask[0].nonzero().numpy().T)
        leans.append(np.degrees(0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])))
    assert -46.5 < min(leans) < -30  # rows and columns are whole: a degree of a line of 60 pixels is one pixel
    assert 30 < max(leans) < 46.5


def test_a_rotated_patch_keeps_its_area_and_its_pixels():
    patch = numbered(1, 32)[0, :, :20, :6] + 0.1
    canvas, shape = rotate(patch, 30)
    assert int(shape.sum()) == pytest.approx(20 * 6, rel=0.05)
    assert torch.isin(canvas[0][shape], patch).all()
    assert (canvas[0][~shape] == 0).all()


def test_a_quarter_turn_is_exact():
    patch = numbered(3, 32)[0, :, :20, :6] + 0.1
    canvas, shape = rotate(patch, 90)
    assert torch.equal(canvas, patch.rot90(1, (1, 2)))
    assert shape.all()


def test_the_smallest_images_get_scars_of_two_pixels_at_least():
    for seed in range(10):
        _, masks = defects(CutPasteScarDefects(), noise(8, 32), seed)
        assert masks.flatten(1).sum(1).min() >= 3


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (CutPasteDefects, {"area": (0.1, 0.5)}, r"area of CutPasteDefects is \(0.1, 0.5\); .* within 0.0001 and 0.3"),
        (CutPasteDefects, {"area": (0.2, 0.1)}, "area of .*the least and the greatest"),
        (CutPasteDefects, {"aspect": (0.0, 1.0)}, "aspect of CutPasteDefects"),
        (CutPasteDefects, {"jitter": 0.7}, "jitter of CutPasteDefects is 0.7; it must be within 0 and 0.5"),
        (CutPasteScarDefects, {"width": (2, 16, 20)}, "width of CutPasteScarDefects"),
        (CutPasteScarDefects, {"length": (0, 16)}, "length of CutPasteScarDefects"),
        (CutPasteScarDefects, {"rotation": -10}, "rotation of CutPasteScarDefects is -10"),
        (CutPasteScarDefects, {"jitter": float("nan")}, "jitter of CutPasteScarDefects is nan"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(make: type, arguments: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        make(**arguments)
