"""Random masks: many shapes and sizes, never empty, never most of the image."""

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
    """Return each mask's maximum distance of a pixel to the outside: 1 for lines of one or two pixels."""
    return np.array([distance_transform_edt(mask).max() for mask in masks[:, 0].numpy()])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", MASK_KINDS)
def test_masks_are_never_empty_and_never_most_of_the_image(kind: str, size: tuple[int, int]) -> None:
    masks = draw([kind], size)
    assert masks.shape == (96, 1, *size)
    assert masks.dtype == torch.bool
    assert masks.flatten(1).sum(1).min() >= 2
    assert shares(masks).max() < (1 / 3 if kind in LOCAL_KINDS else 0.55)


def test_bands_cross_the_image_and_cover_from_a_twentieth_to_nearly_half_of_it() -> None:
    masks = draw(["band"])
    covered = shares(masks)
    # Widths are 0.05 to 0.4 of the side; the longest band, on the diagonal, covers 1 - (1 - 0.4 / sqrt 2)^2 = 49 %.
    assert 0.02 < covered.min() < 0.07
    assert 0.35 < covered.max() < 0.55
    borders = masks[..., [0, -1], :].any((1, 2, 3)) | masks[..., [0, -1]].any((1, 2, 3))
    assert borders.all()


def test_bands_are_drawn_only_on_request() -> None:
    assert "band" not in LOCAL_KINDS
    assert shares(draw()).max() < 1 / 3


def test_blobs_cover_from_less_than_a_hundredth_to_a_fifth_of_the_image() -> None:
    covered = shares(draw(["blobs"]))
    # 0.4 to 20 %; the threshold is estimated from every 16th pixel, of which at least 16 are inside: +- a quarter.
    assert 0.003 < covered.min() < 0.01
    assert 0.1 < covered.max() < 0.22


def test_strokes_cover_at_most_their_length_times_their_width() -> None:
    # At most as long as the image, 0.05 of it wide and 45 degrees steep: 0.05 * sqrt 2.
    assert shares(draw(["stroke"])).max() < 0.071


def test_many_strokes_are_hairlines_and_others_are_wide() -> None:
    widths = half_widths(draw(["stroke"]))
    # Log-uniform from 1 to 12.8 pixels: ln 2 / ln 12.8 = 27 % are at most 2 pixels wide.
    assert 0.15 < (widths <= 1.01).mean() < 0.5
    assert widths.max() > 4


def test_a_stroke_is_connected_however_thin() -> None:
    for mask in draw(["stroke"])[:, 0].numpy():
        _, components = label(np.pad(mask, 1), np.ones((3, 3)))
        ys, xs = np.nonzero(mask)
        touches_border = ys.min() == 0 or xs.min() == 0 or ys.max() == 255 or xs.max() == 255
        assert components == 1 or touches_border  # a wave may leave the image and re-enter it


def test_ellipses_range_from_small_to_large() -> None:
    widths = half_widths(draw(["ellipse"]))
    assert widths.min() < 0.02 * 256
    assert widths.max() > 0.1 * 256


@pytest.mark.parametrize("kind", ["blobs", "ellipse"])
def test_masks_other_than_strokes_scale_with_the_image(kind: str) -> None:
    small, large = (half_widths(draw([kind], (side, side))) / side for side in (128, 256))
    assert np.median(small) == pytest.approx(np.median(large), rel=0.35)


def test_a_batch_mixes_the_kinds() -> None:
    # Blobs have several components and strokes one, so a mixed batch has both.
    components = np.array([label(mask)[1] for mask in draw(["blobs", "stroke"])[:, 0].numpy()])
    assert 0.3 < (components > 1).mean() < 0.7


def test_the_same_seed_yields_the_same_masks_and_another_seed_different_ones() -> None:
    assert torch.equal(draw(seed=1), draw(seed=1))
    assert not torch.equal(draw(seed=1), draw(seed=2))


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"kinds of masks is \['dots'\]; .* some of blobs, ellipse, stroke"):
        draw(["dots"])
