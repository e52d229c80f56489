"""The contract of defect generators: exact masks, reproducible defects, and no changes outside the masks."""
# ruff: noqa: S101, D102 - these classes consist of asserts, and a test's name is its description

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.core.defect_generator import VISIBLE, DefectGenerator

SIZES = ((64, 64), (48, 96), (256, 256))
"""Heights and widths in pixels: small, oblong and usual."""

every_shape = pytest.mark.parametrize(
    ("batch", "channels", "size"),
    [(batch, channels, size) for batch in (1, 5) for channels in (1, 3) for size in SIZES],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else None,
)


class GeneratorContract:
    """Tests that every defect generator must pass."""

    def make_generator(self) -> DefectGenerator:
        """Return the generator under test."""
        raise NotImplementedError

    def defects(self, images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Draw on images, shape (B, C, H, W); return defective images, same shape, and masks, shape (B, 1, H, W)."""
        return self.make_generator()(images, torch.Generator().manual_seed(seed))

    def test_its_name_is_an_identifier(self) -> None:
        name = self.make_generator().name
        assert name.isidentifier(), f"{name!r} is not an identifier, so it cannot be registered"

    @every_shape
    def test_results_have_the_shape_of_the_images(self, batch: int, channels: int, size: tuple[int, int]) -> None:
        images = textures(batch, channels, size)
        defective, masks = self.defects(images)
        assert (defective.shape, defective.dtype) == (images.shape, torch.float32)
        assert (masks.shape, masks.dtype) == ((batch, 1, *size), torch.bool)
        assert defective.min() >= 0
        assert defective.max() <= 1

    @every_shape
    def test_masks_on_textures_are_neither_empty_nor_half_of_the_image(
        self, batch: int, channels: int, size: tuple[int, int]
    ) -> None:
        for seed in range(4):
            _, masks = self.defects(textures(batch, channels, size), seed)
            share = masks.float().mean((1, 2, 3))
            assert share.min() > 0, f"seed {seed}: image {share.argmin()} has no defect"
            assert share.max() < 0.5, f"seed {seed}: the defect of image {share.argmax()} covers {share.max():.0%}"

    @every_shape
    def test_pixels_change_visibly_inside_the_mask_and_not_at_all_outside(
        self, batch: int, channels: int, size: tuple[int, int]
    ) -> None:
        images = textures(batch, channels, size)
        defective, masks = self.defects(images)
        change = (defective - images).abs().amax(1, keepdim=True)
        assert (change * ~masks).max() <= 1 / 255, "a pixel outside the mask changed"
        assert ((change * masks).flatten(1).amax(1) > VISIBLE).all(), "a mask marks an invisible defect"

    def test_an_empty_batch_stays_empty(self) -> None:
        images = textures()[:0]
        defective, masks = self.defects(images)
        assert defective.shape == images.shape
        assert masks.shape == images[:, :1].shape
        assert masks.dtype == torch.bool

    def test_input_images_are_not_modified(self) -> None:
        images = textures()
        before = images.clone()
        self.defects(images)
        assert torch.equal(images, before)

    @pytest.mark.parametrize("level", [0.0, 0.5, 1.0], ids=("black", "grey", "white"))
    @pytest.mark.parametrize("channels", [1, 3])
    def test_images_without_texture_are_drawn_on_or_left_alone(self, level: float, channels: int) -> None:
        images = torch.full((3, channels, 64, 80), level)
        defective, masks = self.defects(images)
        assert defective.isfinite().all()
        changed = ((defective - images).abs() > VISIBLE).flatten(1).any(1)
        assert torch.equal(changed, masks.flatten(1).any(1)), (
            "an image has a mask but no change, or a change but no mask"
        )

    def test_equal_random_states_give_equal_defects_and_others_different_ones(self) -> None:
        images = textures()
        first, again, other = (self.defects(images, seed)[0] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_successive_calls_give_different_defects(self) -> None:
        generator, rng = self.make_generator(), torch.Generator().manual_seed(0)
        first, second = (generator(textures(), rng)[0] for _ in range(2))
        assert not torch.equal(first, second)

    def test_equal_images_of_a_batch_get_different_defects(self) -> None:
        images = textures(1).repeat(5, 1, 1, 1)
        defective, _ = self.defects(images)
        for row in range(1, 5):
            assert not torch.equal(defective[row], defective[row - 1])

    def test_global_random_states_are_unchanged_if_a_generator_is_passed(self) -> None:
        before = _random_states()
        self.defects(textures())
        assert _random_states() == before

    def test_seed_of_torch_determines_defects_if_no_generator_is_passed(self) -> None:
        images, generator = textures(), self.make_generator()
        results = []
        with torch.random.fork_rng():
            for seed in (1, 1, 2):
                torch.manual_seed(seed)
                results.append(generator(images)[0])
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    def test_it_works_in_inference_mode_and_requires_no_gradient(self) -> None:
        expected = self.defects(textures())[0]
        assert not expected.requires_grad
        with torch.inference_mode():
            assert torch.equal(self.defects(textures())[0], expected)

    def test_mixed_precision_changes_nothing(self) -> None:
        expected = self.defects(textures())[0]
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(self.defects(textures())[0], expected)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_images_on_a_gpu_stay_there(self) -> None:
        defective, masks = self.defects(textures().cuda())
        assert defective.is_cuda
        assert masks.is_cuda
        assert masks.flatten(1).any(1).all()


def textures(batch: int = 5, channels: int = 3, size: tuple[int, int] = (64, 64)) -> Tensor:
    """Return noisy stripes of fixed random angle and phase, shape (B, C, H, W), float in [0, 1]."""
    rng = torch.Generator().manual_seed(0)
    angle, phase = 2 * torch.pi * torch.rand(2, batch, 1, 1, 1, generator=rng)
    y, x = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    stripes = torch.sin((angle.cos() * x + angle.sin() * y) * 2 * torch.pi / 9 + phase)
    noise = torch.randn(batch, channels, *size, generator=rng)
    return (0.5 + 0.12 * stripes + 0.04 * noise).clamp(0, 1)


def _random_states() -> tuple[bytes, bytes, object]:
    """Return the global random states of torch, numpy and Python."""
    numpy_state = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), numpy_state.tobytes(), random.getstate()
