"""CutPaste as an anomalib model: schedule, density, null model, and rejected arguments."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import Folder, ImageBatch
from anomalib.data.utils import read_image
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from sklearn.covariance import LedoitWolf
from torch import Tensor
from torchvision.transforms.v2 import Compose, Normalize, RandomInvert, Resize

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.models.cutpaste import CutPaste
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import Run, differences, fit, seed_all


@pytest.fixture
def datamodule(tmp_path: Path) -> Folder:
    """Return a data module with six normal training images in two batches."""
    write_folder_data(tmp_path / "data", normal=6, normal_test=2, defective=2)
    return folder_datamodule(tmp_path / "data", batch_size=3)


def tiny(**arguments: Any) -> CutPaste:
    settings = {"image_size": (64, 64), "backbone": "test_resnet.r160_in1k", "pre_trained": False, "iterations": 3}
    return CutPaste(**settings | {"evaluator": False, "visualizer": False} | arguments)


@pytest.fixture
def train(datamodule: Folder, tmp_path: Path) -> Callable[..., Run]:
    """Return a function that trains a tiny model."""

    def run(*callbacks: Callback, trainer: dict[str, Any] | None = None, **arguments: Any) -> Run:
        seed_all(0)
        return fit(tiny(**arguments), datamodule, tmp_path / "results", trainer or {}, callbacks)

    return run


def normal_features(run: Run) -> Tensor:
    """Return the pooled features of the normal training images, read from their files one by one."""
    paths = run.datamodule.train_data.samples.image_path
    images = torch.stack([run.model.pre_processor.transform(read_image(path, as_tensor=True)) for path in paths])
    with torch.no_grad():
        return torch.cat([run.model.model.eval().extract(image[None])[-1].mean((2, 3)) for image in images])


def batch_of(images: Tensor, labels: list[int]) -> ImageBatch:
    return ImageBatch(image=images, gt_label=torch.tensor(labels))


# Schedule


class Rates(Callback):
    """Records the learning rate of each step, and that after the last."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Record the rate."""
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_end(self, trainer, pl_module) -> None:
        """Record the rate."""
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_learning_rate_falls_along_a_cosine_and_ends_at_0(train):
    recorder = Rates()
    train(recorder, learning_rate=0.003)
    # 0.003 (1 + cos(pi step / 3)) / 2
    assert recorder.rates == pytest.approx([0.003, 0.00225, 0.00075, 0.0])


def test_the_optimiser_is_the_papers(train):
    (group,) = train(learning_rate=0.03).engine.trainer.optimizers[0].param_groups
    assert (group["initial_lr"], group["momentum"], group["weight_decay"]) == (0.03, 0.9, 3e-5)


class Weights(Callback):
    """Records the learning rates and whether weights differ from those before training, by step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.changed: list[list[bool]] = []

    def on_train_start(self, trainer, pl_module) -> None:
        """Keep the weights."""
        self.before = [value.clone() for value in self.parts(pl_module.model)]

    def on_train_batch_start(self, trainer, *_) -> None:
        """Record the rates."""
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        """Compare the weights."""
        pairs = zip(self.parts(pl_module.model), self.before, strict=True)
        self.changed.append([not torch.equal(*pair) for pair in pairs])

    @staticmethod
    def parts(network) -> list[Tensor]:
        """Return the weights of the head, of the last stage and of the stages before it."""
        groups: list[list[Tensor]] = [[], [], []]
        for name, weight in network.named_parameters():
            groups[0 if name.startswith("head") else 1 if "layer4" in name else 2].append(weight.detach().flatten())
        return [torch.cat(group) for group in groups]


FACTORS = (1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2)
"""(1 + cos(pi step / 4)) / 2"""


@pytest.mark.parametrize(
    ("arguments", "start", "rate", "early"),
    [
        ({"pre_trained": True, "freeze": 0.5}, 2, 0.002, False),
        ({"pre_trained": True, "freeze": 0.75, "encoder_rate": 0.5}, 3, 0.01, False),
        ({"pre_trained": True, "freeze": 0}, 0, 0.002, False),
        ({"pre_trained": True, "freeze": 1}, 4, 0.002, False),
        ({"pre_trained": True, "freeze": 0.5, "localization": "patch", "window": 32, "stride": 8}, 2, 0.002, False),
        ({"pre_trained": True, "freeze": 0.5, "encoder_rate": 0}, 4, None, False),
        ({"pre_trained": True, "freeze": None}, 0, None, True),
        ({"pre_trained": False, "freeze": 0.5}, 0, None, True),
    ],
    ids=str,
)
def test_the_head_is_trained_first_then_the_last_stage_at_its_rate_and_never_those_before(
    train, arguments, start, rate, early
):
    recorder = Weights()
    train(recorder, **{"iterations": 4, "learning_rate": 0.02, "encoder_rate": 0.1, "score": "features"} | arguments)
    assert recorder.changed == [[True, step >= start, early] for step in range(4)]
    expected = [[0.02 * factor] for factor in FACTORS]
    if rate is not None:
        expected = [[0.02 * f, rate * f if step >= start else 0] for step, f in enumerate(FACTORS)]
    for found, rates in zip(recorder.rates, expected, strict=True):
        assert found == pytest.approx(rates)


def test_fine_tuning_changes_the_features_of_images_and_not_the_positions_of_the_null_model(train):
    settings = {"pre_trained": True, "freeze": 0, "learning_rate": 1.0}  # equal seeds give equal random weights
    null, tuned = (train(iterations=iterations, **settings) for iterations in (0, 3))
    images = null.model.pre_processor.transform(null.images())
    results = []
    for run in (null, tuned):
        network = run.model.model.eval()
        with torch.no_grad():
            distances = network.distances(network.normal_features(images))
            results.append([*distances[:-1], *network.localizer.scores(distances, (64, 64))])
    equal = [torch.equal(*pair) for pair in zip(*results, strict=True)]
    assert equal == [True, True, False, False, True]  # three pooled maps, the scores and the map
    assert torch.equal(results[0][3][1], results[1][3][1])


def test_training_takes_the_requested_number_of_steps(train):
    assert train(iterations=3).engine.trainer.global_step == 3  # an epoch has two steps


# Steps


def test_defective_images_of_a_batch_are_ignored(monkeypatch):
    model = tiny().train()
    seen = []
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    monkeypatch.setattr(CutPaste, "global_step", 0)
    monkeypatch.setattr(CutPaste, "global_rank", 0)
    monkeypatch.setattr(model, "_classify", lambda normal: (seen.append(normal), (torch.ones(()),) * 2)[1])
    images = torch.rand(3, 3, 64, 64)
    model.training_step(batch_of(images, [1, 0, 1]), 0)
    assert torch.equal(seen[0], images[1:2])
    assert model.training_step(batch_of(images, [1, 1, 1]), 0) is None
    assert len(seen) == 1


def test_normalised_images_are_rejected(train):
    transform = Compose([Resize((64, 64)), Normalize([0.485, 0.456, 0.406], [0.05, 0.05, 0.05])])
    with pytest.raises(InvalidInputError, match=r"^CutPaste trains on images in \[0, 1\], .*leave Normalize out"):
        train(pre_processor=PreProcessor(transform))


# Density


@pytest.mark.parametrize("iterations", [0, 3])
def test_image_score_is_the_mahalanobis_distance_to_the_normal_training_images(train, datamodule, iterations):
    datamodule.train_augmentations = RandomInvert(p=1.0)  # must not affect the density
    run = train(iterations=iterations, post_processor=False, image_layers=[], score="features")
    features = normal_features(run).double().numpy()
    image = run.model.pre_processor.transform(run.images()[:2])
    with torch.no_grad():
        tested = run.model.model.extract(image)[-1].mean((2, 3))
        score = run.model.model(image).pred_score
    expected = LedoitWolf().fit(features).mahalanobis(tested.double().numpy()) ** 0.5
    assert score.tolist() == pytest.approx(expected.tolist(), rel=5e-3)


def test_scores_are_divided_by_their_deviations_on_half_of_the_images_by_the_densities_of_the_other(train):
    run = train(post_processor=False)
    paths = run.datamodule.train_data.samples.image_path
    images = torch.stack([run.model.pre_processor.transform(read_image(path, as_tensor=True)) for path in paths])
    network = copy.deepcopy(run.model.model.eval())
    moments = network.new_moments()
    network.observe(images[:3], moments)
    network.fit(moments)
    with torch.no_grad():
        descriptions = network.normal_features(images[3:])
        scores = network.localizer.scores(network.distances(descriptions), (64, 64))[0]
    assert run.model.model.localizer.deviations.tolist() == pytest.approx(
        scores.std(1, correction=0).tolist(), rel=1e-3
    )


def test_fewer_than_four_normal_images_have_a_density_and_no_deviations(tmp_path):
    write_folder_data(tmp_path / "data", normal=3, normal_test=2, defective=2)
    run = fit(tiny(iterations=0), folder_datamodule(tmp_path / "data", batch_size=3), tmp_path / "results", {})
    assert run.model.density_step >= 0
    assert run.model.model.localizer.deviations.tolist() == [1, 1]


def test_the_null_model_leaves_the_backbone_unchanged(train):
    seed_all(0)
    before = tiny(iterations=0).model.encoder.state_dict()
    assert not differences(train(iterations=0).model.model.encoder.state_dict(), before)


def test_both_checkpoints_contain_the_density(train):
    run = train()
    folder = Path(run.engine.best_model_path).parent
    for path in (run.engine.best_model_path, folder / "last.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert not differences(state, run.model.state_dict())
        assert state["density_step"] == 3


def test_resuming_a_finished_training_run_keeps_its_density(train, datamodule, tmp_path):
    run = train()
    path = Path(run.engine.best_model_path).with_name("last.ckpt")
    again = fit(tiny(), datamodule, tmp_path / "again", {}, ckpt_path=path)
    assert not differences(again.model.state_dict(), run.model.state_dict())


class StopAtTwo(Callback):
    """Stops training after two steps, as a time limit would."""

    def on_train_batch_end(self, trainer, *_) -> None:
        """Stop training."""
        trainer.should_stop = trainer.global_step >= 2


@pytest.mark.parametrize(("callbacks", "trainer"), [([], {"max_steps": 2}), ([StopAtTwo()], {})])
def test_a_training_run_that_ends_early_has_a_density_and_stores_it_in_its_checkpoint(train, callbacks, trainer):
    run = train(*callbacks, trainer=trainer, iterations=100)
    assert run.model.density_step == run.engine.trainer.global_step == 2
    checkpoint = torch.load(Path(run.engine.trainer.checkpoint_callback.dirpath) / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["density_step"] == 2


def test_the_density_is_fitted_without_validation_images(train, datamodule):
    datamodule.val_split_mode = "none"
    assert train().model.density_step == 3


class Steps(Callback):
    """Records the training step and the step of the density at each validation."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def on_validation_batch_start(self, trainer, pl_module, *_) -> None:
        """Record the steps."""
        self.steps.append((trainer.global_step, int(pl_module.density_step)))


def test_an_intermediate_validation_uses_the_density_of_the_current_weights(train):
    recorder = Steps()
    train(recorder, trainer={"val_check_interval": 1})
    assert {step for step, _ in recorder.steps} == {1, 2, 3}
    assert all(step == fitted for step, fitted in recorder.steps)


@pytest.mark.parametrize("job", ["test", "predict"])
def test_a_model_without_a_density_is_rejected(datamodule, tmp_path, job):
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(ConfigurationError, match="no density of normal images yet: train it first"):
        getattr(engine, job)(tiny(), datamodule=datamodule)


def test_fitting_needs_a_data_module(datamodule, tmp_path):
    datamodule.setup()
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(ConfigurationError, match="pass datamodule="):
        engine.fit(tiny(), train_dataloaders=datamodule.train_dataloader())


# Arguments and checkpoints


def test_loading_a_checkpoint_needs_no_pretrained_weights_and_keeps_the_schedule(train, tmp_path):
    run = train(pre_trained=tmp_path / "missing.pth")
    loaded = CutPaste.load_from_checkpoint(run.engine.best_model_path, map_location="cpu")
    assert loaded.hparams["pre_trained"] == str(tmp_path / "missing.pth")
    assert not differences(loaded.state_dict(), run.model.state_dict())
    assert len(loaded.configure_optimizers()["optimizer"].param_groups) == 2


def test_the_score_can_be_changed_after_training(train):
    run = train(score="both")
    images = torch.rand(2, 3, 64, 64)
    scores = []
    for score in ("features", "positions", "both"):
        loaded = CutPaste.load_from_checkpoint(run.engine.best_model_path, map_location="cpu", score=score)
        with torch.no_grad():
            scores.append(loaded.eval().model(images).pred_score)
    features, positions = loaded.model.localizer.deviations
    assert torch.allclose(scores[2], (scores[0] / features + scores[1] / positions) / 2)


def test_a_custom_pre_processor_sets_the_size():
    model = tiny(pre_processor=PreProcessor(Compose([Resize((40, 80))])), localization="patch", window=32)
    assert model.image_size == (40, 80)
    assert model.eval()(torch.rand(1, 3, 50, 50)).anomaly_map.shape == (1, 1, 40, 80)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": -1}, r"^iterations is -1; it must be 0 or more$"),
        ({"head_layers": -1}, r"^head_layers is -1; it must be 0 or more$"),
        ({"learning_rate": 0.0}, r"^learning_rate is 0.0; it must be more than 0$"),
        ({"sigma": 0.0}, r"^sigma is 0.0; it must be more than 0$"),
        ({"encoder_rate": -1.0}, r"^encoder_rate is -1.0; it must be 0 or more$"),
        ({"freeze": 1.5}, r"^freeze is 1.5; it must be from 0 to 1$"),
        ({"task": "four_way"}, r"^task is 'four_way'; it must be one of two_way, scar, three_way$"),
        ({"jitter": 0.7}, r"^jitter is 0.7; it must be from 0 to 0.5$"),
        ({"translation": 1.0}, r"^translation is 1.0; it must be from 0 to 0.5$"),
        ({"image_size": (24, 64)}, r"^image_size is \(24, 64\); the sides must be 32 or more$"),
    ],
)
def test_an_invalid_argument_is_rejected_in_one_line(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        tiny(**arguments)
