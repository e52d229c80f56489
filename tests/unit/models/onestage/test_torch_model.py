"""Network of OneStage: weights counted by hand, gradients of its stages, and outputs."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.models.onestage.lightning_model import OneStage
from anomalib_defect_plugins.models.onestage.torch_model import OneStageModel, upsample

# Encoder of SegDec-Net: kernel, input channels and output channels of each layer.
ENCODER = [
    (5, 1, 32),
    (5, 32, 32),
    (5, 32, 64),
    (5, 64, 64),
    (5, 64, 64),
    (5, 64, 64),
    (5, 64, 64),
    (5, 64, 64),
    (5, 64, 64),
    (15, 64, 1024),
]
# Decoder: a transposed convolution and two convolutions per stage, the first of them with the skip as input too.
DECODER = [
    (2, 1024, 64),
    (5, 64 + 64, 64),
    (5, 64, 64),
    (2, 64, 64),
    (5, 64 + 64, 64),
    (5, 64, 64),
    (2, 64, 32),
    (5, 32 + 32, 32),
    (5, 32, 32),
]
HEADS = [64, 64, 32]


def count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def small(**arguments: object) -> OneStageModel:
    torch.manual_seed(0)
    return OneStageModel("small", **arguments)


def test_paper_network_has_the_weights_of_its_layer_table():
    """Only the 1x1 convolutions have a bias; each norm has a scale and a shift per channel."""
    convolutions = sum(kernel**2 * inside * outside for kernel, inside, outside in ENCODER + DECODER)
    norms = sum(2 * outside for _, _, outside in ENCODER + DECODER)
    heads = sum(channels + 1 for channels in HEADS)
    assert 15**2 * 64 * 1024 == 14_745_600  # the last layer of the encoder, nine tenths of all
    assert count(OneStageModel("paper")) == convolutions + norms + heads == 16_419_715
    assert count(OneStageModel("paper", norm="batch")) == 16_419_715


def test_small_network_has_a_hundredth_of_the_weights():
    assert count(small()) == 143_075


@pytest.mark.parametrize(
    ("arguments", "heads"),
    [
        ({}, ["f_1", "f_2", "f_3"]),
        ({"fine_iterations": 0}, ["f_1", "f_2", "f_3"]),
        ({"coarse_suppression": False}, ["f_1", "f_3"]),
        ({"coarse_suppression": False, "fine_iterations": 0}, ["f_3"]),
    ],
    ids=["both", "CBS", "FBS", "U-Net"],
)
def test_every_weight_of_every_variant_has_a_gradient(arguments, heads):
    """Distributed training fails at weights without a gradient."""
    model = small(**arguments)
    assert list(model.heads) == heads
    mask = torch.rand(2, 1, 32, 48) < 0.1
    sum(OneStage.losses(model(torch.rand(2, 3, 32, 48)), mask).values()).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


@pytest.mark.parametrize("stage", ["f_1", "f_2", "f_3"])
def test_the_loss_of_a_stage_reaches_this_stage_and_deeper_ones_only(stage):
    model = small()
    losses = OneStage.losses(model(torch.rand(1, 3, 32, 32)), torch.rand(1, 1, 32, 32) < 0.1)
    losses[f"{stage}_loss"].backward()
    number = int(stage[-1])
    for k, decoder in enumerate(model.decoder, start=1):
        reached = [weight.grad is not None and bool(weight.grad.abs().sum() > 0) for weight in decoder.parameters()]
        assert all(reached) if k <= number else not any(reached)
    assert [head.weight.grad is not None for head in model.heads.values()] == [k == number for k in (1, 2, 3)]
    assert all(weight.grad is not None for weight in model.encoder.parameters())


@pytest.mark.parametrize("prior", [0.01, 0.2])
def test_each_map_starts_near_the_prior(prior):
    model = small(prior=prior)
    maps = model.maps(model.encoder(torch.rand(1, 1, 64, 64)))
    for logits in maps.values():
        assert float(logits.mean().sigmoid()) == pytest.approx(prior, rel=0.7)


def test_convolution_before_upsampling_equals_the_papers_reverse_order():
    """Section 2.2.2: features are upsampled to the image size, then passed through the 1x1 convolution."""
    torch.manual_seed(0)
    features, convolution = torch.randn(1, 8, 5, 6), nn.Conv2d(8, 1, 1)
    for factor in (1, 2, 4):
        upsampled = functional.interpolate(features, scale_factor=factor, mode="bilinear")
        assert torch.allclose(upsample(convolution(features), factor), convolution(upsampled), atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (64, 24), (24, 64)])
def test_map_has_the_size_of_the_image_and_the_score_is_its_mean(size):
    """Eq. 5, divided by the number of pixels."""
    with torch.inference_mode():
        result = small(prior=0.3).eval()(torch.rand(3, 3, *size))
    assert result.anomaly_map.shape == (3, 1, *size)
    assert 0 <= result.anomaly_map.min() <= result.anomaly_map.max() <= 1
    sums = result.anomaly_map.sum((1, 2, 3))
    assert torch.allclose(result.pred_score, sums / (size[0] * size[1]))


def test_spread_of_the_distances_of_an_image_is_added_to_its_score():
    arguments = {"backbone": "mobilenetv2_100", "pre_trained": False, "score": "max", "density_weight": 3.0}
    model = OneStageModel(**arguments, spread_weight=30.0).eval()
    moments = model.new_moments()
    model.observe(torch.rand(4, 3, 32, 32), moments)
    model.fit(moments)
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        result = model(image)
        distances = model.density(model.encoder(image)[1:], (32, 32)).flatten(1)
    deviations = (distances - distances.mean(1, keepdim=True)) ** 4
    expected = result.anomaly_map.amax((1, 2, 3)) + 30 * deviations.mean(1) ** 0.25
    assert torch.allclose(result.pred_score, expected, rtol=1e-4)


def test_more_iterations_with_the_same_weights_lower_the_maps():
    image, maps = torch.rand(1, 3, 32, 32), []
    for iterations in (0, 1, 3):
        with torch.inference_mode():
            maps.append(small(fine_iterations=iterations).eval()(image).anomaly_map)
    assert (maps[0] > maps[1]).all()
    assert (maps[1] > maps[2]).all()


def test_maps_and_losses_have_single_precision_in_mixed_precision_training():
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.rand(1, 3, 32, 32))
        losses = OneStage.losses(output, torch.rand(1, 1, 32, 32) < 0.1)
    assert {tensor.dtype for tensor in (*output.stages.values(), *output[1:], *losses.values())} == {torch.float32}


def test_only_the_first_channel_is_used():
    model, image = small().eval(), torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(model(image).anomaly_map, model(image[:, :1]).anomaly_map)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"width": "wide"}, "width is 'wide'; it must be one of paper, small"),
        ({"norm": "layer"}, "norm is 'layer'; it must be one of group, instance, batch"),
        ({"fine_iterations": -1}, "fine_iterations is -1; it must be 0 or more"),
        ({"prior": 0.0}, "prior is 0.0; it must be in (0, 1)"),
        ({"prior": 1.0}, "prior is 1.0; it must be in (0, 1)"),
    ],
)
def test_an_invalid_argument_is_named(arguments, line):
    with pytest.raises(InvalidInputError, match=f"^{re.escape(line)}$"):
        OneStageModel(**{"width": "small"} | arguments)
