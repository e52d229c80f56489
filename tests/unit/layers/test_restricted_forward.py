"""Maps that are joined from tiles are those of the whole image, wherever tiles start."""

import copy
import pickle

import pytest
import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torch.nn import functional as F

from anomalib_defect_plugins.layers.region import Region
from anomalib_defect_plugins.layers.restricted_forward import RestrictedForward, Tiling, reduction, values_inside

SIZE, OVERLAP = 32, 16


class Local(nn.Module):
    """A network whose map depends on 7 x 7 pixels; zeros are outside the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(0)))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> InferenceBatch:
        self.shapes.append(tuple(images.shape))
        maps = F.conv2d(images, self.weight, padding=3)
        return InferenceBatch(pred_score=maps.flatten(1).amax(1), anomaly_map=maps)


def unchanged(images: Tensor) -> Tensor:
    return images


def tiled(region: Region | None = None, max_map_pixels: int = 10**9) -> Local:
    network = Local().eval()
    forward = RestrictedForward(network)
    forward.tiling = Tiling(SIZE, OVERLAP, 4, unchanged, max_map_pixels, is_active=True)
    forward.region = region
    network.forward = forward  # type: ignore[method-assign]
    return network


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(32, 32), (33, 50), (70, 101), (200, 32)])
def test_the_map_of_tiles_is_that_of_the_whole_image(shape: tuple[int, int]) -> None:
    whole, joined = Local()(image(*shape)), tiled()(image(*shape))
    assert torch.allclose(joined.anomaly_map, whole.anomaly_map, atol=1e-5)
    assert joined.anomaly_map.shape == whole.anomaly_map.shape


def test_the_map_does_not_depend_on_where_tiles_start() -> None:
    large = image(150, 150)
    expected = tiled()(large).anomaly_map[..., 20:-20, 20:-20]
    for offset in (1, 5, 8):
        shifted = tiled()(large[..., offset:, offset:]).anomaly_map[..., 20 - offset : -20, 20 - offset : -20]
        assert torch.allclose(shifted, expected, atol=1e-3)


def test_the_score_is_the_highest_of_all_tiles() -> None:
    network, whole = tiled(), image(70, 60)
    output = network(whole)
    parts = [
        Local()(whole[..., top : top + SIZE, left : left + SIZE]) for top in (0, 12, 25, 38) for left in (0, 14, 28)
    ]
    assert len(network.shapes) == 3  # 12 tiles in batches of 4
    assert output.pred_score.item() == pytest.approx(max(part.pred_score.item() for part in parts))


def test_a_small_image_is_enlarged_by_its_last_row_and_column() -> None:
    output, small = tiled()(image(20, 9)), image(20, 9)
    expected = Local()(F.pad(small, (0, 23, 0, 12), mode="replicate")).anomaly_map[..., :20, :9]
    assert torch.allclose(output.anomaly_map, expected)


def test_tiles_outside_the_region_are_not_evaluated() -> None:
    region = torch.zeros(96, 96, dtype=torch.bool)
    region[:20, :20] = True
    network = tiled(Region(region))
    output = network(image(96, 96))
    assert sum(shape[0] for shape in network.shapes) == 4
    inside = output.anomaly_map[0, 0][region]
    assert (output.anomaly_map[0, 0][~region] == inside.min()).all()
    assert output.pred_score.item() == pytest.approx(inside.max().item(), abs=1e-5)


def test_large_maps_are_reduced_to_their_highest_values() -> None:
    whole, reduced = tiled()(image(90, 70)).anomaly_map, tiled(max_map_pixels=800)(image(90, 70)).anomaly_map
    assert reduction(90, 70, 800) == 3
    assert torch.equal(reduced, F.max_pool2d(whole, 3, ceil_mode=True))


def test_training_and_state_are_those_of_the_network() -> None:
    network = tiled()
    assert network.state_dict().keys() == Local().state_dict().keys()
    network.train()
    network(image(90, 90))
    assert network.shapes == [(1, 3, 90, 90)]


def test_copies_evaluate_with_their_own_weights() -> None:
    network = tiled()
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        nn.init.zeros_(other.weight)
        assert not other(image(40, 40)).anomaly_map.any()
        assert network(image(40, 40)).anomaly_map.any()


def test_the_values_inside_are_those_of_the_region_of_the_model() -> None:
    model, maps = nn.Module(), image(8, 10)[:, :1]
    model.model = Local()
    assert torch.equal(values_inside(model, maps), maps.flatten())
    region = torch.zeros(8, 10, dtype=torch.bool)
    region[2:5, 3:7] = True
    forward = RestrictedForward(model.model)
    forward.region = Region(region)
    model.model.forward = forward  # type: ignore[method-assign]
    for shape in ((1, 1, 8, 10), (1, 8, 10)):
        assert torch.equal(values_inside(model, maps.reshape(shape)), maps[0, 0][region])
