"""Random masks: of every shape and size, never empty, never most of the image."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators import LOCAL_KINDS, MASK_KINDS, random_masks

SIZES = [(32, 32), (48, 96), (32, 200), (256, 256)]


def draw(kinds: list[str] | None = None, size: tuple[int, int] = (256, 256), count: int = 96, seed: int = 0) -> Tensor:
    return random_masks(count, size, torch.Generator().manual_seed(seed), kinds=kinds)


def shares(masks: Tensor) -> Tensor:
    return masks.float().mean((1, 2, 3))


def half_widths(masks: Tensor) -> np.ndarray:
    """For each mask the distance of its innermost pixel to the outside: 1 for lines of one or two pixels."""
    return np.array([distance_transform_edt(mask).max() for mask in masks[:, 0].numpy()])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", MASK_KINDS)
def test_masks_are_neither_empty_nor_most_of_the_image(kind: str, size: tuple[int, int]):
    masks = draw([kind], size)
    assert masks.shape == (96, 1, *size)
    assert masks.dtype == torch.bool
    assert masks.flatten(1).sum(1).min() >= 2
    assert shares(masks).max() < (1 / 3 if kind in LOCAL_KINDS else 0.55)


def test_bands_cross_the_image_and_cover_from_a_twentieth_to_nearly_half_of_it():
    masks = draw(["band"])
    covered = shares(masks)
    # 0.05 to 0.4 of the side wide; the longest, along the diagonal, covers 1 - (1 - 0.4 / sqrt 2)^2 = 49 per cent.
    assert 0.02 < covered.min() < 0.07
    assert 0.35 < covered.max() < 0.55
    borders = masks[..., [0, -1], :].any((1, 2, 3)) | masks[..., [0, -1]].any((1, 2, 3))
    assert borders.all()


def test_bands_are_drawn_only_where_they_are_asked_for():
    assert "band" not in LOCAL_KINDS
    assert shares(draw()).max() < 1 / 3


def test_blobs_cover_from_less_than_a_hundredth_to_a_fifth_of_the_image():
    covered = shares(draw(["blobs"]))
    # 0.4 to 20 per cent; the threshold comes from each sixteenth pixel, 16 of them at the least: a quarter off at most.
    assert 0.003 < covered.min() < 0.01
    assert 0.1 < covered.max() < 0.22


def test_strokes_cover_no_more_than_their_length_times_their_width():
    # As long as the image and 0.05 of it wide at most, never steeper than 45 degrees to its own axis: 0.05 * sqrt 2.
    assert shares(draw(["stroke"])).max() < 0.071


def test_a_good_part_of_the_strokes_are_hairlines_and_others_are_wide():
    widths = half_widths(draw(["stroke"]))
    # Log-uniform from 1 to 12.8 pixels: ln 2 / ln 12.8 = 27 per cent are no wider than 2 pixels.
    assert 0.15 < (widths <= 1.01).mean() < 0.5
    assert widths.max() > 4


def test_a_stroke_is_one_piece_however_thin():
    for mask in draw(["stroke"])[:, 0].numpy():
        inner = np.pad(mask, 1)
        _, pieces = label(inner, np.ones((3, 3)))
        ys, xs = np.nonzero(mask)
        leaves = ys.min() == 0 or xs.min() == 0 or ys.max() == 255 or xs.max() == 255
        assert pieces == 1 or leaves  # a wave may leave the image and come back


def test_ellipses_are_of_all_sizes():
    widths = half_widths(draw(["ellipse"]))
    assert widths.min() < 0.02 * 256
    assert widths.max() > 0.1 * 256


@pytest.mark.parametrize("kind", ["blobs", "ellipse"])
def test_all_but_hairlines_scale_with_the_image(kind: str):
    small, large = (half_widths(draw([kind], (side, side))) / side for side in (128, 256))
    assert np.median(small) == pytest.approx(np.median(large), rel=0.35)


def test_a_batch_mixes_the_kinds():
    # Strokes are thin and blobs come in pieces, so pieces and widths of a mixed batch spread over those of either.
    pieces = [label(mask)[1] for mask in draw(["blobs", "stroke"])[:, 0].numpy()]
    assert 0.3 < np.mean(np.array(pieces) > 1) < 0.7


def test_the_same_state_gives_the_same_masks_and_another_others():
    assert torch.equal(draw(seed=1), draw(seed=1))
    assert not torch.equal(draw(seed=1), draw(seed=2))


def test_an_unknown_kind_is_answered_with_the_known_ones():
    with pytest.raises(InvalidInputError, match=r"kinds of masks is \['dots'\]; .* some of blobs, ellipse, stroke"):
        draw(["dots"])
