"""What is outside a region of interest changes nothing, and inside nothing changes."""

import pytest
import torch
from anomalib.data import InferenceBatch
from torch import Tensor

from anomalib_defect_plugins.layers.region import Region, fill_outside

REGION = torch.zeros(12, 16, dtype=torch.bool)
REGION[3:9, 2:13] = True


def images(seed: int) -> Tensor:
    return torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(seed))


def test_filled_images_do_not_depend_on_what_is_outside() -> None:
    inside, outside = images(0), images(1)
    first, second = fill_outside(inside, REGION), fill_outside(torch.where(REGION, inside, outside), REGION)
    assert torch.equal(first, second)
    assert torch.equal(first[..., REGION], inside[..., REGION])
    assert torch.allclose(first[:, :, 0, 0], inside[..., REGION].mean(-1))


def test_a_region_of_the_whole_image_changes_no_bit() -> None:
    whole = torch.ones(5, 7, dtype=torch.bool)
    assert torch.equal(fill_outside(images(0), torch.ones(12, 16, dtype=torch.bool)), images(0))
    maps = images(0)[:, :1]
    output = InferenceBatch(pred_score=maps.amax((1, 2, 3)), anomaly_map=maps)
    region = Region(whole)
    restricted = region.restrict(output, region.inside(12, 16))
    assert torch.equal(restricted.anomaly_map, maps)
    assert torch.equal(restricted.pred_score, output.pred_score)


@pytest.mark.parametrize("shape", [(2, 1, 12, 16), (2, 12, 16)])
def test_maps_have_their_lowest_value_outside_and_scores_are_the_highest_value_inside(shape: tuple[int, ...]) -> None:
    maps = images(2)[:, 0].reshape(shape)
    region = Region(REGION)
    output = region.restrict(InferenceBatch(pred_score=maps.amax((-2, -1)), anomaly_map=maps), region.inside(12, 16))
    assert output.anomaly_map.shape == shape
    for before, after, score in zip(maps, output.anomaly_map, output.pred_score, strict=True):
        assert torch.equal(after[..., REGION], before[..., REGION])
        assert (after[..., ~REGION] == before[..., REGION].min()).all()
        assert score == before[..., REGION].max()


def test_a_score_of_its_own_is_not_replaced() -> None:
    maps = images(2)[:, :1]
    region = Region(REGION)
    for scores in (maps.mean((1, 2, 3)), maps.amax((1, 2, 3))):  # it was not the highest value once
        output = region.restrict(InferenceBatch(pred_score=scores, anomaly_map=maps), region.inside(12, 16))
        assert torch.equal(output.pred_score, scores)


def test_a_constant_map_does_not_tell_what_scores_are() -> None:
    constant = torch.full((1, 1, 12, 16), 0.5)
    region = Region(REGION)
    region.restrict(InferenceBatch(pred_score=constant.mean((1, 2, 3)), anomaly_map=constant), region.inside(12, 16))
    assert region.has_peak_scores is None


def test_each_image_may_have_its_own_region() -> None:
    region = Region()
    assert region.inside(12, 16) is None
    region.current = [REGION, ~REGION]
    maps = images(3)[:, :1]
    output = region.restrict(InferenceBatch(pred_score=maps.amax((1, 2, 3)), anomaly_map=maps), region.inside(12, 16))
    assert output.pred_score.tolist() == [maps[0, 0][REGION].max(), maps[1, 0][~REGION].max()]
