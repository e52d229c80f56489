"""Training of a one-shot model on one photo, in a thread that can be stopped; trainings run one after another."""

import logging
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_defect_plugins.core.errors import InvalidInputError, error_line
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.inference.run_model import CHECKPOINT, LoadedModel, Thresholds, TorchModel
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.plugins.bridge import registered
from anomalib_defect_plugins.plugins.manager import Kind

logger = logging.getLogger(__name__)

MAX_ASPECT_RATIO = 4
"""Maximum ratio of the sides of a model's images; longer photos are squeezed."""

MIN_SIDE = 64
"""Minimum side of the square with the area of a model's images, in pixels."""

MIN_STD = 1.5 / 255
"""Minimum standard deviation of a photo that shows a texture."""

PREVIEW_SIDE = 96
"""Maximum side of the previews of a photo, in pixels."""

MAX_WAITING = 16
"""Maximum number of unfinished trainings."""

GRACE_S = 120.0
"""Seconds after which a training that no page shows is stopped and forgotten; a page that is loaded again finds it."""

STEP_OVERHEAD = 3300
"""Cost of a step that does not depend on the image size, in pixels."""

SCORE_SHARE = 0.001
"""Share of the highest pixels of a map that are the score; with the fusion, chosen on photos that are not offered."""

TRAINER: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training.

    Args:
        side: Side of the square with the area that the photo is resized to, in pixels.
        scales: Scales of the image pyramid.
        iterations: Training steps per scale.
    """

    side: int
    scales: int
    iterations: int


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training.

    Args:
        state: ``waiting``, ``running``, ``done``, ``stopped`` or ``failed``.
        sizes: Size of each scale.
        done: Number of trained scales.
        share: Finished fraction of the work, in [0, 1].
        seconds: Elapsed time.
        previews: The photo at each scale, shape (h, w, 3), uint8.
        error: Reason of a failure.
    """

    state: str
    sizes: Sequence[Size]
    done: int
    share: float
    seconds: float
    previews: Sequence[npt.NDArray[np.uint8]]
    error: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the training has ended."""
        return self.state in {"done", "stopped", "failed"}


class TrainingStopped(Exception):  # noqa: N818 - not an error
    """Raised in the training thread when a user stops the training."""


class Training:
    """A training, which :meth:`run` runs.

    Args:
        photo: Photo of the surface without a defect.
        settings: Settings.
        seed: Seed; equal photos and seeds result in equal models.

    Attributes:
        name: Name of the photo.
        model_name: Name of the model.
        model: The trained model; ``None`` until it is trained.
        checkpoint: Its checkpoint, which is deleted with the training; ``None`` until it is trained.
        photo: The photo as a PNG file, likewise.
        arguments: Arguments of the model.
        sizes: Size of each scale.

    Raises:
        InvalidInputError: If the photo has no texture, or no one-shot model is registered.
    """

    def __init__(self, photo: Photo, settings: TrainingSettings, seed: int = 0) -> None:
        self.name = photo.name
        self.model: LoadedModel | None = None
        net = _create_model(photo.pixels, settings, seed)
        self.model_name = type(net).__name__
        self.arguments = _arguments(photo.pixels, settings)
        self.sizes = list(cast(Sequence[Size], net.model.sizes))
        self._data: tuple[DefectModel, npt.NDArray[np.uint8]] | None = (net, photo.pixels)
        self._iterations = settings.iterations
        self._position = 0, 0
        self._previews = [_preview(photo.pixels, size) for size in self.sizes]
        self._state, self._error = "waiting", ""
        self._started = self._ended = 0.0
        self.checkpoint: Path | None = None
        self.photo: Path | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="anomalib-defects-model-")
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Stop the training, or cancel it if it has not started; a trained model is kept."""
        with self._lock:
            self._stop.set()
            if self._state == "waiting":
                self._end("stopped")

    def progress(self) -> TrainingProgress:
        """Return the progress."""
        scale, step = self._position
        costs = np.array([STEP_OVERHEAD + sum(h * w for h, w in self.sizes[: n + 1]) for n in range(len(self.sizes))])
        share = (costs[:scale].sum() + costs[scale : scale + 1].sum() * step / self._iterations) / costs.sum()
        seconds = (self._ended or time.monotonic()) - self._started if self._started else 0.0
        done = scale + (step == self._iterations)
        return TrainingProgress(self._state, self.sizes, done, float(share), seconds, self._previews, self._error)

    def run(self) -> None:
        """Train; errors are reported in the progress."""
        with self._lock:
            if self._stop.is_set() or self._data is None:
                return
            self._state, self._started = "running", time.monotonic()
        try:
            self.model = self._train(*self._data)
        except TrainingStopped:
            self._end("stopped")
        except Exception as error:
            line = error_line(error)
            if line is None:
                logger.exception("training on %s failed", self.name)
            self._error = (line or f"error: {type(error).__name__}").removeprefix("error: ")
            self._end("failed")
        else:
            self._end("done")

    def report(self, scale: int, steps: int) -> None:
        """Record the number of finished steps of a scale.

        Raises:
            TrainingStopped: If the training is to stop.
        """
        self._position = scale, steps
        if self._stop.is_set():
            raise TrainingStopped

    def _end(self, state: str) -> None:
        """End the training and release the photo and the network."""
        self._ended = time.monotonic()
        self._data = None
        self._state = state

    def _train(self, net: DefectModel, pixels: npt.NDArray[np.uint8]) -> LoadedModel:
        photo = Path(self._folder.name, GOOD, "photo.png")
        photo.parent.mkdir()
        Image.fromarray(pixels).save(photo)
        with tempfile.TemporaryDirectory(prefix="anomalib-defects-photo-") as folder:
            data = DefectFolder(self._folder.name, mask_dir=None, val_split_mode="none", num_workers=0)
            callbacks: list[Callback] = [_ReportProgress(self)]
            trainer = Trainer(default_root_dir=folder, callbacks=callbacks, **TRAINER, **net.trainer_arguments)
            trainer.fit(net, datamodule=data)
            self.checkpoint, self.photo = Path(self._folder.name, CHECKPOINT), photo
            trainer.save_checkpoint(self.checkpoint, weights_only=True)
        net.trainer = None  # it refers to data and losses
        return TorchModel(net.cpu().eval().requires_grad_(False), Thresholds(0.5, 0.5))


class _ReportProgress(Callback):
    """Reports the progress after each step.

    Args:
        training: The training.
    """

    def __init__(self, training: Training) -> None:
        self.training = training

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Report a step; an epoch is a scale."""
        del trainer, outputs, batch
        self.training.report(pl_module.current_epoch, batch_idx + 1)


class TrainingQueue:
    """Runs trainings one after another, in the order of submission, and knows the latest one of each user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trainings: deque[Training] = deque()
        self._worker: threading.Thread | None = None
        self._latest: dict[str, Training] = {}
        self._pages: Counter[Training] = Counter()
        self._timers: dict[Training, threading.Timer] = {}

    def submit(self, training: Training, owner: str = "") -> None:
        """Run a training when those before it have ended. The page of its user shows it.

        Args:
            training: The training.
            owner: Token of the user; without one, the training is not found again.

        Raises:
            InvalidInputError: If ``MAX_WAITING`` trainings are unfinished.
        """
        with self._lock:
            if sum(not other.progress().is_over for other in self._trainings) >= MAX_WAITING:
                msg = f"{MAX_WAITING} other trainings are waiting already; come back in some minutes"
                raise InvalidInputError(msg)
            self._trainings.append(training)
            self._pages[training] = 1
            if owner:
                self._latest[owner] = training
            if self._worker is None:
                # A daemon, so that the server can stop during a training.
                self._worker = threading.Thread(target=self._work, name="one-photo", daemon=True)
                self._worker.start()

    def find(self, owner: str) -> Training | None:
        """Return the latest training of a user, for another page that shows it from now on."""
        with self._lock:
            training = self._latest.get(owner)
            if training is not None:
                self._pages[training] += 1
                if training in self._timers:
                    self._timers.pop(training).cancel()
        return training

    def leave(self, training: Training) -> None:
        """Note that a page has been closed. A training that no page shows is stopped and forgotten some time later."""
        with self._lock:
            self._pages[training] -= 1
            if self._pages[training]:
                return
            timer = self._timers[training] = threading.Timer(GRACE_S, self._forget, [training])
        timer.daemon = True
        timer.start()

    def _forget(self, training: Training) -> None:
        with self._lock:
            if self._pages[training]:  # a page has found it just now
                return
            del self._pages[training]
            self._timers.pop(training, None)
            self._latest = {owner: other for owner, other in self._latest.items() if other is not training}
        training.stop()

    def count_ahead(self, training: Training) -> int:
        """Return the number of unfinished trainings before this one."""
        with self._lock:
            trainings = list(self._trainings)
        ahead = trainings[: trainings.index(training)] if training in trainings else []
        return sum(not other.progress().is_over for other in ahead)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._trainings:
                    self._worker = None
                    return
                training = self._trainings[0]
            training.run()
            with self._lock:
                self._trainings.popleft()


def one_shot_model() -> type[DefectModel]:
    """Return the first registered model that learns from one normal image.

    Raises:
        InvalidInputError: If there is none.
    """
    for cls in registered(Kind.MODEL).values():
        if issubclass(cls, DefectModel) and cls.supervision is Supervision.ONE_SHOT:
            return cls
    msg = "no one-shot model is registered; 'anomalib-defects list' shows which models are disabled or failed"
    raise InvalidInputError(msg)


def _create_model(pixels: npt.NDArray[np.uint8], settings: TrainingSettings, seed: int) -> DefectModel:
    if _to_tensor(pixels).std() < MIN_STD:
        msg = "the photo is of one tone, so there is nothing to learn from it; use one that shows the surface"
        raise InvalidInputError(msg)
    create: Callable[..., DefectModel] = one_shot_model()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = create(**_arguments(pixels, settings), evaluator=False, visualizer=False)
    net.seed.fill_(seed)
    return net


def _arguments(pixels: npt.NDArray[np.uint8], settings: TrainingSettings) -> dict[str, Any]:
    height, width, _ = pixels.shape
    return {
        "image_size": model_size(height, width, settings.side),
        "num_scales": settings.scales,
        "iterations_per_scale": settings.iterations,
        "fusion": "maximum",
        "score_share": SCORE_SHARE,
        "threshold": "reference",
    }


def model_size(height: int, width: int, side: int) -> Size:
    """Return the size of a model's images: the area of a square, with the aspect ratio of the photo.

    Args:
        height: Height of the photo in pixels.
        width: Width of the photo in pixels.
        side: Side of the square in pixels; a smaller photo is not enlarged.
    """
    side_length = max(MIN_SIDE, min(side, (height * width) ** 0.5))
    root = min(MAX_ASPECT_RATIO, max(1 / MAX_ASPECT_RATIO, height / width)) ** 0.5
    return round(side_length * root), round(side_length / root)


def _preview(pixels: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    height, width = (min(side, PREVIEW_SIDE) for side in size)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def _to_tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    image: Tensor = to_dtype(to_image(pixels), torch.float32, scale=True)
    return image.as_subclass(Tensor)
