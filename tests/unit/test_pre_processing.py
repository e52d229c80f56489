"""Exported pre-processing resizes as in training."""

import pytest
import torch
from anomalib.pre_processing import PreProcessor
from torch import Tensor
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Normalize, Resize, Transform

from anomalib_defect_plugins.pre_processing import AntialiasedPreProcessor

BICUBIC = InterpolationMode.BICUBIC
SMALLER = Resize((24, 32), interpolation=BICUBIC, antialias=True)
NORMALIZE = Normalize([0.1, 0.5, 0.9], [0.5, 0.6, 0.7])

TRANSFORMS = {
    "alone": SMALLER,
    "composed": Compose([SMALLER]),
    "before another": Compose([SMALLER, NORMALIZE]),
    "after another": Compose([NORMALIZE, SMALLER]),
    "nested": Compose([NORMALIZE, Compose([SMALLER, NORMALIZE])]),
    "larger": Resize((120, 140), interpolation=BICUBIC, antialias=True),
    "before a crop": Compose([SMALLER, CenterCrop((20, 24))]),
}


@pytest.fixture
def images() -> Tensor:
    """Large, oblong and noisy images, on which aliasing is visible."""
    return torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_exported_and_training_transforms_are_equal(images: Tensor, transform: Transform) -> None:
    pre_processor = AntialiasedPreProcessor(transform)
    assert torch.allclose(pre_processor(images), transform(images), atol=1e-5)


def test_the_transform_that_anomalib_exports_aliases(images: Tensor) -> None:
    assert (PreProcessor(SMALLER)(images) - SMALLER(images)).abs().max() > 0.1


@pytest.mark.parametrize("size", [(24, 32), (100, 40), (25, 200)])
def test_images_of_all_sizes_are_resized(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    assert torch.allclose(AntialiasedPreProcessor(SMALLER)(image), SMALLER(image), atol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_checkpoint_restores_both_transforms(images: Tensor, transform: Transform) -> None:
    config = AntialiasedPreProcessor(transform).checkpoint_config()
    restored = AntialiasedPreProcessor(Compose([Resize((8, 8), interpolation=BICUBIC, antialias=True)]))
    restored.load_checkpoint_config(config)
    assert torch.allclose(restored.transform(images), transform(images), atol=1e-6)
    assert torch.allclose(restored(images), transform(images), atol=1e-5)


@pytest.mark.parametrize(
    "transform",
    [
        Resize((24, 32), antialias=True),
        Resize((24, 32), interpolation=BICUBIC, antialias=False),
        Resize(24, interpolation=BICUBIC, antialias=True),
        Compose([Resize((24, 32), antialias=True), NORMALIZE]),
        Compose([SMALLER, Resize((12, 20), antialias=True)]),
    ],
    ids=["bilinear", "without antialiasing", "shorter side", "bilinear before another", "bilinear after bicubic"],
)
def test_other_transforms_are_exported_as_by_anomalib(images: Tensor, transform: Transform) -> None:
    result, reference = AntialiasedPreProcessor(transform)(images), PreProcessor(transform)(images)
    if isinstance(transform, Compose) and transform.transforms[0] is SMALLER:
        reference = PreProcessor(transform.transforms[1])(SMALLER(images))
    assert torch.allclose(result, reference, atol=1e-5)


def test_a_crop_is_replaced_by_the_exportable_one() -> None:
    names = [type(step).__name__ for step in AntialiasedPreProcessor(TRANSFORMS["before a crop"]).export_transform]
    assert names == ["Resize", "ExportableCenterCrop"]


def test_images_are_unchanged_without_transforms(images: Tensor) -> None:
    assert torch.equal(AntialiasedPreProcessor()(images), images)
