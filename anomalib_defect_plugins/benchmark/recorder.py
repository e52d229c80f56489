"""Recording of one pass over the test images: scores, labels, anomaly maps and predicted masks by image.

Maps and masks are written to the disk batch by batch, at the size of the model.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size

MAPS, PRED_MASKS = "maps.bin", "pred_masks.bin"
"""Scratch files."""

Plane = npt.NDArray[np.float32]
"""Values of an image, shape (H, W)."""

Mask = npt.NDArray[np.bool_]
"""Marked pixels of an image, shape (H, W)."""


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction for a test image.

    Args:
        path: Image file.
        label: Whether the image is defective.
        score: Score before the post-processor.
        pred_label: Whether the model calls the image defective; ``None`` if it predicts no labels, or without a
            threshold.
        offset: Position of map and predicted mask in the scratch files, in pixels.
        shape: Height and width of the map; (0, 0) without a map.
        has_pred_mask: Whether there is a predicted mask; not without a threshold.
    """

    path: str
    label: bool
    score: float
    pred_label: bool | None
    offset: int
    shape: Size
    has_pred_mask: bool


class Recorder(Callback):
    """Records predictions for the test images: scores and maps before the post-processor, labels and masks after it.

    It must come before the callbacks of the model, as all callbacks of an engine do.

    Args:
        folder: Scratch folder for maps and masks.

    Attributes:
        predictions: Predictions in the order of the images.
        image_size: Height and width of the images that the model received.
        without_threshold: ``image`` and ``pixel`` if the post-processor has no threshold for them. anomalib's labels
            raw scores above 0.5 then, which means nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.predictions: list[ImagePrediction] = []
        self.image_size: Size | None = None
        self.without_threshold: set[str] = set()
        self._pending: tuple[Any, Tensor, Tensor | None] | None = None
        self._pixels = 0

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Record the previous batch, which the callbacks of the model have processed by now."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        self._record_pending()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep scores and maps, which the post-processor is about to scale."""
        del trainer, batch_idx, dataloader_idx
        self.without_threshold = _without_threshold(getattr(pl_module, "post_processor", None))
        height, width = batch.image.shape[-2:]
        self.image_size = (height, width)
        maps, scores = outputs.anomaly_map, outputs.pred_score
        self._pending = outputs, maps.flatten(1).amax(1) if scores is None else scores, maps

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the last batch."""
        del trainer, pl_module
        self._record_pending()

    def _record_pending(self) -> None:
        if self._pending is None:
            return
        (batch, scores, maps), self._pending = self._pending, None
        first_scores = scores.reshape(len(batch.image_path), -1)[:, 0].tolist()
        for index, (path, score) in enumerate(zip(batch.image_path, first_scores, strict=True)):
            self._record(batch, index, path, score, _plane(maps, index))

    def _record(self, batch: Any, index: int, path: str, score: float, image_map: Plane | None) -> None:
        _check_finite(path, score, image_map)
        has_label = batch.pred_label is not None and "image" not in self.without_threshold
        pred_label = bool(batch.pred_label.flatten()[index]) if has_label else None
        pred_mask = None if "pixel" in self.without_threshold else _plane(batch.pred_mask, index)
        label, shape = bool(batch.gt_label[index]), (0, 0) if image_map is None else _shape(image_map)
        has_pred_mask = image_map is not None and pred_mask is not None
        self.predictions.append(ImagePrediction(path, label, score, pred_label, self._pixels, shape, has_pred_mask))
        if image_map is not None:
            pred_mask = np.zeros_like(image_map) if pred_mask is None else pred_mask
            self._write(MAPS, image_map)
            self._write(PRED_MASKS, pred_mask > 0)
            self._pixels += image_map.size

    def _write(self, name: str, values: npt.NDArray[Any]) -> None:
        with (self.folder / name).open("ab") as file:
            file.write(values.tobytes())

    def read_map(self, image: ImagePrediction) -> Plane:
        """Read an anomaly map, shape (H, W) of the model."""
        return self._read(MAPS, image, np.float32)

    def read_pred_mask(self, image: ImagePrediction) -> Mask:
        """Read a predicted mask, shape (H, W) of the model."""
        return self._read(PRED_MASKS, image, np.bool_)

    def _read(self, name: str, image: ImagePrediction, kind: type[np.generic]) -> npt.NDArray[Any]:
        count, offset = image.shape[0] * image.shape[1], image.offset * np.dtype(kind).itemsize
        return np.fromfile(self.folder / name, kind, count, offset=offset).reshape(image.shape)


def read_thresholds(post_processor: nn.Module | None) -> dict[str, float | None]:
    """Return the thresholds of images and pixels, in units of scores and maps; ``None`` if not set."""
    values = {name: getattr(post_processor, f"{name}_threshold", None) for name in ("image", "pixel")}
    return {
        name: float(value) if value is not None and math.isfinite(value) else None for name, value in values.items()
    }


def _without_threshold(post_processor: nn.Module | None) -> set[str]:
    """Return the kinds of thresholds that a post-processor of anomalib lacks."""
    if not isinstance(post_processor, PostProcessor):
        return set()
    return {kind for kind, threshold in read_thresholds(post_processor).items() if threshold is None}


def _plane(planes: Tensor | None, index: int) -> Plane | None:
    """Select an item of (B, H, W) or (B, 1, H, W), as (H, W)."""
    if planes is None:
        return None
    plane: Plane = planes[index].detach().float().cpu().reshape(planes.shape[-2:]).numpy()
    return plane


def _shape(plane: Plane) -> Size:
    height, width = plane.shape
    return height, width


def _check_finite(path: str, score: float, image_map: Plane | None) -> None:
    if not math.isfinite(score) or not (image_map is None or np.isfinite(image_map).all()):
        msg = f"score or anomaly map of {path} is not finite; train with other settings, such as a lower learning rate"
        raise InvalidInputError(msg)
