"""Random crops, mirroring and colour variation of training images."""

import pytest
import torch
from torch import Tensor

from anomalib_defect_plugins.models.components.augmentation import Augmentation
from anomalib_defect_plugins.models.sidn import Sidn


@pytest.fixture
def ramp() -> Tensor:
    """Eight equal images in which every pixel differs."""
    torch.manual_seed(0)
    return (0.3 + torch.arange(64 * 96.0).reshape(1, 1, 64, 96) / 64 / 96 / 4).expand(8, 3, -1, -1).contiguous()


def test_without_variation_crops_are_mirrored_parts_of_the_image(ramp):
    crops = Augmentation((32, 48), vary=False)(ramp)
    assert crops.shape == (8, 3, 32, 48)
    assert torch.isin(crops, ramp).all()
    along, down = crops[..., 1:] - crops[..., :-1], crops[..., 1:, :] - crops[..., :-1, :]
    mirrored = {(bool(a.mean() < 0), bool(d.mean() < 0)) for a, d in zip(along, down, strict=True)}
    assert len(mirrored) > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_varied_images_differ_in_brightness_and_stay_in_range(ramp, dtype):
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        varied = Augmentation(None, vary=True)(ramp)
    assert varied.shape == ramp.shape
    assert varied.dtype == torch.float32
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert varied.mean((1, 2, 3)).std() > 0.03


def test_mixed_precision_does_not_move_pixels(ramp):
    torch.manual_seed(1)
    full = Augmentation(None, vary=True)(ramp)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = Augmentation(None, vary=True)(ramp)
    assert torch.equal(full, mixed)


def test_masks_move_with_their_defects():
    torch.manual_seed(0)
    masks = torch.zeros(16, 1, 64, 96, dtype=torch.bool)
    masks[:, :, 20:40, 30:70] = True
    images = torch.where(masks, 0.7, 0.2).expand(-1, 3, -1, -1)
    varied, moved = Augmentation(None, vary=True).with_masks(images, masks)
    middle = (varied.amin((1, 2, 3), keepdim=True) + varied.amax((1, 2, 3), keepdim=True)) / 2
    bright = varied[:, :1] > middle
    common = (moved & bright).sum((1, 2, 3)) / (moved | bright).sum((1, 2, 3))
    assert common.min() > 0.9
    assert (moved != masks).flatten(1).any(1).sum() > 8
    assert moved.dtype == torch.bool


def test_a_crop_larger_than_the_image_is_the_image(ramp):
    model = Sidn((64, 96), None, crop_size=80)
    assert model.augmentation(ramp).shape == (8, 3, 64, 80)


def test_checkpoints_contain_no_augmentation_state():
    assert not [name for name in Sidn((64, 64), None).state_dict() if "augmentation" in name]
