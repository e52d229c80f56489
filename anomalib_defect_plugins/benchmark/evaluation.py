"""What one pass over the test images tells: rows, maps and masks of the images, and figures from all of them.

Maps and masks go to the disk as they come, so that memory holds the scores of defect pixels alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from anomalib.data import Batch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from scipy.ndimage import label as find_regions
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_f1_score, binary_precision, binary_recall

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.metrics.ranking import rank
from anomalib_defect_plugins.metrics.segmentation import DefectIoU, MeanIoU, PixelAccuracy, PixelCounts
from anomalib_defect_plugins.results.image_table import ImageRow, write_image_table

FPR_LIMIT = 0.3
"""AUPRO is the area up to this false positive rate, as in anomalib."""

MAPS, MASKS = "maps", "masks"

NEIGHBOURS = np.ones((3, 3))
"""Pixels that touch at a corner are of one region, as in anomalib."""


@dataclass(frozen=True)
class Seen:
    """What is known of a test image.

    Args:
        path: Its file.
        label: Whether it is defective.
        score: Its score, as the model gives it.
        verdict: Whether the model calls it defective; ``None`` of a model that does not.
        start: Where its map and mask begin in the files that they are kept in, in pixels.
        shape: Height and width of its map; (0, 0) if there is none.
        marked: Whether map and mask say something together: not of a defective image without a mask.
    """

    path: str
    label: bool
    score: float
    verdict: bool | None
    start: int
    shape: tuple[int, int]
    marked: bool


class Recorder(Callback):
    """Takes down what a model says of the test images, before and after its post-processor.

    It must come before the callbacks of the model, as all callbacks of an engine do.

    Args:
        folder: Folder for maps and masks in progress.

    Attributes:
        seen: The images, in order.
        image_size: Height and width that images are given to the model with.
        counts: Counts of pixels by mask and verdict.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[Seen] = []
        self.image_size: tuple[int, int] | None = None
        self.counts = PixelCounts()
        self._waiting: tuple[Batch, Tensor, Tensor | None] | None = None
        self._pixels = 0

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take down the former batch, which the model's own callbacks are through with by now."""
        del trainer, pl_module, batch_idx, dataloader_idx
        self._take_down()
        self.image_size = tuple(batch.image.shape[-2:])

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Batch,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep scores and maps, for the post-processor will put scaled ones in their place."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        maps, scores = outputs.anomaly_map, outputs.pred_score
        self._waiting = outputs, maps.flatten(1).amax(1) if scores is None else scores, maps

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down the last batch."""
        del trainer, pl_module
        self._take_down()

    def _take_down(self) -> None:
        if self._waiting is None:
            return
        (batch, scores, maps), self._waiting = self._waiting, None
        scores = scores.reshape(len(batch.image_path), -1)[:, 0].tolist()
        for index, (path, score) in enumerate(zip(batch.image_path, scores, strict=True)):
            image_map, mask, verdict = (_plane(it, index) for it in (maps, batch.gt_mask, batch.pred_mask))
            _check_finite(path, score, image_map)
            label = bool(batch.gt_label[index])
            called = None if batch.pred_label is None else bool(batch.pred_label.flatten()[index])
            marked = image_map is not None and mask is not None and (not label or bool(mask.any()))
            shape = (0, 0) if image_map is None else image_map.shape
            self.seen.append(Seen(path, label, score, called, self._pixels, shape, marked))
            self._keep(image_map, mask)
            if marked and verdict is not None:
                self.counts.update(torch.from_numpy(verdict > 0)[None], torch.from_numpy(mask > 0)[None])

    def _keep(self, image_map: np.ndarray | None, mask: np.ndarray | None) -> None:
        if image_map is None:
            return
        mask = np.zeros(image_map.shape) if mask is None else mask
        for name, values in ((MAPS, image_map.astype(np.float32)), (MASKS, mask > 0)):
            with (self.folder / name).open("ab") as file:
                file.write(values.tobytes())
        self._pixels += image_map.size


class Evaluation:
    """Everything that a run says of the test images.

    Args:
        recorder: What took it down.

    Attributes:
        seen: The images, in order.
        map_range: Lowest and highest value of all maps; ``None`` if there are none.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.seen = recorder.seen
        self._recorder = recorder
        ranges = [(float(it.min()), float(it.max())) for it, _ in self._planes([s for s in self.seen if s.shape[0]])]
        self.map_range = [min(low for low, _ in ranges), max(high for _, high in ranges)] if ranges else None

    def _planes(self, images: list[Seen]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give maps (H, W), float32, and masks (H, W), bool, from the disk."""
        for image in images:
            size = image.shape[0] * image.shape[1]
            planes = [
                np.fromfile(self._recorder.folder / name, kind, size, offset=image.start * np.dtype(kind).itemsize)
                for name, kind in ((MAPS, np.float32), (MASKS, np.bool_))
            ]
            yield tuple(plane.reshape(image.shape) for plane in planes)

    def figures(self) -> dict[str, float]:
        """Give the figures; those that these images cannot have, such as an AUROC without normal ones, are left out."""
        found = {**self._image_figures(), **self._curve_figures(), **self._mask_figures()}
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    def _image_figures(self) -> dict[str, float]:
        labels = np.array([image.label for image in self.seen], bool)
        scores = np.array([image.score for image in self.seen])
        ranking = rank(scores[labels], [scores[~labels]])
        found = {} if ranking is None else {"image_AUROC": ranking.auroc}
        if labels.any() and all(image.verdict is not None for image in self.seen):
            pair = torch.tensor([image.verdict for image in self.seen]).int(), torch.from_numpy(labels).int()
            for name, metric in _AT_THRESHOLD.items():
                found[f"image_{name}"] = float(metric(*pair))
        return found

    def _curve_figures(self) -> dict[str, float]:
        marked = [image for image in self.seen if image.marked]
        values, weights = [], []
        regions = 0
        for image_map, mask in self._planes([image for image in marked if image.label]):
            places, count = find_regions(mask, NEIGHBOURS)
            values.append(image_map[mask])
            weights.append(1 / np.bincount(places.ravel())[places[mask]])
            regions += count
        if not values:
            return {}
        normal = (image_map[~mask] for image_map, mask in self._planes(marked))
        ranking = rank(np.concatenate(values), normal, np.concatenate(weights) / regions)
        if ranking is None:
            return {}
        return {
            "pixel_AUROC": ranking.auroc,
            "pixel_AUPRO": ranking.weighted_area(FPR_LIMIT),
            "pixel_AP": ranking.average_precision,
        }

    def _mask_figures(self) -> dict[str, float]:
        """Give what compares masks; not where no image shows a defect, of which all would be perfect or nothing."""
        counts = self._recorder.counts.counts.double()
        if not counts[1].sum():
            return {}
        found = {f"pixel_{name}": float(metric.score(counts)) for name, metric in _OF_MASKS.items()}
        (_, wrong), (missed, right) = counts.tolist()
        return {**found, "pixel_F1Score": 2 * right / (2 * right + wrong + missed)}

    def write(self, folder: Path, types: dict[str, str], maps: bool) -> None:
        """Write the table of images, and maps and masks.

        Args:
            folder: Where to.
            types: Types of defects by image.
            maps: Whether maps and masks are written.
        """
        names = {n: f"{n:05}.png" for n, image in enumerate(self.seen) if maps and image.shape[0]}
        write_image_table(folder, (_row(image, types, names.get(n, "")) for n, image in enumerate(self.seen)))
        for n, name in names.items():
            self._write_pictures(folder, name, self.seen[n])

    def _write_pictures(self, folder: Path, name: str, image: Seen) -> None:
        low, high = self.map_range
        image_map, mask = next(self._planes([image]))
        scaled = (image_map - low) / (high - low) if high > low else np.zeros_like(image_map)
        _save(folder / MAPS / name, scaled)
        if mask.any():
            _save(folder / MASKS / name, mask)


_AT_THRESHOLD = {"F1Score": binary_f1_score, "Precision": binary_precision, "Recall": binary_recall}
_OF_MASKS = {"IoU": DefectIoU(), "MeanIoU": MeanIoU(), "Accuracy": PixelAccuracy()}


def thresholds(post_processor: nn.Module | None) -> dict[str, float | None]:
    """Give the thresholds of images and pixels, in units of scores and maps; ``None`` where there is none."""
    values = {name: getattr(post_processor, f"{name}_threshold", None) for name in ("image", "pixel")}
    return {name: float(it) if it is not None and math.isfinite(it) else None for name, it in values.items()}


def _plane(planes: Tensor | None, index: int) -> np.ndarray | None:
    """Give one of (B, H, W) or (B, 1, H, W), as (H, W)."""
    return None if planes is None else planes[index].detach().float().cpu().reshape(planes.shape[-2:]).numpy()


def _check_finite(path: str, score: float, image_map: np.ndarray | None) -> None:
    if not math.isfinite(score) or not (image_map is None or np.isfinite(image_map).all()):
        msg = f"score or anomaly map of {path} is not finite; train with other settings, such as a lower learning rate"
        raise InvalidInputError(msg)


def _row(image: Seen, types: dict[str, str], name: str) -> ImageRow:
    with Image.open(image.path) as file:  # reads the head of the file only
        size = file.size
    pred_label = "" if image.verdict is None else int(image.verdict)
    return ImageRow(image.path, int(image.label), types.get(image.path, ""), image.score, pred_label, *size, name)


def _save(path: Path, plane: np.ndarray) -> None:
    """Write a plane of values in [0, 1] as an 8-bit grey image."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.round(plane * 255.0).astype(np.uint8)).save(path)
