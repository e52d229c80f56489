"""Batch norms that are computed by the convolutions before them."""

import pytest
import timm
import torch
from torch import nn

from anomalib_defect_plugins.layers.folded_norms import normed_convolutions, norms_by_convolutions

IMAGE = torch.zeros(1, 3, 64, 64)


class Network(nn.Module):
    """A convolution with its norm, one that a sum reads as well, one that is used twice, and one without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.read_twice, self.read_twice_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.used_twice, self.used_twice_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.alone = nn.Conv2d(4, 4, 1)

    def forward(self, image):
        features = self.first_norm(self.first(image)).relu()
        both = self.read_twice(features)
        features = self.read_twice_norm(both) + both
        for _ in range(2):
            features = self.used_twice_norm(self.used_twice(features)).relu()
        return [features, self.alone(features)]


def with_averages(network, seed=0):
    """Return a network in inference, with averages and weights of norms that change what they normalise."""
    generator = torch.Generator().manual_seed(seed)
    for norm in [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]:
        for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return network.eval()


def outputs_and_gradients(network, image):
    network.zero_grad()
    maps = network(image)
    sum(values.square().mean() for values in maps).backward()
    return [*maps, *(weight.grad for weight in network.parameters() if weight.grad is not None)]


def test_only_a_norm_that_alone_reads_a_convolution_is_folded():
    network = with_averages(Network())
    assert normed_convolutions(network, IMAGE) == [(network.first, network.first_norm)]


@pytest.mark.parametrize(("name", "norms"), [("mobilenetv2_035", 51), ("resnet18", 20), (None, 5)])
def test_folded_norms_have_the_same_outputs_and_gradients(name, norms):
    network = with_averages(Network() if name is None else timm.create_model(name, features_only=True))
    if name is not None:
        assert len(normed_convolutions(network, IMAGE)) == norms
    image = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    expected = outputs_and_gradients(network, image)
    with norms_by_convolutions(normed_convolutions(network, IMAGE)):
        values = outputs_and_gradients(network, image)
    assert len(values) == len(expected)
    for one, other in zip(values, expected, strict=True):
        assert (one - other).abs().max() <= 2e-4 * other.abs().max()


def test_convolutions_have_their_own_weights_again_afterwards_also_after_an_error():
    network = with_averages(Network())
    pairs, image = normed_convolutions(network, IMAGE), torch.rand(1, 3, 64, 64)
    expected = network.first(image)
    with norms_by_convolutions(pairs):
        assert not torch.equal(network.first(image), expected)
    with pytest.raises(RuntimeError, match="expected input"), norms_by_convolutions(pairs):
        network(image[:, :1])
    assert torch.equal(network.first(image), expected)


def test_networks_keep_their_mode_and_may_be_frozen():
    network = with_averages(timm.create_model("resnet18", features_only=True)).requires_grad_(False)
    network.layer1.train()
    before = [module.training for module in network.modules()]
    assert len(normed_convolutions(network, IMAGE)) == 20
    assert [module.training for module in network.modules()] == before
