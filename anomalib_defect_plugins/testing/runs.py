"""Training runs for tests, their callbacks, and comparisons of their results."""

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import AnomalibDataModule
from anomalib.deploy import ExportType
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from anomalib_defect_plugins.core.image_io import read_image
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.inference.openvino import FULL_PRECISION


class TrainingRecorder(Callback):
    """Records the losses on the progress bar, and whether an optimiser trains the model.

    Attributes:
        losses: Value of each step, by the name of the loss.
        optimises: Whether an optimiser holds a parameter of the model.
    """

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = defaultdict(list)
        self.optimises = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set ``optimises``. Lightning has a mock optimiser for models without one."""
        weights = {id(weight) for weight in pl_module.parameters()}
        groups = (group for optimiser in trainer.optimizers for group in optimiser.param_groups)
        self.optimises = any(id(weight) in weights for group in groups for weight in group["params"])

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Record every value with "loss" in its name."""
        for name, value in trainer.progress_bar_metrics.items():
            if "loss" in name.lower():
                self.losses[name].append(float(value))


@dataclass(frozen=True)
class Run:
    """A fitted model.

    Attributes:
        model: Model after training.
        engine: Engine that trained it.
        datamodule: Data module that it was trained with.
        watch: Record of the training.
    """

    model: AnomalibModule
    engine: Engine
    datamodule: AnomalibDataModule
    watch: TrainingRecorder

    @property
    def folder(self) -> Path:
        """Results folder."""
        return Path(self.engine.trainer.default_root_dir)

    @property
    def checkpoint(self) -> Path:
        """Checkpoint of the trained model."""
        return Path(str(self.engine.best_model_path))

    def images(self) -> Tensor:
        """Return all test images in their original size, shape (B, C, H, W), float in [0, 1]."""
        paths = self.datamodule.test_data.samples.image_path
        return torch.stack([torch.from_numpy(read_image(path)[0]) for path in paths])


def fit(
    model: AnomalibModule,
    datamodule: AnomalibDataModule,
    folder: Path,
    trainer_arguments: Mapping[str, Any],
    callbacks: Iterable[Callback] = (),
    ckpt_path: Path | None = None,
) -> Run:
    """Fit a model with anomalib's engine on the CPU, without logger and progress bar.

    Args:
        model: Model to fit.
        datamodule: Data module.
        folder: Folder for the results.
        trainer_arguments: Arguments of the engine's trainer.
        callbacks: Further callbacks.
        ckpt_path: Checkpoint to resume from.
    """
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    arguments = {"accelerator": "cpu", "devices": 1, **quiet, **trainer_arguments}
    watch = TrainingRecorder()
    engine = Engine(callbacks=[*callbacks, watch], default_root_dir=folder, **arguments)
    engine.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
    return Run(model, engine, datamodule, watch)


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and PyTorch. Unlike ``seed_everything`` this sets no environment variable."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - models and augmentations may use it
    torch.manual_seed(seed)


def unshuffled(datamodule: AnomalibDataModule) -> AnomalibDataModule:
    """Disable shuffling of the training images: a resumed run cannot restore the state of the shuffle."""

    def train_dataloader() -> DataLoader[Any]:
        data, size = datamodule.train_data, datamodule.train_batch_size
        return DataLoader(data, batch_size=size, collate_fn=data.collate_fn)

    datamodule.train_dataloader = train_dataloader  # type: ignore[method-assign]
    return datamodule


def differences(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the entries that differ between two state dictionaries; NaN equals NaN."""
    unequal = [name for name in state.keys() & other.keys() if not _is_same(state[name], other[name])]
    return sorted([*unequal, *(state.keys() ^ other.keys())])


def _is_same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def exported_path(run: Run, export_type: str, subfolder: str = ".", **arguments: Any) -> Path:
    """Export a model as ``anomalib export`` does, and return the path of the graph.

    Args:
        run: Run of the model.
        export_type: ``onnx`` or ``openvino``.
        subfolder: Target folder, relative to the run's results.
        arguments: Further arguments of ``Engine.export``.
    """
    return Path(str(run.engine.export(run.model, ExportType(export_type), run.folder / subfolder, **arguments)))


def run_openvino(model: Path | openvino.Model, images: Tensor) -> dict[str, npt.NDArray[np.float32]]:
    """Run an exported graph (a file or one in memory) on images, shape (B, C, H, W), and return its outputs by name."""
    graph = openvino_core().compile_model(model, "CPU", FULL_PRECISION)
    return {output.any_name: value for output, value in graph({0: images.numpy()}).items()}


class SeedByStep(Callback):
    """Seeds the random generators by the number of the epoch and step, so that a resumed run repeats a whole one."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed random numbers before the first step of an epoch."""
        del pl_module
        seed_all(1000 + trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Seed a step."""
        del pl_module, batch
        seed_all(1_000_000 * (1 + trainer.current_epoch) + batch_idx)


class KeepEpochs(ModelCheckpoint):
    """Keeps a checkpoint of every epoch: ``epoch=0.ckpt``, ``epoch=1.ckpt`` and so on.

    Args:
        folder: Folder for the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(dirpath=folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)


class PoisonWeights(Callback):
    """Sets all weights to NaN before the second step, as an exploding gradient would."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Set the weights to NaN once."""
        del trainer, batch
        if batch_idx == 1:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(math.nan)
