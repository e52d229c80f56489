"""Procedural defects: exact masks, reproducible draws, and kinds that look as their names say."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, label

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators import KINDS, ProceduralDefects, draw_defect, procedural

SEEDS = range(8)


def texture(shape: tuple[int, int, int] = (128, 128, 3), seed: int = 0) -> np.ndarray:
    grey = np.random.default_rng(seed).normal(0.5, 0.1, shape[:2])
    return np.repeat(np.clip(grey, 0, 1)[..., None], shape[2], axis=2).astype(np.float32)


def draw(kind: str, image: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return draw_defect(image, kind, np.random.default_rng(seed))


def eight_bits(image: np.ndarray) -> np.ndarray:
    return np.round(image * 255).astype(int)


def test_there_are_the_six_documented_kinds() -> None:
    assert set(KINDS) >= {"scratch", "crack", "hole", "stain", "blob", "missing_texture"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "image", [texture(), np.zeros((96, 96, 3)), np.ones((96, 96, 3))], ids=("grey", "black", "white")
)
def test_a_mask_holds_exactly_the_pixels_that_changed_visibly(kind: str, image: np.ndarray) -> None:
    for seed in SEEDS:
        result, mask = draw(kind, image, seed)
        change = np.abs(eight_bits(result) - eight_bits(image)).max(axis=2)
        assert mask.any()
        assert np.array_equal(result[~mask], image[~mask].astype(np.float32))
        assert change[mask].min() > 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 100, 1), (320, 480, 3), (1024, 1024, 1)], ids=str)
def test_defects_are_drawn_at_every_size_and_number_of_channels(kind: str, shape: tuple[int, int, int]) -> None:
    result, mask = draw(kind, texture(shape))
    assert result.shape == shape
    assert result.dtype == np.float32
    assert mask.shape == shape[:2]
    assert mask.dtype == bool
    assert 0 < mask.mean() < 0.5
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_defect_and_another_seed_a_different_one(kind: str) -> None:
    image = texture()
    first, again, other = draw(kind, image, 1), draw(kind, image, 1), draw(kind, image, 2)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_is_not_modified(kind: str) -> None:
    image = texture()
    before = image.copy()
    draw(kind, image)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("kind", ["crack", "hole", "stain"])
def test_dark_kinds_darken(kind: str) -> None:
    image = texture()
    for seed in SEEDS:
        result, mask = draw(kind, image, seed)
        assert result[mask].mean() < image[mask].mean() - 0.05


@pytest.mark.parametrize("kind", ["scratch", "blob"])
def test_kinds_of_either_tone_are_sometimes_bright_and_sometimes_dark(kind: str) -> None:
    image = texture()
    brighter = []
    for seed in range(20):
        result, mask = draw(kind, image, seed)
        brighter.append(result[mask].mean() > image[mask].mean())
    assert any(brighter)
    assert not all(brighter)


@pytest.mark.parametrize("kind", ["scratch", "crack"])
def test_lines_are_thin(kind: str) -> None:
    for seed in SEEDS:
        _, mask = draw(kind, texture((256, 256, 1)), seed)
        # At most 8 pixels: at crossings, lines may exceed their maximum width of 1.6 * 4 pixels.
        assert binary_erosion(mask, iterations=4).sum() < 0.02 * mask.sum()


def test_most_cracks_span_at_least_half_of_the_image() -> None:
    spans = []
    for seed in range(20):
        _, mask = draw("crack", texture((256, 256, 1)), seed)
        ys, xs = np.nonzero(mask)
        spans.append(np.hypot(np.ptp(ys), np.ptp(xs)) / 256)
    assert np.median(spans) > 0.5


@pytest.mark.parametrize("kind", ["hole", "stain", "blob", "missing_texture"])
def test_patches_are_connected(kind: str) -> None:
    for seed in SEEDS:
        _, mask = draw(kind, texture(), seed)
        assert label(mask)[1] == 1


def test_missing_texture_loses_its_contrast_and_keeps_its_brightness() -> None:
    image = texture()
    for seed in SEEDS:
        result, mask = draw("missing_texture", image, seed)
        assert result[mask].std() < 0.5 * image[mask].std()
        assert abs(result[mask].mean() - image[mask].mean()) < 0.05


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"unknown kind of defect 'dent'; choose one of .*missing_texture"):
        draw("dent", texture())


@pytest.mark.parametrize(
    "image",
    [np.zeros((64, 64)), np.zeros((16, 64, 3)), np.zeros((64, 64, 3), np.uint8)],
    ids=["no channels", "too small", "bytes"],
)
def test_an_invalid_array_is_refused_with_its_shape_and_dtype(image: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match=rf"not on {image.dtype} \({image.shape[0]}, "):
        draw("crack", image)


def test_the_generator_returns_the_exact_masks_of_draw_defect() -> None:
    image = texture()
    images = torch.from_numpy(image).permute(2, 0, 1).repeat(12, 1, 1, 1)
    defective, masks = ProceduralDefects()(images, torch.Generator().manual_seed(0))
    for result, mask in zip(defective.permute(0, 2, 3, 1).numpy(), masks[:, 0].numpy(), strict=True):
        change = np.abs(eight_bits(result) - eight_bits(image)).max(axis=2)
        assert np.array_equal(change > 2, mask)


def test_the_generator_draws_all_requested_kinds_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def record(image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        drawn.append(kind)
        return draw_defect(image, kind, rng)

    monkeypatch.setattr(procedural, "draw_defect", record)
    images = torch.full((80, 1, 32, 32), 0.5)
    ProceduralDefects()(images, torch.Generator().manual_seed(0))
    assert set(drawn) == set(KINDS)
    drawn.clear()
    ProceduralDefects(kinds=["crack", "hole"])(images, torch.Generator().manual_seed(0))
    assert set(drawn) == {"crack", "hole"}


def test_the_generator_draws_in_the_data_loading_workers() -> None:
    assert not ProceduralDefects.batched


def test_a_generator_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"kinds of ProceduralDefects is \['dent'\]; .* scratch, crack, hole"):
        ProceduralDefects(kinds=["dent"])
