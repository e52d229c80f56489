"""The exported pre-processing resizes as training did."""

import pytest
import torch
from anomalib.pre_processing import PreProcessor
from torch import Tensor
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Normalize, Resize

from anomalib_defect_plugins.pre_processing import AntialiasedPreProcessor

BICUBIC = InterpolationMode.BICUBIC
SMALLER = Resize((24, 32), interpolation=BICUBIC, antialias=True)
NORMALIZE = Normalize([0.1, 0.5, 0.9], [0.5, 0.6, 0.7])

TRANSFORMS = {
    "alone": SMALLER,
    "in a row": Compose([SMALLER]),
    "before another": Compose([SMALLER, NORMALIZE]),
    "after another": Compose([NORMALIZE, SMALLER]),
    "in a row in a row": Compose([NORMALIZE, Compose([SMALLER, NORMALIZE])]),
    "larger": Resize((120, 140), interpolation=BICUBIC, antialias=True),
    "beside a crop": Compose([SMALLER, CenterCrop((20, 24))]),
}


@pytest.fixture
def images() -> Tensor:
    """Larger than the models want them, not square, and grainy, so that aliasing would show."""
    return torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_exported_and_training_transforms_agree(images, transform):
    pre_processor = AntialiasedPreProcessor(transform)
    assert torch.allclose(pre_processor(images), transform(images), atol=1e-5)


def test_anomalibs_own_export_would_alias(images):
    assert (PreProcessor(SMALLER)(images) - SMALLER(images)).abs().max() > 0.1


@pytest.mark.parametrize("size", [(24, 32), (100, 40), (25, 200)])
def test_images_of_every_size_are_resized(size):
    image = torch.rand(1, 3, *size)
    assert torch.allclose(AntialiasedPreProcessor(SMALLER)(image), SMALLER(image), atol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_checkpoint_restores_both_transforms(images, transform):
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
    ids=["bilinear", "without antialiasing", "shorter side", "bilinear before another", "bilinear after ours"],
)
def test_what_is_no_such_resize_is_exported_as_anomalib_does(images, transform):
    result, reference = AntialiasedPreProcessor(transform)(images), PreProcessor(transform)(images)
    if isinstance(transform, Compose) and transform.transforms[0] is SMALLER:
        reference = PreProcessor(transform.transforms[1])(SMALLER(images))
    assert torch.allclose(result, reference, atol=1e-5)


def test_a_crop_beside_it_is_the_one_that_can_be_exported():
    kinds = [type(part).__name__ for part in AntialiasedPreProcessor(TRANSFORMS["beside a crop"]).export_transform]
    assert kinds == ["Resize", "ExportableCenterCrop"]


def test_without_transforms_images_stay_as_they_are(images):
    assert torch.equal(AntialiasedPreProcessor()(images), images)
