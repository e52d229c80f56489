"""A resumed run follows its own arguments: learning rates are those of a run with these arguments from the start."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from tiny_models import make_datamodule, make_model

from anomalib_defect_plugins.core.errors import ConfigurationError, error_line
from anomalib_defect_plugins.testing import write_folder_data
from anomalib_defect_plugins.testing.runs import Run, fit, seed_all

DONE = 4
"""Steps of the first run, after which the others continue."""


def cosine(step: int, steps: int, rate: float) -> float:
    return rate * (1 + math.cos(math.pi * step / steps)) / 2


def constant(step: int, steps: int, rate: float) -> float:
    del step, steps
    return rate


def linear_half(step: int, steps: int, rate: float) -> float:
    return rate * min(1.0, 2 * (1 - step / steps))


def linear(step: int, steps: int, rate: float) -> float:
    """Fall to ``final_learning_rate``, 1e-6 by default, in the last step."""
    return rate + (1e-6 - rate) * step / (steps - 1)


@dataclass
class Case:
    """A way to resume: the method, the arguments of both runs, and the rate of the resumed run by step."""

    method: str
    schedule: Callable[[int, int, float], float]
    iterations: int
    rate: float
    then: dict[str, Any]
    first: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method}-{'-'.join(f'{name}={value}' for name, value in self.then.items())}"

    def expected(self) -> list[float]:
        return [self.schedule(step, self.iterations, self.rate) for step in range(DONE, self.iterations)]


RATE = 0.01

CASES = [
    *(
        Case(method, schedule, 7, RATE, {"iterations": 7, "learning_rate": RATE}, {"iterations": 6})
        for method, schedule in {
            "cutpaste": cosine,
            "defectgan": linear,
            "isugan": linear_half,
            "onestage": cosine,
            "sidn": cosine,
        }.items()
    ),
    Case("cutpaste", cosine, 5, 0.03, {"iterations": 5}, {"iterations": 6}),
    Case("isugan", linear_half, 5, 2e-4, {"iterations": 5}, {"iterations": 6}),
    Case("onestage", constant, 6, 1e-3, {"annealing": False, "iterations": 6}, {"annealing": True, "iterations": 6}),
    Case("onestage", cosine, 6, 1e-3, {"annealing": True, "iterations": 6}, {"annealing": False, "iterations": 6}),
]


class Rates(Callback):
    """Records the first learning rate of each step, and saves a checkpoint after ``DONE`` steps."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        """Record the rate of the first optimiser."""
        if optimizer is trainer.optimizers[0]:
            self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, *_: object) -> None:
        """Save the checkpoint."""
        if self.path and len(self.rates) == DONE:
            trainer.save_checkpoint(self.path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_folder_data(folder, image_size=(32, 32), normal=4, normal_test=2, defective=4)
    return folder


@pytest.fixture(scope="module")
def started(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Function that returns the checkpoint of a run after ``DONE`` steps; equal runs are done once."""
    known: dict[str, Path] = {}

    def run(method: str, **arguments: Any) -> Path:
        key = f"{method} {arguments}"
        if key not in known:
            folder = tmp_path_factory.mktemp(method)
            known[key] = folder / "some.ckpt"
            train(root, folder, method, Rates(known[key]), **arguments)
        return known[key]

    return run


def train(
    root: Path,
    folder: Path,
    method: str,
    rates: Rates,
    checkpoint: Path | None = None,
    batch_size: int = 4,
    **changed: Any,
) -> Run:
    seed_all(0)
    model = make_model(method, **changed)
    return fit(model, make_datamodule(root, batch_size), folder / "results", {}, [rates], checkpoint)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_learning_rates_are_those_of_the_new_arguments(root, started, tmp_path, case):
    rates = Rates()
    run = train(root, tmp_path, case.method, rates, started(case.method, **case.first), **case.then)
    assert rates.rates == pytest.approx(case.expected(), rel=1e-9)
    assert run.model.post_processor.image_threshold.isfinite()


@pytest.mark.parametrize("option", ["momentum", "weight_decay"])
def test_other_options_of_the_optimiser_are_those_of_the_new_arguments(root, started, tmp_path, option):
    checkpoint = started("cutpaste", iterations=6)
    run = train(root, tmp_path, "cutpaste", Rates(), checkpoint, iterations=6, **{option: 0.25})
    (optimizer,) = run.engine.trainer.optimizers
    assert optimizer.param_groups[0][option] == 0.25
    assert optimizer.state  # the momentum is kept


@pytest.mark.parametrize("batch_size", [2, 1])
def test_another_batch_size_completes_the_iterations(root, started, tmp_path, batch_size):
    rates = Rates()
    run = train(root, tmp_path, "sidn", rates, started("sidn", iterations=6), batch_size=batch_size, iterations=7)
    assert run.engine.trainer.global_step == 7
    assert rates.rates == pytest.approx([cosine(step, 7, 1e-3) for step in range(DONE, 7)], rel=1e-9)


@pytest.mark.parametrize("method", ["cutpaste", "defectgan", "sidn"])
def test_a_run_that_has_completed_its_steps_is_validated_and_says_so(root, started, tmp_path, caplog, method):
    rates = Rates()
    checkpoint = started(method, iterations=6)  # not yet validated
    with caplog.at_level(logging.WARNING):
        run = train(root, tmp_path, method, rates, checkpoint, iterations=3)
    name = type(run.model).__name__
    (line,) = [record.getMessage() for record in caplog.records if "has completed" in record.getMessage()]
    assert line.startswith(f"{name} has completed the 3 iterations that it is to be trained for")
    assert not rates.rates
    assert run.model.post_processor.image_threshold.isfinite()
    assert run.checkpoint.is_file()


class ScaleRates(Rates):
    """Records, by scale, the rates of the discriminator."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        """Record the rate."""
        if optimizer is trainer.optimizers[2 * trainer.current_epoch]:
            self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("iterations", [10, 5])
def test_the_scales_of_htpgan_that_are_left_take_the_new_iterations(root, started, tmp_path, caplog, iterations):
    class SaveScale(ScaleRates):
        """Saves a checkpoint after the first scale."""

        def on_train_batch_end(self, *_: object) -> None:
            """Do not save."""

        def on_train_epoch_end(self, trainer, pl_module) -> None:
            """Save it."""
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "scale.ckpt")

    first = train(root, tmp_path / "first", "htpgan", SaveScale(), iterations_per_scale=4)
    rates = ScaleRates()
    with caplog.at_level(logging.WARNING):
        run = train(
            root,
            tmp_path,
            "htpgan",
            rates,
            tmp_path / "scale.ckpt",
            iterations_per_scale=iterations,
            discriminator_lr=1e-2,
        )
    # The rate is a tenth in the last fifth of the steps.
    full = math.ceil(0.8 * iterations)
    assert rates.rates == pytest.approx([1e-2] * full + [1e-3] * (iterations - full))
    (line,) = [record.getMessage() for record in caplog.records if "scales are completed" in record.getMessage()]
    assert line == f"1 of 2 scales are completed with iterations_per_scale 4; the others are trained with {iterations}"
    noises = [model._fixed_noise(1)[0] for model in (first.model, run.model)]
    assert noises[0].equal(noises[1])


def test_htpgan_says_that_all_scales_are_completed(root, tmp_path, caplog):
    first = train(root, tmp_path / "first", "htpgan", Rates())
    (last,) = tmp_path.rglob("last.ckpt")
    with caplog.at_level(logging.WARNING):
        run = train(root, tmp_path, "htpgan", Rates(), last, iterations_per_scale=9)
    assert "all 2 scales of HtpGan are completed, so that nothing is trained" in caplog.messages
    assert run.model.post_processor.image_threshold == first.model.post_processor.image_threshold


FIXED = (
    "error: training cannot resume with critic_updates 3, because the checkpoint was trained with 2: pass "
    "--model.critic_updates 2, or train from the start"
)

MISFIT = (
    "error: the weights do not fit this Sidn (Error(s) in loading state_dict for Sidn: size mismatch for * they were "
    "trained with channels 2 and not 4; pass the --model arguments that they were trained with, or another --ckpt_path"
)


@pytest.mark.parametrize(
    ("method", "arguments", "line"),
    [("defectgan", {"critic_updates": 3}, FIXED), ("sidn", {"channels": 4, "iterations": 6}, MISFIT)],
)
def test_what_cannot_be_changed_is_refused_in_one_line(root, started, tmp_path, method, arguments, line):
    with pytest.raises(ConfigurationError) as error:
        train(root, tmp_path, method, Rates(), started(method, iterations=6), **arguments)
    start, _, end = line.partition("*")
    text = error_line(error.value) or ""
    assert text.startswith(start)
    assert text.endswith(end)


def test_a_checkpoint_of_another_model_is_named(root, started, tmp_path):
    with pytest.raises(ConfigurationError, match="they are of a Sidn, so pass --model Sidn, or another --ckpt_path"):
        train(root, tmp_path, "onestage", Rates(), started("sidn", iterations=6))
