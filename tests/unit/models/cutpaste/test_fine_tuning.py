"""Stages of backbones and the schedule of fine-tuning."""

import pytest
import timm
import torch

from anomalib_defect_plugins.layers import Encoder
from anomalib_defect_plugins.models.cutpaste.fine_tuning import freeze_before_last_stage, last_stage, late_cosine


@pytest.mark.parametrize(
    ("backbone", "modules"),
    [
        ("test_resnet.r160_in1k", ("layer4.",)),
        ("mobilenetv2_050", ("blocks.5.", "blocks.6.")),  # both at stride 32
        ("convnext_atto", ("stages_3.",)),
    ],
)
def test_the_last_stage_is_all_that_follows_the_map_before(backbone, modules):
    names = [name for name, _ in timm.create_model(backbone, features_only=True).named_parameters()]
    with torch.inference_mode():
        assert last_stage(backbone) == {name for name in names if name.startswith(modules)}


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("maps", [[2, 3, 4], [1, 4], [4]])
def test_only_the_last_stage_can_have_gradients_whichever_maps_are_selected(maps, trained):
    encoder = Encoder("test_resnet.r160_in1k", True, maps)
    freeze_before_last_stage(encoder, "test_resnet.r160_in1k", trained)
    found = {name for name, weight in encoder.backbone.named_parameters() if weight.requires_grad}
    assert found == (last_stage("test_resnet.r160_in1k") if trained else set())


def test_a_late_cosine_is_0_before_its_start_and_the_same_cosine_afterwards():
    whole, late = late_cosine(10), late_cosine(10, 4)
    assert [whole(0), whole(5), whole(10)] == pytest.approx([1, 0.5, 0])
    assert [late(step) for step in range(11)] == [0] * 4 + [whole(step) for step in range(4, 11)]
