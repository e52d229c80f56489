"""Options of Lightning's trainer: those left open are completed, those that a model cannot follow are refused.

anomalib's ``trainer_arguments`` replace what the user has set. A model sets its options on the trainer instead, when
training begins and before data are read, and only where the user has not.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.stop_signals import handle_sigterm

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object

STOPPED = "stopped by SIGTERM: saved files are complete; --ckpt_path with a last.ckpt continues a training"

NEVER = sys.maxsize
"""Interval of validation, in batches, of a model that is validated after its last step only."""

_changes: WeakKeyDictionary[Trainer, dict[str, tuple[Any, Any]]] = WeakKeyDictionary()
"""Options that were set for the training in progress, by trainer: the user's value and the value in use."""


class TrainerOptions(_Module):
    """Completes and checks the options of the trainer. Comes before ``AnomalibModule`` among the bases of a model.

    Attributes:
        complete_after_last_epoch: Whether the model is of no use before its last epoch has ended.
        resume_interval: Least time in seconds between two checkpoints to resume from, which end an epoch.
    """

    complete_after_last_epoch: ClassVar[bool] = False
    resume_interval: ClassVar[float] = 0.0

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity check: files are checked before training, and an untrained model has no scores to check."""
        return {"num_sanity_val_steps": 0}

    @property
    def trainer_defaults(self) -> dict[str, Any]:
        """Values of ``max_epochs``, ``val_check_interval`` and ``check_val_every_n_epoch`` that a user may replace."""
        return {}

    @property
    def trainer(self) -> Trainer:
        """The trainer; Lightning sets it as the first step of each training."""
        return super().trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        super(TrainerOptions, type(self)).trainer.fset(self, trainer)  # type: ignore[attr-defined]
        if not isinstance(trainer, Trainer):
            return
        handle_sigterm(STOPPED)
        check_precision(self, trainer)
        if trainer.state.fn == TrainerFn.FITTING:
            reset_options(trainer)
            check_options(self, trainer)
            complete_options(self, trainer)


def set_options(trainer: Trainer, **options: Any) -> None:
    """Set options of a trainer until its next training."""
    changes = _changes.setdefault(trainer, {})
    for name, value in options.items():
        before = changes[name][0] if name in changes else getattr(trainer, name, None)
        changes[name] = (before, value)
        _set(trainer, name, value)


def reset_options(trainer: Trainer) -> None:
    """Undo :func:`set_options`, except for options that the user has changed since."""
    for name, (before, value) in _changes.pop(trainer, {}).items():
        if getattr(trainer, name, None) == value:
            _set(trainer, name, before)


def _set(trainer: Trainer, name: str, value: Any) -> None:
    owners = {"max_epochs": trainer.fit_loop, "min_epochs": trainer.fit_loop, "min_steps": trainer.fit_loop.epoch_loop}
    setattr(owners.get(name, trainer), name, value)


def complete_options(model: TrainerOptions, trainer: Trainer) -> None:
    """Set the options that the user has left open to the model's defaults.

    Validation is left to the trainer, after every epoch, if a callback such as ``EarlyStopping`` monitors a metric. An
    interval in batches is counted across epochs.
    """
    if is_trial(trainer):
        return
    defaults = dict(model.trainer_defaults)
    if trainer.max_epochs is not None:
        defaults.pop("max_epochs", None)
    if _validates_as_set(trainer) or (_monitors(trainer) and not model.complete_after_last_epoch):
        defaults = {name: value for name, value in defaults.items() if name == "max_epochs"}
        if isinstance(_interval(trainer), int) and trainer.check_val_every_n_epoch == 1:
            defaults["check_val_every_n_epoch"] = None
    set_options(trainer, **defaults)


def _interval(trainer: Trainer) -> Any:
    """Return the interval of validation; ``None`` if it is a time."""
    return getattr(trainer, "val_check_interval", None)


def _validates_as_set(trainer: Trainer) -> bool:
    """Whether the user has set when to validate; Lightning's default is 1 epoch, as in every saved configuration."""
    interval = _interval(trainer)
    return not (isinstance(interval, float) and interval == 1.0 and trainer.check_val_every_n_epoch == 1)


def _monitors(trainer: Trainer) -> list[tuple[str, str]]:
    """Return the callbacks that monitor a metric, and the name of the metric."""
    found = ((type(callback).__name__, getattr(callback, "monitor", None)) for callback in callbacks_of(trainer))
    return [(name, monitor) for name, monitor in found if monitor]


def is_trial(trainer: Trainer) -> bool:
    """Whether the trainer runs a few batches only, to find errors."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # Lightning sets it dynamically


def callbacks_of(trainer: Trainer) -> Sequence[Callback]:
    """Return the callbacks of a trainer."""
    return cast(Sequence[Callback], trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it dynamically


def check_precision(model: TrainerOptions, trainer: Trainer) -> None:
    """Check that weights are float32, because images and the thresholds of anomalib are.

    Raises:
        ConfigurationError: If they are not; names the precisions that work.
    """
    if trainer.precision.endswith("-true") and trainer.precision != "32-true":
        msg = (
            f"{_name(model)} cannot be used with precision {trainer.precision}, because images are float32: set "
            "--trainer.precision to 32-true, 16-mixed or bf16-mixed"
        )
        raise ConfigurationError(msg)


def check_options(model: TrainerOptions, trainer: Trainer) -> None:
    """Check that the model can follow the options of the trainer.

    Raises:
        ConfigurationError: If it cannot; names the option and what to do.
    """
    for reason in _refusals(model, trainer):
        msg = f"{_name(model)} cannot be trained with {reason}"
        raise ConfigurationError(msg)


def _name(model: TrainerOptions) -> str:
    return type(model).__name__


def _refusals(model: TrainerOptions, trainer: Trainer) -> Iterator[str]:
    yield from _empty_training(trainer)
    yield from _intervals(trainer)
    yield from _compiled(model)
    yield from _replaced_optimizer(model)
    if not model.automatic_optimization:
        yield from _own_optimisation(trainer)
    if model.complete_after_last_epoch and not is_trial(trainer):
        yield from _incomplete(model, trainer)
    if getattr(model, "draws_own_batches", False):
        yield from _replaced_batches(trainer)
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks_of(trainer)):
        yield "StochasticWeightAveraging, which needs a number of epochs: remove the callback"
    yield from _unknown_monitors(model, trainer)


def _empty_training(trainer: Trainer) -> Iterator[str]:
    limits = {
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "limit_train_batches": trainer.limit_train_batches,
    }
    for name, value in limits.items():
        if value == 0:
            yield f"{name} 0, which trains nothing: leave --trainer.{name} out"
    if any(isinstance(callback, Timer) and callback.time_remaining() == 0 for callback in callbacks_of(trainer)):
        yield "max_time 0, which trains nothing: leave --trainer.max_time out"


def _intervals(trainer: Trainer) -> Iterator[str]:
    """Yield intervals of 0, by which Lightning divides."""
    for name in ("accumulate_grad_batches", "val_check_interval", "check_val_every_n_epoch"):
        value = getattr(trainer, name, None)
        if value is not None and value <= 0:
            yield f"{name} {value}: set --trainer.{name} to 1 or more, or leave it out"


def _compiled(model: TrainerOptions) -> Iterator[str]:
    if model._compiler_ctx is not None:
        yield (
            "torch.compile around it, because training draws random augmentations: pass the model itself, and compile "
            "its network with model.model.compile()"
        )


def _replaced_optimizer(model: TrainerOptions) -> Iterator[str]:
    """Yield an optimizer that cannot replace the model's; Lightning cannot call what anomalib makes of an option."""
    replaced = vars(model).get("configure_optimizers")
    if not model.automatic_optimization and replaced is not None:
        yield "another optimizer, because it updates its networks in turn: set its learning rates instead"
    if isinstance(getattr(replaced, "__func__", None), partial):
        yield "--optimizer, which anomalib 2.7 cannot apply: leave it out, and set its learning rate instead"


def _own_optimisation(trainer: Trainer) -> Iterator[str]:
    why = "because it updates its networks in turn"
    if trainer.gradient_clip_val:
        yield f"gradient_clip_val, {why}: leave --trainer.gradient_clip_val out, and lower its learning rates instead"
    if trainer.accumulate_grad_batches > 1:
        yield f"accumulate_grad_batches, {why}: leave --trainer.accumulate_grad_batches out"
    for callback in callbacks_of(trainer):
        if isinstance(callback, GradientAccumulationScheduler | LearningRateFinder):
            yield f"{type(callback).__name__}, {why}: remove the callback"


def _replaced_batches(trainer: Trainer) -> Iterator[str]:
    why = "because it draws its own training batches"
    if trainer.overfit_batches:  # type: ignore[attr-defined]
        yield f"overfit_batches, {why}: use --trainer.limit_train_batches, or a folder with few images"
    for callback in callbacks_of(trainer):
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            yield f"{type(callback).__name__}, {why}: remove the callback"


def _incomplete(model: TrainerOptions, trainer: Trainer) -> Iterator[str]:
    """Yield the options that end or interrupt training before the last epoch."""
    epochs = model.trainer_defaults["max_epochs"]
    why = f"because it is complete only after the last of its {epochs} epochs"
    interval = getattr(trainer, "val_check_interval", "by time")
    allowed: dict[str, tuple[Any, set[Any]]] = {
        "max_epochs": (trainer.max_epochs, {None, epochs}),
        "max_steps": (trainer.max_steps, {-1}),
        "min_epochs": (trainer.min_epochs, {None, *range(epochs + 1)}),
        "min_steps": (trainer.min_steps, {None}),
        "max_time": (any(isinstance(callback, Timer) for callback in callbacks_of(trainer)), {False}),
        "val_check_interval": (interval, {1.0}),
        "check_val_every_n_epoch": (trainer.check_val_every_n_epoch, {1, epochs}),
    }
    for name, (value, values) in allowed.items():
        if value not in values:
            yield f"{name}{'' if value is True else f' {value}'}, {why}: leave --trainer.{name} out"
    for name, monitor in _monitors(trainer):
        yield f"{name} of {monitor}, {why}: remove the callback"


def _unknown_monitors(model: TrainerOptions, trainer: Trainer) -> Iterator[str]:
    """Yield the monitored metrics that are not computed in training."""
    metrics = getattr(model, "evaluator", None)
    known, tested = ({metric.name for metric in getattr(metrics, f"{stage}_metrics", ())} for stage in ("val", "test"))
    for name, monitor in _monitors(trainer):
        if monitor in (tested | {"val_loss"}) - known:
            yield (
                f"{name} of {monitor}, which validation does not compute: monitor a training loss, or pass an "
                "Evaluator that has the metric among its val_metrics (--model.evaluator)"
            )
