"""Evaluation of one pass over the test images: predictions, anomaly maps and masks by image, and metrics.

Maps and masks are written to the disk batch by batch, so that memory holds only the scores of defect pixels.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from scipy.ndimage import label as label_regions
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_f1_score, binary_precision, binary_recall

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import read_size
from anomalib_defect_plugins.metrics.ranking import rank
from anomalib_defect_plugins.metrics.segmentation import DefectIoU, MeanIoU, PixelAccuracy, PixelCounts
from anomalib_defect_plugins.results.image_table import ImageRow, write_image_table
from anomalib_defect_plugins.results.kept_images import MAPS, MASKS

FPR_LIMIT = 0.3
"""AUPRO is the area up to this false positive rate, as in anomalib."""

NEIGHBOURS = np.ones((3, 3))
"""Pixels that touch at a corner belong to one region, as in anomalib."""

IMAGE_METRICS = {"F1Score": binary_f1_score, "Precision": binary_precision, "Recall": binary_recall}
MASK_METRICS = {"IoU": DefectIoU(), "MeanIoU": MeanIoU(), "Accuracy": PixelAccuracy()}

Plane = npt.NDArray[np.float32]
"""Values of an image, shape (H, W)."""

Mask = npt.NDArray[np.bool_]
"""Defective pixels of an image, shape (H, W)."""


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction for a test image.

    Args:
        path: Image file.
        label: Whether the image is defective.
        score: Score before the post-processor.
        pred_label: Whether the model calls the image defective; ``None`` if it predicts no labels, or without a
            threshold.
        offset: Position of map and mask in the scratch files, in pixels.
        shape: Height and width of the map; (0, 0) without a map.
        has_mask: Whether pixel metrics include the image. They exclude a defective image without a mask.
    """

    path: str
    label: bool
    score: float
    pred_label: bool | None
    offset: int
    shape: tuple[int, int]
    has_mask: bool


class Recorder(Callback):
    """Records predictions for the test images: scores before the post-processor, labels and masks after it.

    It must come before the callbacks of the model, as all callbacks of an engine do.

    Args:
        folder: Scratch folder for maps and masks.

    Attributes:
        predictions: Predictions in the order of the images.
        image_size: Height and width of the images that the model received.
        counts: Counts of pixels by mask and predicted mask.
        without_threshold: ``image`` and ``pixel`` if the post-processor has no threshold for them. anomalib's labels
            raw scores above 0.5 then, which means nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.predictions: list[ImagePrediction] = []
        self.image_size: tuple[int, int] | None = None
        self.counts = PixelCounts()
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
        mask = _plane(batch.gt_mask, index)
        pred_mask = None if "pixel" in self.without_threshold else _plane(batch.pred_mask, index)
        _check_finite(path, score, image_map)
        label = bool(batch.gt_label[index])
        has_label = batch.pred_label is not None and "image" not in self.without_threshold
        pred_label = bool(batch.pred_label.flatten()[index]) if has_label else None
        has_mask = image_map is not None and mask is not None and (not label or bool(mask.any()))
        shape = (0, 0) if image_map is None else (image_map.shape[0], image_map.shape[1])
        self.predictions.append(ImagePrediction(path, label, score, pred_label, self._pixels, shape, has_mask))
        self._write(image_map, mask)
        if has_mask and mask is not None and pred_mask is not None:
            self.counts.update(torch.from_numpy(pred_mask > 0)[None], torch.from_numpy(mask > 0)[None])

    def _write(self, image_map: Plane | None, mask: Plane | None) -> None:
        if image_map is None:
            return
        mask = np.zeros_like(image_map) if mask is None else mask
        for name, values in ((MAPS, image_map.astype(np.float32)), (MASKS, mask > 0)):
            with (self.folder / name).open("ab") as file:
                file.write(values.tobytes())
        self._pixels += image_map.size


class Evaluation:
    """Metrics and files of recorded predictions.

    Args:
        recorder: Recorder of the test.

    Attributes:
        predictions: Predictions in the order of the images.
        map_range: Lowest and highest value of all maps; ``None`` without maps.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.predictions = recorder.predictions
        self._recorder = recorder
        self.map_range: tuple[float, float] | None = None
        with_map = [image for image in self.predictions if image.shape[0]]
        ranges = [(float(image_map.min()), float(image_map.max())) for image_map, _ in self._planes(with_map)]
        if ranges:
            self.map_range = min(low for low, _ in ranges), max(high for _, high in ranges)

    def _planes(self, images: Sequence[ImagePrediction]) -> Iterator[tuple[Plane, Mask]]:
        """Read maps and masks from the scratch folder."""
        for image in images:
            yield self._read(MAPS, image, np.float32), self._read(MASKS, image, np.bool_)

    def _read(self, name: str, image: ImagePrediction, kind: type[np.generic]) -> npt.NDArray[Any]:
        count, offset = image.shape[0] * image.shape[1], image.offset * np.dtype(kind).itemsize
        return np.fromfile(self._recorder.folder / name, kind, count, offset=offset).reshape(image.shape)

    def metrics(self, logged: Mapping[str, float] | None = None) -> dict[str, float]:
        """Compute the metrics; those that the images do not define, such as AUROC without normal ones, are left out.

        Args:
            logged: Metrics that the model has logged, which those of raw scores replace. Without a threshold, those of
                labels and masks are left out.
        """
        names = {"image": [*IMAGE_METRICS], "pixel": ["F1Score", *MASK_METRICS]}
        meaningless = {f"{kind}_{name}" for kind in self._recorder.without_threshold for name in names[kind]}
        metrics = {name: value for name, value in (logged or {}).items() if name not in meaningless}
        metrics |= {**self._image_metrics(), **self._curve_metrics(), **self._mask_metrics()}
        return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}

    def _image_metrics(self) -> dict[str, float]:
        labels = np.array([image.label for image in self.predictions], bool)
        scores = np.array([image.score for image in self.predictions])
        ranking = rank(scores[labels], [scores[~labels]])
        metrics = {} if ranking is None else {"image_AUROC": ranking.auroc}
        pred_labels = [image.pred_label for image in self.predictions if image.pred_label is not None]
        if labels.any() and len(pred_labels) == len(self.predictions):
            pair = torch.tensor(pred_labels).int(), torch.from_numpy(labels).int()
            metrics |= {f"image_{name}": float(metric(*pair)) for name, metric in IMAGE_METRICS.items()}
        return metrics

    def _curve_metrics(self) -> dict[str, float]:
        images = [image for image in self.predictions if image.has_mask]
        values, weights = [], []
        count = 0
        for image_map, mask in self._planes([image for image in images if image.label]):
            regions, number = label_regions(mask, NEIGHBOURS)
            values.append(image_map[mask])
            weights.append(1 / np.bincount(regions.ravel())[regions[mask]])
            count += number
        if not values:
            return {}
        normal = (image_map[~mask] for image_map, mask in self._planes(images))
        ranking = rank(np.concatenate(values), normal, np.concatenate(weights) / count)
        if ranking is None:
            return {}
        return {
            "pixel_AUROC": ranking.auroc,
            "pixel_AUPRO": ranking.weighted_area(FPR_LIMIT),
            "pixel_AP": ranking.average_precision,
        }

    def _mask_metrics(self) -> dict[str, float]:
        """Compute the metrics of predicted masks, unless no image shows a defect: all would be 0 or 1."""
        counts = self._recorder.counts.counts.double()
        if not counts[1].sum():
            return {}
        metrics = {f"pixel_{name}": float(metric.score(counts)) for name, metric in MASK_METRICS.items()}
        (_, false_positive), (false_negative, true_positive) = counts.tolist()
        f1_score = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
        return {**metrics, "pixel_F1Score": f1_score}

    def write(self, folder: Path, types: dict[str, str], maps: bool) -> None:
        """Write the table of images, and maps and masks.

        Args:
            folder: Folder of the run.
            types: Types of defects by image path.
            maps: Whether to write maps and masks.
        """
        names = {index: f"{index:05}.png" for index, image in enumerate(self.predictions) if maps and image.shape[0]}
        rows = (_row(image, types, names.get(index, "")) for index, image in enumerate(self.predictions))
        write_image_table(folder, rows)
        for index, name in names.items():
            self._write_images(folder, name, self.predictions[index])

    def _write_images(self, folder: Path, name: str, image: ImagePrediction) -> None:
        low, high = cast("tuple[float, float]", self.map_range)
        image_map, mask = next(self._planes([image]))
        scaled = (image_map - low) / (high - low) if high > low else np.zeros_like(image_map)
        _save(folder / MAPS / name, scaled)
        if mask.any():
            _save(folder / MASKS / name, mask)


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


def _check_finite(path: str, score: float, image_map: Plane | None) -> None:
    if not math.isfinite(score) or not (image_map is None or np.isfinite(image_map).all()):
        msg = f"score or anomaly map of {path} is not finite; train with other settings, such as a lower learning rate"
        raise InvalidInputError(msg)


def _row(image: ImagePrediction, types: dict[str, str], name: str) -> ImageRow:
    size = read_size(image.path)
    pred_label = "" if image.pred_label is None else int(image.pred_label)
    return ImageRow(image.path, int(image.label), types.get(image.path, ""), image.score, pred_label, *size, name)


def _save(path: Path, plane: npt.NDArray[Any]) -> None:
    """Write a plane of values in [0, 1] as an 8-bit grey image."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.round(plane * 255.0).astype(np.uint8)).save(path)
