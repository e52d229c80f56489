"""Metrics and files of recorded predictions, compared with the masks at the size of the images in the data set.

Models that run at different sizes are measured on the same ground truth: anomaly maps and predicted masks are resized
to the size of the mask. Memory holds one image at a time and the scores of defect pixels.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.ndimage import label as label_regions
from torch.nn.functional import interpolate
from torchmetrics.functional.classification import binary_accuracy, binary_f1_score, binary_precision, binary_recall

from anomalib_defect_plugins.benchmark.recorder import ImagePrediction, Mask, Plane, Recorder
from anomalib_defect_plugins.core.image_io import Size, read_size
from anomalib_defect_plugins.metrics.ranking import rank
from anomalib_defect_plugins.metrics.segmentation import DefectIoU, MeanIoU, PixelAccuracy, PixelCounts
from anomalib_defect_plugins.results.image_table import ImageRow, write_image_table
from anomalib_defect_plugins.results.kept_images import MAPS, MASKS, PRED_MASKS

FPR_LIMIT = 0.3
"""AUPRO is the area up to this false positive rate, as in anomalib."""

NEIGHBOURS = np.ones((3, 3))
"""Pixels that touch at a corner belong to one region, as in anomalib."""

IMAGE_METRICS = {
    "F1Score": binary_f1_score,
    "Precision": binary_precision,
    "Recall": binary_recall,
    "Accuracy": binary_accuracy,
}
MASK_METRICS = {"IoU": DefectIoU(), "MeanIoU": MeanIoU(), "Accuracy": PixelAccuracy()}

RANKINGS = ("AUROC", "AUPR", "AUPRO")
"""Logged metrics that torchmetrics returns as 0 where there are no defects, or no normal images."""

GROUND_TRUTH = "ground_truth.bin"
"""Scratch file."""


@dataclass(frozen=True)
class GroundTruth:
    """Mask of a test image with a defect that is marked, in the scratch file, or of a normal one.

    Args:
        size: Height and width.
        offset: Position in the scratch file, in bytes; ``None`` for a normal image, which is not in it.
    """

    size: Size
    offset: int | None


class Evaluation:
    """Metrics and files of recorded predictions.

    Args:
        recorder: Recorder of the test.
        read_mask: Function of an image path that returns the mask that the predictions are compared with, shape (H, W);
            ``None`` if it is not known. Maps and predicted masks of another size are resized to it, bilinear.

    Attributes:
        predictions: Predictions in the order of the images.
        map_range: Lowest and highest value of all maps; ``None`` without maps.
    """

    def __init__(self, recorder: Recorder, read_mask: Callable[[str], Mask | None]) -> None:
        self.predictions = recorder.predictions
        self._recorder = recorder
        self.map_range: tuple[float, float] | None = None
        self._counts = PixelCounts()
        with_map = [image for image in self.predictions if image.shape[0]]
        ranges = [(float(image_map.min()), float(image_map.max())) for image_map in map(recorder.read_map, with_map)]
        if ranges:
            self.map_range = min(low for low, _ in ranges), max(high for _, high in ranges)
        self._truths: dict[ImagePrediction, GroundTruth] = {}
        for image in with_map:
            mask = read_mask(image.path)
            # Pixel metrics exclude a defective image without a mask.
            if mask is not None and (mask.any() or not image.label):
                self._truths[image] = self._compare(image, mask)

    def _compare(self, image: ImagePrediction, mask: Mask) -> GroundTruth:
        """Count the pixels of the predicted mask, and write the mask to the scratch folder."""
        if image.has_pred_mask:
            pred_mask = _resize(self._recorder.read_pred_mask(image).astype(np.float32), mask.shape) > 0.5
            self._counts.update(torch.from_numpy(pred_mask)[None], torch.from_numpy(mask)[None])
        offset = self._write_mask(mask) if mask.any() else None
        return GroundTruth((mask.shape[0], mask.shape[1]), offset)

    def _write_mask(self, mask: Mask) -> int:
        """Append a mask to the scratch file, and return its position."""
        with (self._recorder.folder / GROUND_TRUTH).open("ab") as file:
            offset = file.tell()
            file.write(np.packbits(mask).tobytes())
        return offset

    def _read_mask(self, truth: GroundTruth) -> Mask:
        if truth.offset is None:
            return np.zeros(truth.size, np.bool_)
        pixels = truth.size[0] * truth.size[1]
        path = self._recorder.folder / GROUND_TRUTH
        bits = np.fromfile(path, np.uint8, (pixels + 7) // 8, offset=truth.offset)
        return np.unpackbits(bits, count=pixels).reshape(truth.size).astype(np.bool_)

    def _planes(self, images: Sequence[ImagePrediction]) -> Iterator[tuple[Plane, Mask]]:
        """Read maps and masks, both at the size of the mask."""
        for image in images:
            mask = self._read_mask(self._truths[image])
            yield _resize(self._recorder.read_map(image), mask.shape), mask

    def metrics(self, logged: Mapping[str, float] | None = None) -> dict[str, float]:
        """Compute the metrics; those that the images do not define, such as AUROC without normal ones, are left out.

        Args:
            logged: Metrics that the model has logged, which those of raw scores replace. Without a threshold, those of
                labels and masks are left out.
        """
        names = {"image": [*IMAGE_METRICS], "pixel": ["F1Score", *MASK_METRICS]}
        meaningless = {f"{kind}_{name}" for kind in self._recorder.without_threshold for name in names[kind]}
        labels = {image.label for image in self.predictions}
        if True not in labels:
            meaningless |= {f"{kind}_{name}" for kind in names for name in (*names[kind], *RANKINGS)}
        elif False not in labels:
            meaningless |= {f"image_{name}" for name in RANKINGS}
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
        images = list(self._truths)
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
        counts = self._counts.counts.double()
        if not counts[1].sum():
            return {}
        metrics = {f"pixel_{name}": float(metric.score(counts)) for name, metric in MASK_METRICS.items()}
        (_, false_positive), (false_negative, true_positive) = counts.tolist()
        f1_score = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
        return {**metrics, "pixel_F1Score": f1_score}

    def write(self, folder: Path, types: dict[str, str], maps: bool) -> None:
        """Write the table of images, and maps, predicted masks and masks.

        Args:
            folder: Folder of the run.
            types: Types of defects by image path.
            maps: Whether to write maps, predicted masks and masks.
        """
        names = {index: f"{index:05}.png" for index, image in enumerate(self.predictions) if maps and image.shape[0]}
        rows = (_row(image, types, names.get(index, "")) for index, image in enumerate(self.predictions))
        write_image_table(folder, rows)
        for index, name in names.items():
            self._write_images(folder, name, self.predictions[index])

    def _write_images(self, folder: Path, name: str, image: ImagePrediction) -> None:
        low, high = cast("tuple[float, float]", self.map_range)
        image_map, truth = self._recorder.read_map(image), self._truths.get(image)
        scaled = (image_map - low) / (high - low) if high > low else np.zeros_like(image_map)
        _save(folder / MAPS / name, scaled)
        if image.has_pred_mask:
            _save(folder / PRED_MASKS / name, self._recorder.read_pred_mask(image))
        if truth is not None and truth.offset is not None:
            _save(folder / MASKS / name, self._read_mask(truth))


def _resize(plane: Plane, size: tuple[int, ...]) -> Plane:
    """Resize a plane, bilinear, with antialiasing where it is reduced."""
    if plane.shape == size:
        return plane
    resized: Plane = interpolate(torch.from_numpy(plane)[None, None], size, mode="bilinear", antialias=True)[
        0, 0
    ].numpy()
    return resized


def _row(image: ImagePrediction, types: dict[str, str], name: str) -> ImageRow:
    size = read_size(image.path)
    pred_label = "" if image.pred_label is None else int(image.pred_label)
    return ImageRow(image.path, int(image.label), types.get(image.path, ""), image.score, pred_label, *size, name)


def _save(path: Path, plane: npt.NDArray[Any]) -> None:
    """Write a plane of values in [0, 1] as an 8-bit grey image."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.round(plane * 255.0).astype(np.uint8)).save(path)
