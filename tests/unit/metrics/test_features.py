"""Feature extractors."""

import importlib.util

import numpy as np
import pytest
import torch

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.metrics.features import Extractor, ResizedFeatures, make_extractor


@pytest.fixture(scope="module")
def tiny() -> Extractor:
    torch.manual_seed(0)
    return Extractor("tiny", ResizedFeatures("test_resnet", pre_trained=False).eval())


def test_an_image_has_the_same_features_in_any_batch(tiny: Extractor) -> None:
    images = list(torch.rand(35, 3, 20, 24, generator=torch.Generator().manual_seed(0)))
    features = tiny(iter(images))  # two batches
    assert features.shape == (35, 96)  # timm's test_resnet has 96
    np.testing.assert_allclose(features[[0, 34]], tiny([images[0], images[34]]), atol=1e-5)


def test_only_the_distance_of_inception_features_is_called_fid(tiny: Extractor) -> None:
    assert Extractor("inception", tiny.network).measure == "FID"
    assert tiny.measure == "squared Fréchet distance on features of tiny"


def test_a_model_that_timm_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="timm cannot load model 'no_net' with its weights"):
        make_extractor("no_net")


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is installed")
def test_inception_without_torch_fidelity_is_refused_with_a_remedy() -> None:
    with pytest.raises(InvalidInputError, match=r"Inception network of FID cannot be loaded .*; install torch-fid"):
        make_extractor("inception")
