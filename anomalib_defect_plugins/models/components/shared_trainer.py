"""Several models in one trainer, as in a loop over an ``Engine``: each trains as in a trainer of its own.

Lightning keeps the progress of a training in the trainer, and anomalib's engine its first trainer with the arguments of
its first model, so that a second model would count as trained already, or would train without end.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.progress import _BaseProgress
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_defect_plugins.models.components.trainer_options import reset_options

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object

DEFAULTS = {
    "max_epochs": None,
    "val_check_interval": 1.0,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 2,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "gradient_clip_val": None,
}
"""Lightning's values of the trainer's options that models set as ``trainer_arguments``."""

DEFAULT_MAX_EPOCHS = 1000
"""What Lightning replaces ``max_epochs=None`` with."""


class SharedTrainer(_Module):
    """Separates the model from others in its trainer. Comes before the other users of ``trainer`` among the bases."""

    @property
    def trainer(self) -> Trainer:
        """The trainer; Lightning sets it as the first step of each run."""
        return super().trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        if isinstance(trainer, Trainer) and trainer.lightning_module is self:
            SeparateModels.of(trainer).enter(trainer, self)
        super(SharedTrainer, type(self)).trainer.fset(self, trainer)  # type: ignore[attr-defined]


class SeparateModels(Callback):
    """Stays in a trainer that has run a model of this package, and separates the models that follow.

    Attributes:
        trained: Number of models that the trainer has trained before the present one.
    """

    def __init__(self) -> None:
        self.trained = 0
        self._model: LightningModule | None = None
        self._callbacks: list[Callback] = []

    @classmethod
    def of(cls, trainer: Trainer) -> "SeparateModels":
        """Return the callback of a trainer, which is added if it is absent."""
        present = next((callback for callback in callbacks_of(trainer) if isinstance(callback, cls)), None)
        if present is None:
            present = cls()
            present._model = cast("LightningModule | None", trainer.strategy._model)  # of the previous run
            callbacks_of(trainer).insert(0, present)
        return present

    def enter(self, trainer: Trainer, model: LightningModule) -> None:
        """Prepare a trainer for a run of a model; if it has trained another one, it becomes as good as new.

        Args:
            trainer: Trainer before the run.
            model: Model that it will run.
        """
        self._callbacks = list(callbacks_of(trainer))
        if trainer.state.fn != TrainerFn.FITTING or model is self._model:
            return
        has_trained = trainer.fit_loop.epoch_progress.total.ready > 0
        if self._model is not None or has_trained:
            _replace_arguments(trainer, self._model, model)
        if has_trained:
            self.trained += 1
            forget_progress(trainer)
        self._model = model

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the trainer for a model of anomalib, which does not do so itself."""
        del stage
        if not isinstance(pl_module, SharedTrainer):
            self.enter(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str | None = None) -> None:
        """Remove what a model of this package has added to the trainer: options and callbacks."""
        del stage
        if isinstance(pl_module, SharedTrainer):
            reset_options(trainer)
            vars(trainer)["callbacks"] = list(self._callbacks)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Clean up as after a run that succeeds."""
        del exception
        self.teardown(trainer, pl_module)


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the list of a trainer's callbacks."""
    return cast(list[Callback], vars(trainer)["callbacks"])


def _replace_arguments(trainer: Trainer, former: LightningModule | None, model: LightningModule) -> None:
    """Replace the ``trainer_arguments`` of a former model, except for those that have been changed since."""
    if getattr(trainer, "fast_dev_run", False):
        return
    stale = {"max_epochs": DEFAULT_MAX_EPOCHS, **getattr(former, "trainer_arguments", {})}
    for name, default in DEFAULTS.items():
        if name in stale and getattr(trainer, name) == stale[name]:
            _set(trainer, name, default)
    for name, value in getattr(model, "trainer_arguments", {}).items():
        if name in DEFAULTS:
            _set(trainer, name, value)


def _set(trainer: Trainer, name: str, value: Any) -> None:
    setattr(trainer.fit_loop if name == "max_epochs" else trainer, name, value)


def forget_progress(trainer: Trainer) -> None:
    """Set the progress of a trainer and of its callbacks to that of a new one."""
    loop = trainer.fit_loop
    fresh = _FitLoop(trainer, loop.min_epochs, loop.max_epochs)
    fresh.epoch_loop = _TrainingEpochLoop(trainer, loop.min_steps, loop.max_steps)
    _copy_progress(fresh, loop)
    for callback in callbacks_of(trainer):
        if isinstance(callback, ModelCheckpoint):
            _forget_checkpoints(callback)
        elif isinstance(callback, EarlyStopping):
            callback.wait_count = callback.stopped_epoch = 0
            callback.best_score = torch.tensor(torch.inf if callback.monitor_op == torch.lt else -torch.inf)


def _copy_progress(source: _Loop, target: _Loop) -> None:
    for name, value in vars(source).items():
        if isinstance(value, _Loop):
            _copy_progress(value, getattr(target, name))
        elif isinstance(value, _BaseProgress | bool | int | float | str):
            setattr(target, name, value)


def _forget_checkpoints(callback: ModelCheckpoint) -> None:
    """Forget the files of a former model, which are kept: the next one gets new names such as ``model-v1.ckpt``."""
    fresh = ModelCheckpoint(monitor=callback.monitor, save_top_k=callback.save_top_k, mode=callback.mode)
    for name in (
        "current_score",
        "best_k_models",
        "kth_best_model_path",
        "kth_value",
        "best_model_score",
        "best_model_path",
        "last_model_path",
        "_last_global_step_saved",
        "_last_checkpoint_saved",
        "_last_time_checked",
    ):
        setattr(callback, name, getattr(fresh, name, None))
