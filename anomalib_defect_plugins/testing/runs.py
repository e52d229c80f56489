"""Training runs of the contracts, and what they compare."""

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import openvino
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import read_image
from anomalib.deploy import ExportType
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""OpenVINO computes in bfloat16 by default where the processor can; what the graph says shows only in float32."""


class Watch(Callback):
    """Takes down what a training shows on the progress bar as a loss, and whether it optimises the model."""

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = defaultdict(list)
        self.optimises = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether an optimiser holds a weight of the model (Lightning has a mock for models without one)."""
        weights = {id(weight) for weight in pl_module.parameters()}
        groups = (group for optimiser in trainer.optimizers for group in optimiser.param_groups)
        self.optimises = any(id(weight) in weights for group in groups for weight in group["params"])

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Take down every value with "loss" in its name."""
        for name, value in trainer.progress_bar_metrics.items():
            if "loss" in name.lower():
                self.losses[name].append(float(value))


@dataclass(frozen=True)
class Run:
    """A model that an engine has fitted."""

    model: AnomalibModule
    engine: Engine
    datamodule: AnomalibDataModule
    watch: Watch

    @property
    def folder(self) -> Path:
        """Folder of the run's results."""
        return Path(self.engine.trainer.default_root_dir)

    @property
    def checkpoint(self) -> Path:
        """File of the model as training left it."""
        return Path(str(self.engine.best_model_path))

    def images(self) -> Tensor:
        """Return all test images as they lie on the disk, (B, C, H, W), float in [0, 1]."""
        paths = self.datamodule.test_data.samples.image_path
        return torch.stack([cast(Tensor, read_image(path, as_tensor=True)) for path in paths])


def fit(
    model: AnomalibModule,
    datamodule: AnomalibDataModule,
    folder: Path,
    trainer_arguments: Mapping[str, Any],
    callbacks: Iterable[Callback] = (),
    ckpt_path: Path | None = None,
) -> Run:
    """Fit a model through anomalib's engine on one CPU, quietly, with results below ``folder``."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    arguments = {"accelerator": "cpu", "devices": 1, **quiet, **trainer_arguments}
    watch = Watch()
    engine = Engine(callbacks=[*callbacks, watch], default_root_dir=folder, **arguments)
    engine.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
    return Run(model, engine, datamodule, watch)


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, without the environment variable that Lightning would leave for other tests."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - models and augmentations may draw from it
    torch.manual_seed(seed)


def unshuffled(datamodule: AnomalibDataModule) -> AnomalibDataModule:
    """Make a data module give its training images in order: a resumed run cannot know where a shuffle had been."""

    def train_dataloader() -> DataLoader[Any]:
        data, size = datamodule.train_data, datamodule.train_batch_size
        return DataLoader(data, batch_size=size, collate_fn=data.collate_fn)

    datamodule.train_dataloader = train_dataloader  # type: ignore[method-assign]
    return datamodule


def differences(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Return the names of what two state dictionaries do not hold exactly alike (a NaN being like a NaN)."""
    unequal = [name for name in state.keys() & other.keys() if not _is_same(state[name], other[name])]
    return sorted([*unequal, *(state.keys() ^ other.keys())])


def _is_same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def exported_path(run: Run, export_type: str, subfolder: str = ".", **arguments: Any) -> Path:
    """Export a run's model as ``anomalib export`` does, and return the graph's file.

    Args:
        run: The run.
        export_type: ``onnx`` or ``openvino``.
        subfolder: Where to, below the folder of the run's results.
        arguments: Further arguments of ``Engine.export``.
    """
    return Path(str(run.engine.export(run.model, ExportType(export_type), run.folder / subfolder, **arguments)))


def run_openvino(path: Path, images: Tensor) -> dict[str, np.ndarray]:
    """Run an exported graph (``.xml`` or ``.onnx``) on images, (B, C, H, W), and return its outputs by name."""
    graph = openvino.Core().compile_model(path, "CPU", FULL_PRECISION)
    return {output.any_name: value for output, value in graph({0: images.numpy()}).items()}


class SeedByStep(Callback):
    """Seeds the generators at every epoch and step by their number, so that a resumed run draws as a whole one."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed for what a model draws before the epoch's first step."""
        del pl_module
        seed_all(1000 + trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Seed for a step."""
        del pl_module, batch
        seed_all(1_000_000 * (1 + trainer.current_epoch) + batch_idx)


class KeepEpochs(ModelCheckpoint):
    """Keeps a checkpoint of every epoch, ``epoch=0.ckpt`` being the first.

    Args:
        folder: Where to keep them.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(dirpath=folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)


class Poison(Callback):
    """Turns all weights to NaN before the second step, as an exploding gradient would."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Poison the weights once."""
        del trainer, batch
        if batch_idx == 1:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(math.nan)
