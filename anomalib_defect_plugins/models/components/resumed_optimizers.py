"""Optimisers and learning-rate schedules of resumed runs."""

import warnings
from copy import deepcopy
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer


class ResumedOptimizers(Callback):
    """Makes a resumed run use the optimiser arguments and schedules of its model instead of the checkpoint's.

    Lightning restores learning rates, other options of the optimisers and the schedules as they were saved, whatever
    the model of the resumed run has configured. This callback restores what the model has configured, and advances the
    schedules to the step that training has reached. Momentum and moving averages remain those of the checkpoint.

    Optimisers with a schedule that Lightning does not advance by steps or epochs alone remain as saved: those that
    follow a metric, and those of models that advance them themselves.
    """

    def __init__(self) -> None:
        self._saved: Any = None
        self._options: list[list[dict[str, Any]]] = []
        self._schedules: list[tuple[LRSchedulerConfig, dict[str, Any]]] = []

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the saved schedules."""
        del trainer, pl_module
        self._saved = checkpoint.get("lr_schedulers")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the model has configured, before a checkpoint is restored, and replace the saved schedules."""
        self._options = [[_options(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        self._schedules = []
        for number, item in enumerate(trainer.lr_scheduler_configs if pl_module.automatic_optimization else ()):
            if not item.reduce_on_plateau:
                state = item.scheduler.state_dict()
                self._schedules.append((item, deepcopy(state)))
                if isinstance(self._saved, list) and number < len(self._saved):
                    self._saved[number] = deepcopy(state)  # the saved one may be of another kind
        self._saved = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore it if training continues."""
        del pl_module
        if not trainer.global_step:
            return
        followed = {id(item.scheduler.optimizer) for item, _ in self._schedules}
        kept = {id(item.scheduler.optimizer) for item in trainer.lr_scheduler_configs} - followed
        for optimizer, options in zip(trainer.optimizers, self._options, strict=True):
            if id(optimizer) not in kept:
                _set_options(optimizer, options)
        for item, state in self._schedules:
            steps = trainer.global_step if item.interval == "step" else trainer.current_epoch
            _advance(item.scheduler, state, steps // item.frequency)


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return deepcopy({name: value for name, value in group.items() if name != "params"})


def _set_options(optimizer: Optimizer, options: list[dict[str, Any]]) -> None:
    for group, values in zip(optimizer.param_groups, options, strict=True):
        group.update(values)


def _advance(scheduler: Any, state: dict[str, Any], steps: int) -> None:
    """Reset a schedule, and advance it step by step: many schedules are recursions."""
    scheduler.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # no optimiser step precedes these
        for _ in range(steps):
            scheduler.step()
