"""The texture-perceiving module equals HTP-GAN eq. 2, and the directional maps are those of section 2.2."""

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from anomalib_defect_plugins.layers import TexturePerceivingModule, directional_maps

SQUARE = {  # T_i on 3x3, in the order of the docstring
    "down": [[1, 1, 1], [0.5, 0.5, 0.5], [0, 0, 0]],
    "up": [[0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]],
    "right": [[1, 0.5, 0], [1, 0.5, 0], [1, 0.5, 0]],
    "left": [[0, 0.5, 1], [0, 0.5, 1], [0, 0.5, 1]],
    "down right": [[1, 0.75, 0.5], [0.75, 0.5, 0.25], [0.5, 0.25, 0]],
    "up right": [[0.5, 0.25, 0], [0.75, 0.5, 0.25], [1, 0.75, 0.5]],
    "down left": [[0.5, 0.75, 1], [0.25, 0.5, 0.75], [0, 0.25, 0.5]],
    "up left": [[0, 0.25, 0.5], [0.25, 0.5, 0.75], [0.5, 0.75, 1]],
}


class EightBranches(nn.Module):
    """Literal eq. 2: each branch convolves the features concatenated with its own map."""

    def __init__(self, module: TexturePerceivingModule, branch_width: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.maps = directional_maps(size)
        self.branches = nn.ModuleList()
        for number in range(8):
            own = slice(number * branch_width, (number + 1) * branch_width)
            conv = nn.Conv2d(module.conv.in_channels + 1, branch_width, 3, 1, 1, bias=False, padding_mode="reflect")
            norm = nn.BatchNorm2d(branch_width)
            with torch.no_grad():
                conv.weight.copy_(torch.cat([module.conv.weight[own], module.conv_map.weight[own]], dim=1))
                for name in ("weight", "bias", "running_mean", "running_var"):
                    getattr(norm, name).copy_(getattr(module.norm, name)[own])
            self.branches.append(nn.Sequential(conv, norm, nn.ReLU()))

    def forward(self, features: Tensor) -> Tensor:
        """Return cat(P_1 .. P_8)."""
        maps = self.maps[:, None, None].expand(-1, len(features), -1, -1, -1)
        pairs = zip(self.branches, maps, strict=True)
        return torch.cat([branch(torch.cat([features, own], dim=1)) for branch, own in pairs], dim=1)


@pytest.fixture
def module() -> TexturePerceivingModule:
    torch.manual_seed(0)
    module = TexturePerceivingModule(5, 3, (9, 12))
    with torch.no_grad():  # no neutral values, as they would hide a mix-up
        module.conv_map.weight.mul_(20)
        for values in (module.norm.weight, module.norm.bias, module.norm.running_mean, module.norm.running_var):
            values.uniform_(0.5, 1.5)
    return module


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 5, 9, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_module_equals_eight_branches_over_features_and_one_map_each(
    module: TexturePerceivingModule, features: Tensor, training: bool
) -> None:
    branches = EightBranches(module, 3, (9, 12)).train(training)
    assert torch.allclose(module.train(training)(features), branches(features), atol=1e-5)


def test_the_module_has_the_gradients_of_eight_branches(module: TexturePerceivingModule, features: Tensor) -> None:
    branches = EightBranches(module, 3, (9, 12))
    weights = torch.randn(2, 24, 9, 12)
    (module(features) * weights).sum().backward()
    (branches(features) * weights).sum().backward()
    expected = torch.cat([branch[0].weight.grad for branch in branches.branches])
    assert torch.allclose(module.conv.weight.grad, expected[:, :5], atol=1e-3)
    assert torch.allclose(module.conv_map.weight.grad, expected[:, 5:], atol=1e-3)


def test_training_updates_the_statistics_like_eight_branches(module: TexturePerceivingModule, features: Tensor) -> None:
    branches = EightBranches(module, 3, (9, 12))
    module(features)
    branches(features)
    for name in ("running_mean", "running_var"):
        expected = torch.cat([getattr(branch[1], name) for branch in branches.branches])
        assert torch.allclose(getattr(module.norm, name), expected, atol=1e-5)


def test_maps_fall_from_one_to_zero_in_their_directions() -> None:
    assert torch.allclose(directional_maps((3, 3)), torch.tensor(list(SQUARE.values())))


@pytest.mark.parametrize("size", [(3, 3), (16, 16), (16, 40), (33, 17)])
def test_maps_of_any_size_span_zero_to_one_and_differ(size: tuple[int, int]) -> None:
    maps = directional_maps(size)
    assert maps.shape == (8, *size)
    assert torch.equal(maps.amin((1, 2)), torch.zeros(8))
    assert torch.equal(maps.amax((1, 2)), torch.ones(8))
    assert all((one - other).abs().max() > 0.4 for one, other in combinations(maps, 2))


def test_maps_fall_linearly() -> None:
    maps = directional_maps((16, 40))
    for axis in (1, 2):
        steps = maps.diff(dim=axis)
        assert torch.allclose(steps, steps[:, :1, :1].expand_as(steps), atol=1e-6)


def test_maps_are_not_saved_in_checkpoints(module: TexturePerceivingModule) -> None:
    assert not [name for name in module.state_dict() if "maps" in name]
