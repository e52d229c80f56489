"""Otsu's threshold, and empty masks of normal images."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from skimage.filters import threshold_otsu

from anomalib_defect_plugins.models.isugan.post_processing import ImageOtsuPostProcessor, otsu_threshold


def test_the_threshold_is_between_two_classes():
    # {1, 2, 3} and {9, 10, 11}; the threshold is the highest value of the lower class, and masks are above it.
    assert otsu_threshold(torch.tensor([[10.0, 1.0, 2.0, 9.0, 3.0, 11.0]])).tolist() == [3.0]


def test_the_threshold_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    maps = np.stack([np.concatenate([rng.normal(0.2, 0.05, 900), rng.normal(high, 0.1, 100)]) for high in (0.5, 0.8)])
    thresholds = otsu_threshold(torch.from_numpy(maps)).numpy()
    for values, threshold in zip(maps, thresholds, strict=True):
        expected = threshold_otsu(values, nbins=4096)
        assert ((values > threshold) != (values > expected)).mean() < 0.002


def maps() -> torch.Tensor:
    """Return a normal map of faint noise, and the same with a bright square."""
    torch.manual_seed(0)
    both = 0.1 * torch.rand(1, 1, 16, 16).repeat(2, 1, 1, 1)
    both[1, :, 4:8, 4:8] += 0.5
    return both


@pytest.fixture
def post_processor() -> ImageOtsuPostProcessor:
    """Post-processor with an image threshold of 0.3 and the range of ``maps``."""
    processor = ImageOtsuPostProcessor()
    for name, value in (("_image_threshold", 0.3), ("image_min", 0.1), ("image_max", 0.6)):
        getattr(processor, name).fill_(value)
    for name, value in (("_pixel_threshold", 0.59), ("pixel_min", 0.0), ("pixel_max", 0.6)):
        getattr(processor, name).fill_(value)  # a pixel threshold that almost no pixel exceeds
    return processor


def expected() -> torch.Tensor:
    mask = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    mask[1, :, 4:8, 4:8] = True
    return mask


def test_a_normal_image_has_an_empty_mask_and_a_defective_one_otsus(post_processor):
    anomaly_map = maps()
    output = post_processor(InferenceBatch(pred_score=anomaly_map.amax((1, 2, 3)), anomaly_map=anomaly_map))
    assert output.pred_label.tolist() == [False, True]
    assert torch.equal(output.pred_mask, expected())


def test_batches_are_processed_as_in_the_exported_graph(post_processor):
    anomaly_map = maps()
    batch = ImageBatch(image=torch.zeros(2, 3, 16, 16), anomaly_map=anomaly_map, pred_score=anomaly_map.amax((1, 2, 3)))
    graph = post_processor(InferenceBatch(pred_score=batch.pred_score, anomaly_map=batch.anomaly_map))
    post_processor.post_process_batch(batch)
    assert torch.equal(batch.pred_mask.reshape(expected().shape), expected())
    for name in ("pred_score", "pred_label", "anomaly_map"):
        assert torch.equal(getattr(batch, name).flatten(), getattr(graph, name).flatten()), name


def test_without_thresholds_there_is_no_mask(post_processor):
    post_processor.enable_thresholding = False
    output = post_processor(InferenceBatch(pred_score=torch.ones(2), anomaly_map=maps()))
    assert output.pred_mask is None
