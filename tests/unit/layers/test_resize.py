"""Resizing by matrix products equals torch's bicubic resizing with antialiasing."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.layers import FixedResize, Resize, enlarge
from anomalib_defect_plugins.layers.resize import bilinear_matrix, resize_matrix

SIZES = {
    "smaller": ((31, 50), (13, 16)),
    "larger": ((13, 16), (31, 50)),
    "smaller and larger": ((40, 12), (17, 30)),
    "slightly smaller": ((32, 32), (31, 30)),
    "a third exactly": ((36, 48), (12, 16)),
    "height unchanged": ((20, 33), (20, 11)),
}


def torch_resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)


@pytest.fixture(params=list(SIZES.values()), ids=list(SIZES))
def case(request: pytest.FixtureRequest) -> tuple[Tensor, tuple[int, int]]:
    old, new = request.param
    return torch.rand(2, 3, *old, generator=torch.Generator().manual_seed(0)), new


def test_resizing_from_a_fixed_size_equals_that_of_torch(case: tuple[Tensor, tuple[int, int]]) -> None:
    image, size = case
    result = FixedResize(image.shape[-2:], size)(image)
    assert torch.allclose(result, torch_resize(image, size), atol=1e-5)


def test_resizing_from_any_size_equals_that_of_torch(case: tuple[Tensor, tuple[int, int]]) -> None:
    image, size = case
    assert torch.allclose(Resize(size)(image), torch_resize(image, size), atol=1e-5)


def test_one_module_resizes_images_of_several_sizes() -> None:
    resize = Resize((16, 20))
    for old in ((40, 30), (16, 20), (9, 50)):
        image = torch.rand(1, 3, *old)
        assert torch.allclose(resize(image), torch_resize(image, (16, 20)), atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(31, 13), (13, 31), (256, 16), (7, 7), (1, 4), (5, 1)])
def test_the_weights_of_each_output_pixel_sum_to_one(old: int, new: int) -> None:
    weights = resize_matrix(old, new)
    assert weights.shape == (new, old)
    assert torch.allclose(weights.sum(1), torch.ones(new), atol=1e-6)


def test_weights_of_halving_are_those_of_keys_kernel_stretched_by_two() -> None:
    # Hand calculation: the centre of output pixel 4 is at 9, with input pixels at 0.25, 0.75, 1.25 and 1.75 on either
    # side in units of the stretched kernel, whose values there (a = -0.5) are 111, 29, -9 and -3 of 128, halved.
    expected = torch.tensor([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    weights = resize_matrix(20, 10)[4]
    assert torch.allclose(weights[5:13], expected, atol=1e-6)
    assert weights[:5].abs().sum() + weights[13:].abs().sum() == 0


def test_resizing_to_the_same_size_is_the_identity() -> None:
    image = torch.rand(1, 3, 12, 17)
    assert torch.equal(FixedResize((12, 17), (12, 17))(image), image)
    assert torch.allclose(Resize((12, 17))(image), image, atol=1e-6)


def test_weights_of_a_fixed_size_are_not_saved_in_checkpoints() -> None:
    assert not FixedResize((31, 50), (13, 16)).state_dict()


@pytest.mark.parametrize(("old", "new"), [(32, 256), (45, 256), (7, 31), (9, 9), (1, 4)])
def test_maps_are_enlarged_as_by_torch(old: int, new: int) -> None:
    maps = torch.randn(2, 1, old, old + 3, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(maps, (new, 3 * new), mode="bilinear", align_corners=False)
    rows, columns = bilinear_matrix(old, new), bilinear_matrix(old + 3, 3 * new)
    torch.testing.assert_close(rows @ maps @ columns.T, expected, atol=1e-5, rtol=0)
    assert torch.equal(enlarge(maps, (new, 3 * new)), expected)


class _Layers(torch.nn.Module):
    """A resize and an enlargement, as in an exported model."""

    def forward(self, image: Tensor) -> Tensor:
        return enlarge(Resize((16, 20))(image)[:, :1], (32, 40))


@pytest.mark.parametrize("is_static", [True, False])
def test_only_a_graph_of_any_size_multiplies_matrices_to_resize(is_static: bool) -> None:
    images = torch.rand(2, 3, 16, 20)
    dims = None if is_static else {"image": {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}}
    exported = torch.export.export(_Layers(), (images,), dynamic_shapes=dims)
    products = [node for node in exported.graph.nodes if "matmul" in str(node.target)]
    assert len(products) == (2 if is_static else 4)
    result = exported.module()(images)
    torch.testing.assert_close(result, _Layers()(images), atol=1e-5, rtol=0)
