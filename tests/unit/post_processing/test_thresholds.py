"""Thresholds of any post-processor, anomalib's own included, replaced without training."""

import pytest
import torch
from anomalib.data import InferenceBatch
from anomalib.post_processing import PostProcessor
from torch import nn

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.post_processing import DefectPostProcessor, RegionPostProcessor, set_thresholds

SCORES = torch.tensor([1.0, 2.0, 3.0, 5.0, 8.0, 13.0])


def trained(cls: type[PostProcessor], **arguments: object) -> PostProcessor:
    post = cls(**arguments)
    for name, value in (("_image_threshold", 6.0), ("image_min", 1.0), ("image_max", 13.0)):
        getattr(post, name).fill_(value)
    return post


@pytest.mark.parametrize("cls", [PostProcessor, DefectPostProcessor])
@pytest.mark.parametrize("arguments", [{}, {"image_sensitivity": 0.3}, {"enable_normalization": False}])
@pytest.mark.parametrize("validated", [True, False])
def test_images_at_or_above_the_new_threshold_are_defective(
    cls: type[PostProcessor], arguments: dict[str, object], validated: bool
) -> None:
    post = trained(cls, **arguments) if validated else cls(**arguments)
    set_thresholds(post, image=2.5)
    assert post(InferenceBatch(pred_score=SCORES)).pred_label.tolist() == [False, False, True, True, True, True]
    again = cls()
    again.load_state_dict(post.state_dict())
    again.load_checkpoint_config(post.checkpoint_config())
    assert again(InferenceBatch(pred_score=SCORES)).pred_label.tolist() == [False, False, True, True, True, True]


def test_the_pixel_threshold_changes_masks_only() -> None:
    post = trained(DefectPostProcessor)
    set_thresholds(post, pixel=4.0)
    result = post(InferenceBatch(pred_score=SCORES, anomaly_map=SCORES.reshape(6, 1, 1, 1)))
    assert result.pred_mask.flatten().tolist() == [False] * 3 + [True] * 3
    assert result.pred_label.tolist() == [False] * 4 + [True] * 2


def test_verdict_mask_and_score_of_regions_agree() -> None:
    maps = torch.rand(32, 1, 12, 12)
    post = RegionPostProcessor(min_area=6)
    set_thresholds(post, pixel=0.75)
    result = post(InferenceBatch(anomaly_map=maps))
    assert torch.equal(result.pred_label, result.pred_mask.flatten(1).any(1))
    assert torch.equal(result.pred_label, result.pred_score >= 0.5)
    assert 0 < result.pred_label.sum() < 32


@pytest.mark.parametrize(
    ("post", "threshold", "error", "line"),
    [
        (None, 1.0, ConfigurationError, "the model has no post-processor with thresholds"),
        (nn.Identity(), 1.0, ConfigurationError, "the model has no post-processor with thresholds"),
        (PostProcessor(), float("nan"), InvalidInputError, "the image threshold is nan; it must be a finite number"),
    ],
)
def test_what_cannot_be_set_is_one_line(
    post: nn.Module | None, threshold: float, error: type[Exception], line: str
) -> None:
    with pytest.raises(error, match=line):
        set_thresholds(post, image=threshold)
