"""Networks that describe images."""

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


def test_an_image_has_the_same_features_in_any_batch(tiny: Extractor):
    images = list(torch.rand(35, 3, 20, 24, generator=torch.Generator().manual_seed(0)))
    found = tiny(iter(images))  # two batches
    assert found.shape == (35, 96)  # timm's test_resnet has 96
    np.testing.assert_allclose(found[[0, 34]], tiny([images[0], images[34]]), atol=1e-5)


def test_only_the_distance_on_features_of_inception_is_called_fid(tiny: Extractor):
    assert Extractor("inception", tiny.network).measure == "FID"
    assert tiny.measure == "squared Fréchet distance on features of tiny"


def test_a_model_that_timm_does_not_have_is_told_of():
    with pytest.raises(InvalidInputError, match="timm gives no model 'no_net' with its weights"):
        make_extractor("no_net")


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is installed")
def test_without_torch_fidelity_there_is_no_inception_and_no_silent_stand_in():
    with pytest.raises(InvalidInputError, match=r"Inception network of FID cannot be had .*; install torch-fidelity"):
        make_extractor("inception")
