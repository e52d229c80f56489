"""HtpGan as an anomalib model: sizes, checkpoints, thresholds, and rejected arguments."""

import pytest
import torch
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback, Trainer
from torchvision.transforms.v2 import Compose, Resize

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.models.htpgan import HtpGan, lightning_model
from anomalib_defect_plugins.models.htpgan.reference import load_reference
from anomalib_defect_plugins.post_processing import (
    DefectPostProcessor,
    OtsuPostProcessor,
    ReferencePostProcessor,
    SigmaPostProcessor,
    unseen_views,
)
from anomalib_defect_plugins.pre_processing import AntialiasedPreProcessor
from anomalib_defect_plugins.testing import folder_datamodule
from anomalib_defect_plugins.testing.runs import differences, fit, seed_all

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


# Sizes and checkpoints


def custom_pre_processor() -> PreProcessor:
    return PreProcessor(Compose([Resize((20, 40))]))


@pytest.mark.parametrize(
    ("arguments", "size"),
    [({"image_size": (32, 24)}, (32, 24)), ({"image_size": [20, 30]}, (20, 30))],
)
def test_images_are_resized_to_the_image_size(tiny, arguments, size):
    model = tiny(**arguments)
    assert model.image_size == size
    assert model.model.sizes[-1] == size
    assert model.pre_processor.transform(torch.rand(3, 50, 50)).shape == (3, *size)
    assert isinstance(model.pre_processor, AntialiasedPreProcessor)


def test_a_custom_pre_processor_sets_the_size(tiny):
    model = tiny(image_size=(64, 64), pre_processor=custom_pre_processor())
    assert model.image_size == model.model.sizes[-1] == (20, 40)


def test_without_a_pre_processor_images_must_have_the_image_size(tiny):
    model = tiny(image_size=(20, 40), pre_processor=False)
    assert model.image_size == (20, 40)
    assert model.eval()(torch.rand(1, 3, 20, 40)).anomaly_map.shape[-2:] == (20, 40)


@pytest.mark.parametrize("pre_processor", [True, custom_pre_processor()], ids=["default", "custom"])
def test_a_checkpoint_restores_the_size_and_the_outputs(train, datamodule, pre_processor):
    run = train(datamodule, image_size=(24, 36), pre_processor=pre_processor)
    loaded = HtpGan.load_from_checkpoint(run.engine.best_model_path, map_location="cpu")
    assert loaded.image_size == run.model.image_size == ((24, 36) if pre_processor is True else (20, 40))
    assert loaded.pre_processor.transform(torch.rand(3, 50, 50)).shape[-2:] == loaded.image_size
    image = torch.rand(2, 3, 40, 48)
    expected = run.model.eval()(image)
    result = loaded.eval()(image)
    assert torch.allclose(result.anomaly_map, expected.anomaly_map, atol=1e-5)
    assert torch.allclose(result.pred_score, expected.pred_score, atol=1e-5)


def test_a_checkpoint_restores_every_argument(train, datamodule):
    arguments = {"texture_module": False, "fusion": "entropy", "threshold": "otsu", "blend_fakes": False, "width": 3}
    numbers = {"discriminator_lr": 1e-3, "generator_lr": 1e-4, "contrast": 0.2, "reference": "002"}
    run = train(datamodule, **arguments, **numbers)
    loaded = HtpGan.load_from_checkpoint(run.engine.best_model_path, map_location="cpu")
    assert {name: loaded.hparams[name] for name in arguments | numbers} == arguments | numbers
    assert loaded.model.fusion == "entropy"
    assert loaded.model.contrast == 0.2
    assert isinstance(loaded.post_processor, OtsuPostProcessor)


def test_maximum_counts_unseen_views_of_the_reference_as_normal_at_each_scale(train, datamodule):
    run = train(datamodule, fusion="maximum", num_scales=3)
    model = run.model.model.eval()
    image = run.model.pre_processor.transform(load_reference(datamodule, 0, 16).image)[None]
    normalised = model.normalise(torch.cat([image, unseen_views(image)]))
    for resize, discriminator, scale_map in zip(model.downsample, model.discriminators, model.scale_maps, strict=True):
        values = scale_map(discriminator(resize(normalised)))
        assert 0 < float((values.abs() > 1).float().mean()) <= 0.002


def test_a_trained_model_can_be_exported_to_torch(train, datamodule, tmp_path):
    run = train(datamodule)
    path = run.engine.export(run.model, "torch", export_root=tmp_path)
    loaded = torch.load(path, weights_only=False)["model"]
    assert not differences(loaded.state_dict(), run.model.state_dict())


# Thresholds


@pytest.mark.parametrize(
    ("threshold", "kind"),
    [
        ("adaptive", DefectPostProcessor),
        ("sigma", SigmaPostProcessor),
        ("otsu", OtsuPostProcessor),
        ("reference", ReferencePostProcessor),
    ],
)
def test_the_threshold_argument_selects_the_post_processor(tiny, threshold, kind):
    assert type(tiny(threshold=threshold).post_processor) is kind


def test_a_custom_post_processor_overrides_the_threshold_argument(tiny):
    custom = ReferencePostProcessor(percentile=90)
    assert tiny(threshold="otsu", post_processor=custom).post_processor is custom
    assert tiny(threshold="otsu", post_processor=False).post_processor is None


@pytest.mark.parametrize("threshold", lightning_model.THRESHOLDS)
def test_training_sets_the_thresholds_and_the_checkpoint_restores_them(train, datamodule, threshold):
    run = train(datamodule, threshold=threshold)
    loaded = HtpGan.load_from_checkpoint(run.engine.best_model_path, map_location="cpu")
    for name in ("image_threshold", "pixel_threshold", "pixel_min", "pixel_max", "image_min", "image_max"):
        value = getattr(run.model.post_processor, name)
        assert value.isfinite(), name
        assert torch.equal(getattr(loaded.post_processor, name), value), name


class Epochs(Callback):
    """Records the epochs of validations."""

    def __init__(self) -> None:
        self.validated: list[int] = []

    def on_validation_start(self, trainer, pl_module) -> None:
        """Record the epoch."""
        self.validated.append(trainer.current_epoch)


def test_validation_runs_once_after_the_last_scale(train, datamodule):
    epochs = Epochs()
    train(datamodule, epochs, num_scales=3)
    assert epochs.validated == [2]


def test_thresholds_from_the_reference_need_no_other_image(train, root):
    datamodule = folder_datamodule(root)
    datamodule.val_split_mode = type(datamodule.val_split_mode).NONE
    run = train(datamodule, threshold="reference", reference=1)
    assert not hasattr(datamodule, "val_data")
    output = run.model.model.eval()(run.model.pre_processor.transform(datamodule.train_data[1].image[None]))
    post = run.model.post_processor
    span = output.pred_score.max() - output.anomaly_map.min()
    assert post.image_threshold > output.pred_score.max() + 1e-3 * span  # that of views it was not trained on
    share = (output.anomaly_map <= post.pixel_threshold + 1e-4).float().mean()
    assert 0.997 <= float(share) < 1
    result = post(output)
    assert float(result.pred_score.detach()) < 0.5
    assert not result.pred_label.any()
    assert float(result.anomaly_map.detach().min()) == pytest.approx(0, abs=1e-3)


# Rejected arguments


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"threshold": "best"}, "threshold is 'best'; it must be one of adaptive, .*, reference$"),
        ({"iterations_per_scale": 0}, "iterations_per_scale is 0; it must be more than 0"),
        ({"width": 0}, "width is 0; it must be more than 0"),
        ({"generator_lr": -1.0}, r"generator_lr is -1\.0; it must be 0 or more"),
        ({"noise_amplitude": -0.1}, r"noise_amplitude is -0\.1; it must be 0 or more"),
        ({"head_kernel": 2}, "head_kernel is '2'; it must be one of 1, 3"),
        ({"joint_scales": 0}, "joint_scales is 0; it must be more than 0"),
        ({"generator_steps": 0}, "generator_steps is 0; it must be more than 0"),
        ({"contrast": float("nan")}, "contrast is nan; it must be more than 0"),
        ({"image_size": (0, 64)}, "image_size is 0; it must be more than 0"),
        ({"num_scales": 1}, "num_scales is 1; "),
        ({"num_scales": 13}, "num_scales is 13; "),
        ({"min_size": 24}, r"min_size is 24; at an image size of \(24, 32\) "),
        ({"fusion": "mean"}, "fusion is 'mean'; "),
    ],
)
def test_an_invalid_argument_is_rejected_in_one_line(tiny, arguments, line):
    with pytest.raises(InvalidInputError, match=f"^{line}"):
        tiny(**arguments)


def test_a_number_of_epochs_other_than_that_of_the_scales_is_rejected(tiny, datamodule, tmp_path):
    trainer = Trainer(max_epochs=5, default_root_dir=tmp_path, **QUIET)
    line = r"^HtpGan cannot be trained with max_epochs 5, because it is complete only after the last of its 2 epochs: "
    with pytest.raises(ConfigurationError, match=line):
        trainer.fit(tiny(), datamodule=datamodule)


def test_the_model_chooses_the_number_of_epochs(tiny, datamodule, tmp_path):
    seed_all(0)
    run = fit(tiny(num_scales=3), datamodule, tmp_path, {})
    assert run.engine.trainer.current_epoch == 3


def test_several_devices_are_rejected(tiny, tmp_path):
    model = tiny()
    model.trainer = Trainer(strategy="ddp", devices=1, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ConfigurationError, match=r"^HtpGan learns from one image.*: pass --trainer\.devices 1, and "):
        model.setup("fit")


def test_a_loader_instead_of_a_data_module_is_rejected(tiny, datamodule, tmp_path):
    datamodule.setup()
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ConfigurationError, match="pass datamodule="):
        trainer.fit(tiny(), train_dataloaders=datamodule.train_dataloader())


def test_a_fast_dev_run_may_have_another_number_of_epochs(tiny, datamodule, tmp_path):
    trainer = Trainer(fast_dev_run=True, default_root_dir=tmp_path, **QUIET)
    trainer.fit(tiny(), datamodule=datamodule)
    assert not list(tmp_path.rglob("*.ckpt"))
