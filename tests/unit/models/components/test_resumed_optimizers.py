"""Optimisers and schedules of a resumed run are those that its model configures."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from anomalib_defect_plugins.models.components.resumed_optimizers import ResumedOptimizers

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}

SCHEDULES: dict[str, Callable[[Optimizer], Any]] = {
    "constant": lambda _: None,
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, 8),
    "exponential": lambda optimizer: ExponentialLR(optimizer, 0.5),
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "cycle": lambda optimizer: OneCycleLR(optimizer, max_lr=0.5, total_steps=9),
    "sequence": lambda optimizer: SequentialLR(
        optimizer, [LinearLR(optimizer, 0.1, total_iters=3), StepLR(optimizer, 2)], [3]
    ),
}


class Model(BoringModel):
    """A linear layer whose weight and bias have a parameter group each."""

    def __init__(self, schedule: Callable[[Optimizer], Any], interval: str = "step", lr: float = 0.1) -> None:
        super().__init__()
        self.schedule, self.interval, self.lr = schedule, interval, lr
        self.own = ResumedOptimizers()
        self.rates: list[tuple[float, ...]] = []

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback under test."""
        return [self.own]

    def configure_optimizers(self) -> Any:
        """Return SGD with two groups, the second at a tenth of the rate."""
        groups = [{"params": [self.layer.weight]}, {"params": [self.layer.bias], "lr": self.lr / 10}]
        optimizer = SGD(groups, lr=self.lr, momentum=0.9)
        scheduler = self.schedule(optimizer)
        if scheduler is None:
            return optimizer
        item = {"scheduler": scheduler, "interval": self.interval, "monitor": "x"}
        return {"optimizer": optimizer, "lr_scheduler": item}

    def on_train_batch_start(self, *_: object) -> None:
        """Record the rates."""
        self.rates.append(tuple(group["lr"] for group in self.optimizers().param_groups))

    def validation_step(self, *_: object) -> None:
        """Log a metric that gets worse."""
        self.log("x", float(self.global_step))


def fit(model: Model, folder: Path, epochs: int, checkpoint: Path | None = None) -> Trainer:
    """Train for epochs of two steps."""
    settings = {"limit_train_batches": 2, "limit_val_batches": 1, "num_sanity_val_steps": 0, **QUIET}
    trainer = Trainer(max_epochs=epochs, default_root_dir=folder, **settings)
    trainer.fit(model, ckpt_path=checkpoint)
    return trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of four steps along a cosine."""
    folder = tmp_path_factory.mktemp("first")
    trainer = fit(Model(SCHEDULES["cosine"], lr=0.7), folder, 2)
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_each_group_has_the_rates_of_an_uninterrupted_run(checkpoint, tmp_path, name, interval):
    whole, resumed = Model(SCHEDULES[name], interval), Model(SCHEDULES[name], interval)
    fit(whole, tmp_path, 4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Detected call of")
        fit(resumed, tmp_path, 4, checkpoint)
    assert resumed.rates == whole.rates[4:]


def test_the_cosine_is_that_of_the_new_length(checkpoint, tmp_path):
    model = Model(lambda optimizer: CosineAnnealingLR(optimizer, 6), lr=0.3)
    fit(model, tmp_path, 3, checkpoint)
    expected = [0.15 * (1 + math.cos(math.pi * step / 6)) for step in (4, 5)]
    assert model.rates == [pytest.approx((rate, rate / 10)) for rate in expected]


def test_options_are_new_and_momentum_is_that_of_the_checkpoint(checkpoint, tmp_path):
    class Nesterov(Model):
        """With other options."""

        def configure_optimizers(self) -> Any:
            """Return the optimiser."""
            optimizer = super().configure_optimizers()
            for group in optimizer.param_groups:
                group.update(momentum=0.5, nesterov=True)
            return optimizer

        def on_train_batch_start(self, *_: object) -> int:
            """Skip the step."""
            return -1

    model = Nesterov(SCHEDULES["constant"])
    (optimizer,) = fit(model, tmp_path, 3, checkpoint).optimizers
    saved = torch.load(checkpoint, weights_only=True)["optimizer_states"][0]
    assert [(group["momentum"], group["nesterov"]) for group in optimizer.param_groups] == [(0.5, True)] * 2
    assert optimizer.state[model.layer.weight]["momentum_buffer"].equal(saved["state"][0]["momentum_buffer"])


def test_a_schedule_that_follows_a_metric_stays_as_saved(tmp_path):
    def plateau(optimizer: Optimizer) -> ReduceLROnPlateau:
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    first = Model(plateau, "epoch")
    fit(first, tmp_path, 3).save_checkpoint(tmp_path / "last.ckpt")
    model = Model(plateau, "epoch", lr=0.7)
    fit(model, tmp_path, 4, tmp_path / "last.ckpt")
    assert first.rates[-1] == pytest.approx((0.05, 0.005))
    assert model.rates[0] == pytest.approx((0.025, 0.0025))


def test_other_kinds_of_optimisers_are_restored_too(tmp_path):
    class Betas(BoringModel):
        """Adam."""

        def __init__(self, betas: tuple[float, float]) -> None:
            super().__init__()
            self.betas = betas

        def configure_callbacks(self) -> list[Callback]:
            """Return the callback under test."""
            return [ResumedOptimizers()]

        def configure_optimizers(self) -> Optimizer:
            """Return the optimiser."""
            return Adam(self.parameters(), betas=self.betas)

    first = fit(Betas((0.5, 0.9)), tmp_path, 1)
    first.save_checkpoint(tmp_path / "last.ckpt")
    (optimizer,) = fit(Betas((0.8, 0.99)), tmp_path, 2, tmp_path / "last.ckpt").optimizers
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.99)
