"""Trains HTP-GAN on one photo, in a thread that can be stopped; whoever asks while another trains waits in line."""

import logging
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_defect_plugins.core.errors import InvalidInputError, error_line
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.inference.run_model import LoadedModel, Thresholds, TorchModel
from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.models.htpgan.torch_model import MIN_STD

logger = logging.getLogger(__name__)

LONGEST = 4
"""Greatest proportion of the sides that a model is made for; longer photos are squeezed."""

LEAST_SIDE = 64
"""Least side of the square whose area a model is made for, in pixels."""

SHOWN = 96
"""Greatest side of the photo as a scale sees it, where it is shown, in pixels."""

MOST_WAITING = 16
"""Trainings in line at most."""

START = 3300
"""Pixels that cost as much as what each step takes whatever the size."""

TRAINER: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}

Size = tuple[int, int]
"""Height and width, in pixels."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Args:
        side: Side of the square whose area the photo is resized to, in pixels.
        scales: Scales of the pyramid.
        iterations: Steps a scale.
    """

    side: int
    scales: int
    iterations: int


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Args:
        state: ``waiting``, ``running``, ``done``, ``stopped`` or ``failed``.
        sizes: Height and width of each scale.
        done: Scales that are trained.
        share: Share of the work that is done, in [0, 1].
        seconds: How long it has been going on.
        photo: What is learnt, for each scale as it sees it: (h, w, 3), uint8.
        error: Why it failed.
    """

    state: str
    sizes: list[Size]
    done: int
    share: float
    seconds: float
    photo: list[np.ndarray]
    error: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens."""
        return self.state in {"done", "stopped", "failed"}


class Stopped(Exception):  # noqa: N818 - no error
    """Someone has stopped the training."""


class Training:
    """A training, which begins when :meth:`run` is called.

    Args:
        photo: The surface without a defect.
        recipe: How it is trained.

    Attributes:
        name: Name of the photo.
        model: The trained model; ``None`` until it is there.

    Raises:
        InvalidInputError: The photo is of one tone.
    """

    def __init__(self, photo: Photo, recipe: Recipe) -> None:
        self.name = photo.name
        self.model: LoadedModel | None = None
        self._pixels: np.ndarray | None = photo.pixels
        self._net = _make_model(photo.pixels, recipe)
        self.sizes = list(self._net.model.sizes)
        self._iterations = recipe.iterations
        self._at = 0, 0
        self._photo = [_small(photo.pixels, size) for size in self.sizes]
        self._state, self._error = "waiting", ""
        self._began = self._ended = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Stop it, or let it never begin; a trained model stays."""
        with self._lock:
            self._stop.set()
            if self._state == "waiting":
                self._end("stopped")

    def progress(self) -> Progress:
        """Say how far it is."""
        scale, step = self._at
        costs = np.array([START + sum(h * w for h, w in self.sizes[: n + 1]) for n in range(len(self.sizes))], float)
        share = (costs[:scale].sum() + costs[scale : scale + 1].sum() * step / self._iterations) / costs.sum()
        seconds = (self._ended or time.monotonic()) - self._began if self._began else 0.0
        done = scale + (step == self._iterations)
        return Progress(self._state, self.sizes, done, float(share), seconds, self._photo, self._error)

    def run(self) -> None:
        """Train; whatever goes wrong is in the progress."""
        with self._lock:
            if self._stop.is_set():
                return
            self._state, self._began = "running", time.monotonic()
        try:
            self.model = self._train()
        except Stopped:
            self._end("stopped")
        except Exception as error:
            line = error_line(error)
            if line is None:
                logger.exception("training on %s failed", self.name)
            self._error = (line or f"error: {type(error).__name__}").removeprefix("error: ")
            self._end("failed")
        else:
            self._end("done")

    def _end(self, state: str) -> None:
        """End, and keep nothing but what was learnt."""
        self._ended = time.monotonic()
        self._pixels = self._net = None
        self._state = state

    def _train(self) -> LoadedModel:
        net = self._net
        with tempfile.TemporaryDirectory(prefix="anomalib-defects-photo-") as folder:
            path = Path(folder, GOOD, "photo.png")
            path.parent.mkdir()
            Image.fromarray(self._pixels).save(path)
            data = DefectFolder(folder, mask_dir=None, val_split_mode="none", num_workers=0)
            trainer = Trainer(default_root_dir=folder, callbacks=[_Watch(self)], **TRAINER, **net.trainer_arguments)
            trainer.fit(net, datamodule=data)
        net.trainer = None  # which holds on to data and losses
        return TorchModel(net.cpu().eval().requires_grad_(False), Thresholds(0.5, 0.5))


class _Watch(Callback):
    """Tells a training how far it is, and ends it when it is to stop.

    Args:
        training: The training.
    """

    def __init__(self, training: Training) -> None:
        self.training = training

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *more: object) -> None:
        """Count the step."""
        del trainer
        self.training._at = pl_module.current_epoch, int(more[2]) + 1
        if self.training._stop.is_set():
            raise Stopped


class Line:
    """Trainings one after another, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Training] = deque()
        self._worker: threading.Thread | None = None

    def enter(self, training: Training) -> None:
        """Have it train when those before it are through.

        Raises:
            InvalidInputError: ``MOST_WAITING`` are in line already.
        """
        with self._lock:
            if sum(not other.progress().is_over for other in self._waiting) >= MOST_WAITING:
                msg = f"{MOST_WAITING} others wait for their training already; come back in some minutes"
                raise InvalidInputError(msg)
            self._waiting.append(training)
            if self._worker is None:
                # As a daemon, so that the server can be stopped in the middle of it.
                self._worker = threading.Thread(target=self._work, name="one-photo", daemon=True)
                self._worker.start()

    def ahead(self, training: Training) -> int:
        """Count those that train or wait before it."""
        with self._lock:
            before = list(self._waiting)
        before = before[: before.index(training)] if training in before else []
        return sum(not other.progress().is_over for other in before)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._worker = None
                    return
                training = self._waiting[0]
            training.run()
            with self._lock:
                self._waiting.popleft()


def _make_model(pixels: np.ndarray, recipe: Recipe) -> HtpGan:
    image = _tensor(pixels)
    if image.std() < MIN_STD:
        msg = "the photo is of one tone, so there is nothing to learn from it; give one that shows the surface"
        raise InvalidInputError(msg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = HtpGan(
            image_size=model_size(*pixels.shape[:2], recipe.side),
            num_scales=recipe.scales,
            iterations_per_scale=recipe.iterations,
            threshold="reference",
            evaluator=False,
            visualizer=False,
        )
    net.seed.fill_(0)  # equal photos give equal models
    return net


def model_size(height: int, width: int, side: int) -> Size:
    """Give the size that a model is made for: the area of a square, in the proportions of the photo.

    Args:
        height: Of the photo, in pixels.
        width: Of the photo.
        side: Of the square; a smaller photo is not made larger.
    """
    side = max(LEAST_SIDE, min(side, (height * width) ** 0.5))
    root = min(LONGEST, max(1 / LONGEST, height / width)) ** 0.5
    return round(side * root), round(side / root)


def _small(pixels: np.ndarray, size: Size) -> np.ndarray:
    height, width = (min(side, SHOWN) for side in size)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def _tensor(pixels: np.ndarray) -> Tensor:
    return to_dtype(to_image(pixels), torch.float32, scale=True).as_subclass(Tensor)
