"""The contract of models with an optimiser: losses, mixed precision, resuming, non-finite losses."""
# ruff: noqa: S101, D102 - these classes consist of asserts, and a test's name is its description

import math
import re
from pathlib import Path
from typing import cast

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from lightning.pytorch import Callback

from anomalib_defect_plugins.testing.model import ModelContract
from anomalib_defect_plugins.testing.runs import KeepEpochs, PoisonWeights, Run, SeedByStep, differences


class TrainingContract(ModelContract):
    """Tests that every model with an optimiser must pass. Requires two epochs, and two steps in the first of them."""

    optimises = True

    def poison(self) -> Callback:
        """Return a callback that makes a loss non-finite; by default all weights are NaN before the second step."""
        return PoisonWeights()

    def fit_whole(self, folder: Path) -> Run:
        """Train without interruption, with random numbers that depend on the step only, and keep each epoch."""
        return self.fit(folder, callbacks=[KeepEpochs(folder / "epochs"), SeedByStep()], shuffle=False)

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, tmp_path_factory: pytest.TempPathFactory) -> Run:
        """Uninterrupted run."""
        return cls().fit_whole(tmp_path_factory.mktemp("whole"))

    def test_progress_bar_shows_finite_losses_of_every_step(self, trained: Run) -> None:
        assert trained.watch.losses, 'training logs no value named "loss" with prog_bar=True'
        steps = len(trained.datamodule.train_dataloader())
        for name, values in trained.watch.losses.items():
            assert len(values) >= steps, f"{name} has {len(values)} values in {steps} steps of the first epoch"
            assert all(math.isfinite(value) for value in values), f"{name}: {values}"

    def test_it_trains_in_mixed_precision(self, tmp_path: Path) -> None:
        run = self.fit(tmp_path, precision="bf16-mixed")
        assert all(math.isfinite(value) for values in run.watch.losses.values() for value in values)
        assert all(tensor.dtype != torch.bfloat16 for tensor in run.model.state_dict().values())

    def test_resumed_training_ends_with_the_weights_of_one_that_never_stopped(self, whole: Run, tmp_path: Path) -> None:
        checkpoint = Path(cast(ModelCheckpoint, whole.engine.checkpoint_callback).dirpath or "") / "epoch=0.ckpt"
        final = whole.model.state_dict()
        assert differences(torch.load(checkpoint, weights_only=True)["state_dict"], final), "trained in one epoch"
        resumed = self.fit(tmp_path, seed=1, callbacks=[SeedByStep()], shuffle=False, ckpt_path=checkpoint)
        assert not differences(resumed.model.state_dict(), final), "the resumed run ends with other weights"

    def test_training_stops_at_a_loss_that_is_not_finite_and_names_it_and_the_step(
        self, trained: Run, tmp_path: Path
    ) -> None:
        with pytest.raises(Exception) as error:  # noqa: PT011 - any type, as long as the message is clear
            self.fit(tmp_path, callbacks=[self.poison()])
        message = str(error.value)
        assert any(name in message for name in trained.watch.losses), f"no loss is named in: {message}"
        assert re.search(r"\b(step|iteration|batch)\D{0,3}\d", message), f"no step is named in: {message}"
