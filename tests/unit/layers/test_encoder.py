"""Feature maps of timm models, their normalisation, batch norm and weights."""

from concurrent.futures import ThreadPoolExecutor

import huggingface_hub.constants
import pytest
import timm
import torch
from torch import nn

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.layers import Encoder, weights_from_checkpoint
from anomalib_defect_plugins.layers.encoder import _from_checkpoint


@pytest.fixture(autouse=True)
def _read_weights():
    """Read weights, which other tests do not."""
    token = _from_checkpoint.set(False)
    yield
    _from_checkpoint.reset(token)


BACKBONE = "mobilenetv2_050"


@pytest.fixture
def weights(tmp_path):
    """A file with random weights of the backbone, and running averages that differ from the initial ones."""
    torch.manual_seed(1)
    model = timm.create_model(BACKBONE)
    for name, value in model.state_dict().items():
        if "running" in name:
            value.copy_(torch.rand_like(value) + 0.5)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def image():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("backbone", "mean", "std"),
    [
        (BACKBONE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_images_are_normalised_as_the_model_was_pretrained(backbone, mean, std, image):
    encoder = Encoder(backbone, pre_trained=False).eval()
    normalised = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    for ours, expected in zip(encoder(image), encoder.backbone(normalised), strict=True):
        assert torch.allclose(ours, expected, atol=1e-4)


def test_maps_have_the_channels_and_strides_that_are_stated(image):
    encoder = Encoder(BACKBONE, pre_trained=False, maps=[1, 3]).eval()
    assert [feature_map.stride for feature_map in encoder.maps] == [4, 16]
    for values, feature_map in zip(encoder(image), encoder.maps, strict=True):
        assert values.shape == (2, feature_map.channels, 64 // feature_map.stride, 96 // feature_map.stride)


def test_grey_is_repeated(image):
    encoder = Encoder(BACKBONE, pre_trained=False).eval()
    grey = image[:, :1]
    assert all(torch.equal(*pair) for pair in zip(encoder(grey), encoder(grey.expand(-1, 3, -1, -1)), strict=True))


def test_pretrained_batch_norm_stays_in_inference_during_training(weights, image):
    encoder = Encoder(BACKBONE, weights)
    before = {name: value.clone() for name, value in encoder.state_dict().items() if "running" in name}
    with torch.no_grad():
        training = encoder(image)
    assert all(torch.equal(encoder.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(*pair) for pair in zip(training, encoder.eval()(image), strict=True))


def test_norms_that_convolutions_compute_in_training_have_the_features_of_inference(weights, image):
    encoder = Encoder(BACKBONE, weights)
    training = encoder(image)
    for values, expected in zip(training, encoder.eval()(image), strict=True):
        assert (values - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_norms_that_are_replaced_after_the_first_step_normalise_once(image, tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    encoder = Encoder("resnet18", tmp_path / "weights.pth")
    for norm in [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]:
        norm.running_var.fill_(4.0)
    encoder(image)
    encoder.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(encoder.backbone)
    training = encoder.train()(image)
    for values, expected in zip(training, encoder.eval()(image), strict=True):
        assert (values - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_activations_that_synchronised_norms_would_lose_are_an_error(weights, image):
    encoder = Encoder(BACKBONE, weights)
    encoder.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(encoder.backbone)
    with pytest.raises(InvalidInputError, match=r"trainer\.sync_batchnorm .*; leave it out"):
        encoder(image)


def test_several_threads_predict_as_one_does(weights, image):
    encoder = Encoder(BACKBONE, weights).eval()
    with torch.inference_mode():
        expected = encoder(image)
        with ThreadPoolExecutor(4) as threads:
            for maps in threads.map(torch.inference_mode()(encoder), 40 * [image]):
                assert all(torch.equal(*pair) for pair in zip(maps, expected, strict=True))


@pytest.mark.parametrize(("maps", "stages"), [([0, 3], 5), (None, 7)])
def test_stages_behind_the_last_map_are_left_out_also_from_weights_of_earlier_versions(maps, stages, weights, image):
    encoder, whole = Encoder(BACKBONE, weights, maps), timm.create_model(BACKBONE, features_only=True)
    assert len(encoder.backbone.blocks) == stages
    sum(values.sum() for values in encoder(image)).backward()
    assert all(weight.grad is not None for weight in encoder.parameters())
    former = {**encoder.state_dict(), **{f"backbone.{name}": value for name, value in whole.state_dict().items()}}
    encoder.load_state_dict(former)
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    with pytest.raises(RuntimeError, match=r"Unexpected key.*blocks\.9"):
        encoder.load_state_dict(former | {"backbone.blocks.9.weight": torch.zeros(1)})


def test_batch_norm_without_pretraining_learns_its_averages(image):
    encoder = Encoder(BACKBONE, pre_trained=False).train()
    encoder(image)
    assert all(norm.num_batches_tracked == 1 for norm in encoder.modules() if isinstance(norm, nn.BatchNorm2d))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_encoder_has_no_gradients(frozen, image):
    encoder = Encoder(BACKBONE, pre_trained=False, frozen=frozen)
    assert encoder.training is not frozen
    assert all(weight.requires_grad is not frozen for weight in encoder.parameters())


def test_weights_are_read_from_a_file(weights):
    encoder, expected = Encoder(BACKBONE, weights), torch.load(weights, weights_only=True)
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_an_encoder_that_a_checkpoint_fills_needs_no_weights(tmp_path):
    with weights_from_checkpoint():
        encoder = Encoder(BACKBONE, tmp_path / "missing.pth")
    assert encoder.keep_norms


def test_a_wrong_file_of_weights_is_named(tmp_path, weights):
    missing, damaged, other = (tmp_path / name for name in ("missing.pth", "damaged.pth", "resnet18.pth"))
    damaged.write_text("not weights")
    torch.save(timm.create_model("resnet18").state_dict(), other)
    with pytest.raises(MissingDataError, match=r"missing\.pth, which does not exist; set it to a file"):
        Encoder(BACKBONE, missing)
    with pytest.raises(InvalidInputError, match=r"damaged\.pth, which is not a file of weights"):
        Encoder(BACKBONE, damaged)
    with pytest.raises(InvalidInputError, match=r"resnet18\.pth, which has the weights of another model than mobile"):
        Encoder(BACKBONE, other)
    with pytest.raises(InvalidInputError, match="another model than mobilenetv2_140"):
        Encoder("mobilenetv2_140", weights)


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        MissingDataError, match=r"the weights of mobilenetv2_050 cannot be loaded .*set pre_trained"
    ) as caught:
        Encoder(BACKBONE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_model", "vit_tiny_patch16_224.nothing"])
def test_an_unknown_backbone_is_refused(name):
    with pytest.raises(InvalidInputError, match="choose a convolutional model of timm"):
        Encoder(name, pre_trained=False)
