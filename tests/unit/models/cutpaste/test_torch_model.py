"""Network of CutPaste: features of the backbone, and rejected arguments."""

import pytest
import timm
import torch
from sklearn.covariance import LedoitWolf
from torchvision.transforms.v2.functional import normalize

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.models.cutpaste.torch_model import CutPasteModel, make_head, select_maps

TINY = "test_resnet.r160_in1k"


@pytest.mark.parametrize(
    ("arguments", "positions", "image"),  # indices into act1, layer1 ... layer4
    [
        ({}, [2, 3], [4]),
        ({"image_layers": None}, [2, 3], [2, 3, 4]),
        ({"image_layers": ["layer4", "act1"]}, [2, 3], [0, 4]),
        ({"layers": ["layer3", "layer1"], "image_layers": None}, [1, 3], [1, 3, 4]),
        ({"layers": ["layer4"]}, [4], [4]),
        ({"fine_tuned": True}, [2, 3], [4]),
    ],
)
def test_feature_maps_default_to_strides_8_and_16_for_positions_and_to_the_last_for_images(arguments, positions, image):
    assert select_maps("resnet18", **arguments) == (positions, image)


def test_the_score_of_several_maps_is_the_distance_of_their_features_together():
    model = CutPasteModel(TINY, image_layers=None, score="features").eval()
    images = torch.rand(8, 3, 64, 64)
    moments = model.new_moments()
    with torch.no_grad():
        model.observe(images, moments)
        model.fit(moments)
        pooled = model.normal_features(images)[:-1]
        score = model(images).pred_score
    squares = [LedoitWolf().fit(one.double().numpy()).mahalanobis(one.double().numpy()) for one in pooled]
    assert len(squares) == 3
    assert score.tolist() == pytest.approx(sum(squares) ** 0.5, rel=5e-3)


def test_pooled_features_match_the_backbone_on_normalised_images():
    model = CutPasteModel("resnet18").eval()
    backbone = timm.create_model("resnet18", num_classes=0).eval()
    backbone.load_state_dict(model.encoder.backbone.state_dict())
    images = torch.rand(2, 3, 64, 64)
    expected = backbone(normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert torch.allclose(model.extract(images)[-1].mean((2, 3)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("localization", ["dense", "patch"])
@pytest.mark.parametrize("classes", [2, 3])
def test_training_returns_logits_of_the_classes(localization, classes):
    model = CutPasteModel(TINY, localization=localization, image_size=(64, 64), window=32, classes=classes).train()
    assert model(torch.rand(6, 3, 32, 32)).shape == (6, classes)


def test_the_head_has_the_requested_hidden_layers():
    # 512 x 512 + 512 x 128 + 128 x 3 weights, two values per channel of each norm, 3 biases.
    assert sum(weight.numel() for weight in make_head(512, 1).parameters()) == 262144 + 65536 + 384 + 2 * 640 + 3
    assert sum(weight.numel() for weight in make_head(512, 0).parameters()) == 65536 + 384 + 2 * 128 + 3


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "efficientnet_b0"])
def test_other_convolutional_backbones_work(backbone):
    model = CutPasteModel(backbone).eval()
    moments = model.new_moments()
    with torch.no_grad():
        model.observe(torch.rand(3, 3, 64, 64), moments)
        model.fit(moments)
        result = model(torch.rand(2, 3, 64, 64))
    assert result.anomaly_map.shape == (2, 1, 64, 64)
    assert result.anomaly_map.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet19"}, r"^backbone is 'resnet19', .*choose a convolutional model of timm$"),
        ({"layers": ["layer9"]}, r"^layers is \['layer9'\]; resnet18 has act1, layer1, layer2, layer3, layer4$"),
        ({"layers": []}, r"^layers is \[\]"),
        ({"image_layers": ["layer9"]}, r"^image_layers is \['layer9'\]; resnet18 has act1, .*layer4$"),
        (
            {"layers": ["layer4"], "fine_tuned": True},
            r"^layers is \['layer4'\], but fine-tuning changes layer4: .*layer3, or set freeze to null$",
        ),
        ({"score": "mean"}, r"^score is 'mean'; it must be one of features, positions, both$"),
        ({"localization": "patch", "stride": 65}, r"^stride is 65; it must be the window, 64, or less$"),
        ({"localization": "map"}, r"^localization is 'map'; it must be one of dense, patch$"),
        ({"localization": "patch", "window": 300}, r"^window is 300; .* fit into images of \(256, 256\)$"),
        ({"localization": "patch", "window": 16}, r"^window is 16; it must be 32 or more"),
        ({"stride": 0}, r"^stride is 0; it must be 1 or more$"),
    ],
)
def test_an_invalid_argument_is_rejected_in_one_line(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        CutPasteModel(**arguments)
