"""A model that trains within a second, and benchmark configurations for it."""

import os
import signal
import time
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from torch import Tensor, nn
from torchvision.transforms.v2 import Resize

from anomalib_defect_plugins.testing import write_folder_data

SIDE = 32


class Net(nn.Module):
    """The map is the distance of each pixel to the mean of training, after a random filter."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("mean", torch.zeros(3, SIDE, SIDE))

    def forward(self, images: Tensor) -> InferenceBatch:
        """Return scores, shape (B,), and maps, shape (B, 1, H, W)."""
        maps = self.filter(images - self.mean).abs().mean(1, keepdim=True)
        return InferenceBatch(pred_score=maps.amax((1, 2, 3)), anomaly_map=maps)


class Tiny(AnomalibModule):
    """A model that learns the running mean of its training images.

    Args:
        seconds: Time to sleep before training.
        error: Message of the error to raise instead of training; ``interrupt`` acts as Ctrl-C.
        killed: File to create at the first training, whose process then kills itself.
        rate: Share of the mean that a step replaces.
        holds: Step that creates the file ``held`` in the working folder and waits for a minute: ``training_step``,
            ``validation_step`` or ``test_step``.
    """

    model: Net

    def __init__(
        self,
        seconds: float = 0,
        error: str | None = None,
        killed: str | None = None,
        rate: float = 0.1,
        holds: str | None = None,
    ) -> None:
        super().__init__(
            pre_processor=PreProcessor(Resize((SIDE, SIDE), antialias=True)), visualizer=False, evaluator=True
        )
        self.model = Net()
        self.seconds, self.error, self.killed, self.rate = seconds, error, killed, rate
        self.holds = holds
        self.automatic_optimization = False

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Two epochs."""
        return {"max_epochs": 2, "num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """One-class."""
        return LearningType.ONE_CLASS

    def configure_optimizers(self) -> None:
        """Use no optimiser."""

    def on_fit_start(self) -> None:
        """Fail, die or sleep as the arguments say."""
        if self.error == "interrupt":
            raise KeyboardInterrupt
        if self.error:
            raise ValueError(self.error)
        if self.killed and not Path(self.killed).exists():
            Path(self.killed).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Update the mean."""
        self._hold("training_step")
        images = cast(Tensor, batch.image)
        self.model.mean += self.rate * (images.mean(0) + 0.01 * torch.randn(SIDE, SIDE) - self.model.mean)

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> Any:
        """Predict maps for the thresholds."""
        self._hold("validation_step")
        return batch.update(**self.model(batch.image)._asdict())

    def test_step(self, batch: ImageBatch, batch_idx: int) -> Any:
        """Predict maps."""
        self._hold("test_step")
        return super().test_step(batch, batch_idx)

    def _hold(self, step: str) -> None:
        if step == self.holds:
            Path("held").touch()
            time.sleep(60)


def write_benchmark(root: Path, models: list[dict[str, Any]], seeds: list[int], **more: Any) -> Path:
    """Write data and a configuration into a folder, and return the configuration file.

    Args:
        root: The folder.
        models: Arguments of ``Tiny`` for each model.
        seeds: The seeds.
        more: Further keys of the configuration.
    """
    data: dict[str, Any] = {
        "name": "generated",
        "root": str(root / "data"),
        "normal_dir": "normal",
        "normal_test_dir": "normal_test",
    }
    data |= {"abnormal_dir": "defective", "mask_dir": "masks", "num_workers": 0, "val_split_mode": "same_as_test"}
    data |= {"train_batch_size": 4, "eval_batch_size": 3, "seed": 0}
    if not (root / "data").exists():
        write_folder_data(root / "data", image_size=(40, 48))
    content = {
        "name": "tiny",
        "seeds": seeds,
        "trainer": {"accelerator": "cpu"},
        "models": [
            {"name": f"tiny {number}", "class_path": "tiny_benchmark.Tiny", "init_args": arguments}
            for number, arguments in enumerate(models)
        ],
        "data": [{"class_path": "Folder", "init_args": data}],
        "measure": {"latency": False},
        **more,
    }
    path = root / "benchmark.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
