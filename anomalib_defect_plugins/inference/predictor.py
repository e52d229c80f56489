"""Predictions of an exported OpenVINO graph for images in memory: score, verdict, map, mask and regions."""

import math
import os
import re
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import openvino
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.core.image_io import Size, to_bytes, to_values
from anomalib_defect_plugins.core.openvino_core import of_batch
from anomalib_defect_plugins.core.regions import Region, find_regions, region_score, regions_of
from anomalib_defect_plugins.inference.compiled_graph import CPU, CompiledGraph, check_device
from anomalib_defect_plugins.inference.graph_checks import (
    NORMALIZED_THRESHOLD,
    RegionRule,
    check_graph,
    is_normalized,
    region_rule,
    takes_bytes,
)

F32 = "f32"

NEAR = 0.05
"""Scores that near to the threshold are computed again in single precision; a share of it if scores are raw."""

MAX_REGIONS = 100
"""Maximum regions of an image that are returned, the largest ones."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class InspectSettings:
    """What the results depend on besides the model and the images.

    Args:
        threshold: Score from which an image is defective; by default the model's own.
        batch: Batch size.
        precision: Inference precision of OpenVINO: ``f32``, or the faster ``bf16`` or ``f16``, with which scores near
            the threshold are computed again in single precision.
        maps: Folder for the anomaly maps; by default they are not kept.
        max_pixels: Maximum pixels of an image; by default those that training accepts.
        pictures: Folder for overlays, masks and maps; by default they are not kept.
        root: Folder of all images, which their pictures are named relative to; by default folders are left out.
        device: Device of OpenVINO: ``CPU``, ``GPU``, ``NPU`` or ``AUTO``.
        tile: Side of the tiles that images are split into; by default they are inspected as a whole.
        overlap: Lowest number of pixels that neighbouring tiles share.
        roi_mask: Region of interest; see ``core.region_masks``.
    """

    threshold: float | None = None
    batch: int = 1
    precision: str = F32
    maps: Path | None = None
    max_pixels: int | None = None
    pictures: Path | None = None
    root: Path | None = None
    device: str = CPU
    tile: int | None = None
    overlap: int = 0
    roi_mask: Path | None = None

    @property
    def is_whole(self) -> bool:
        """Whether images are passed to the graph as they are."""
        return self.tile is None and self.roi_mask is None


class Inspection(NamedTuple):
    """What a model finds in an image.

    Args:
        score: Score.
        is_defective: Whether the image is defective.
        anomaly_map: Anomaly map, shape (h, w), float32; ``None`` if the graph has none.
        mask: Defective pixels, shape (h, w), bool; ``None`` if there is no threshold for them.
        regions: Regions of the mask in pixels of the image, the largest first.
        seconds: Inference time.
    """

    score: float
    is_defective: bool
    anomaly_map: npt.NDArray[np.float32] | None
    mask: npt.NDArray[np.bool_] | None
    regions: list[Region] | None
    seconds: float


class Predictor:
    """A graph that inspects images.

    Args:
        network: Graph as anomalib exports it: it takes images, shape (N, 3, H, W), float in [0, 1]; or that of a
            bundle: shape (N, H, W, 3), uint8. It resizes and normalises them, and returns ``pred_score``, shape (N,);
            ``pred_label``, shape (N,), unless a threshold is set; and ``anomaly_map``, shape (N, 1, h, w), if maps are
            kept.
        settings: The settings.
        size: Height and width of most images, which are faster than others; by default that of the first one.
        threads: Number of inference threads; by default one per core.

    Attributes:
        size: Height and width that the graph takes, if fixed. Other images are resized, bilinear with antialiasing.
        is_raw: Whether the graph has no threshold, and does not normalise scores and maps.

    Raises:
        InvalidInputError: If the graph does not fit the settings, or there is no such device.
    """

    def __init__(
        self,
        network: openvino.Model,
        settings: InspectSettings | None = None,
        size: Size | None = None,
        threads: int | None = None,
    ) -> None:
        self.settings = settings = settings or InspectSettings()
        self.network = network
        self.threads = threads
        self.size = check_graph(network, settings.threshold, settings.batch, settings.maps or settings.pictures)
        check_device(settings.device)
        self.takes_bytes = takes_bytes(network)
        self.is_raw = not is_normalized(network)
        self.regions = region_rule(network) if settings.threshold is None else None
        if self.regions is not None and not settings.is_whole:
            msg = "the model has a minimum area of defects, which tiles may divide; leave --tile and --roi-mask out"
            raise InvalidInputError(msg)
        self.outputs = [name for name in self._wanted_outputs() if _has_output(network, name)]
        self.graphs: dict[tuple[tuple[int, ...] | None, str], CompiledGraph] = {}
        self.lock = threading.Lock()
        self.learns_shape = False
        common_size = self.size or size
        self.common_shape = None if common_size is None else self._shape(common_size)
        self.workers = self._graph(self.common_shape).num_requests
        # Images that are split are large, and take long to infer.
        self.workers += (threads or os.cpu_count() or 1) if settings.is_whole else 0
        self.learns_shape = common_size is None

    def fit(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert an image of :func:`to_pixels` to the type, layout and size that the graph takes."""
        is_bytes = pixels.dtype == np.uint8
        if self.size is not None and self.size != (pixels.shape[:2] if is_bytes else pixels.shape[1:]):
            planes = [pixels] if is_bytes else list(pixels)
            size = self.size[::-1]
            resized = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in planes]
            pixels = resized[0] if is_bytes else np.stack(resized)
        if self.takes_bytes:
            return pixels if is_bytes else to_bytes(pixels)
        return to_values(pixels) if is_bytes else pixels

    def _shape(self, size: Size) -> tuple[int, ...]:
        """Return the shape of a batch of images of a size."""
        return (self.settings.batch, *size, 3) if self.takes_bytes else (self.settings.batch, 3, *size)

    def infer(self, images: dict[Key, npt.NDArray[Any]], sizes: dict[Key, Size]) -> dict[Key, Inspection | str]:
        """Infer images by shape; return the results, or reasons why there are none.

        Args:
            images: Images for the graph.
            sizes: Height and width of the image that the regions refer to.
        """
        by_shape: dict[tuple[int, ...], list[Key]] = {}
        for key, image in images.items():
            by_shape.setdefault(image.shape, []).append(key)
        results: dict[Key, Inspection | str] = {}
        for keys in by_shape.values():
            try:
                outputs, seconds = self._run(self._stack([images[key] for key in keys]), len(keys))
            except RuntimeError as error:
                results |= dict.fromkeys(keys, failure(error))
                continue
            for index, key in enumerate(keys):
                results[key] = self._result(
                    {name: value[index] for name, value in outputs.items()}, sizes[key], seconds
                )
        return results

    def _run(self, batch: npt.NDArray[Any], number: int) -> tuple[dict[str, npt.NDArray[Any]], float]:
        """Infer a batch; in single precision too, if one of its scores is near the threshold."""
        outputs, seconds = self._graph(batch.shape)(batch)
        if self.settings.precision == F32 or not self._is_near(outputs["pred_score"].reshape(-1)[:number]).any():
            return outputs, seconds
        outputs, more = self._graph(batch.shape, F32)(batch)
        return outputs, seconds + more

    def _is_near(self, scores: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        threshold = self.settings.threshold
        middle = NORMALIZED_THRESHOLD if threshold is None else threshold
        return np.abs(scores - middle) <= (abs(middle) * NEAR if self.is_raw else NEAR)

    def _stack(self, images: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Stack images into a batch, padded with copies of the last one."""
        if self.settings.batch == 1:
            return np.require(images[0][None], requirements=("C", "W"))  # as OpenVINO demands
        return np.stack(images + images[-1:] * (self.settings.batch - len(images)))

    def _result(self, outputs: dict[str, npt.NDArray[Any]], size: Size, seconds: float) -> Inspection | str:
        """Return the result for one image, or the reason why there is none."""
        score = float(outputs["pred_score"].reshape(-1)[0])
        if not math.isfinite(score):
            return not_finite(score)
        label = bool(outputs["pred_label"].reshape(-1)[0]) if self.settings.threshold is None else None
        anomaly_map = mask = regions = None
        if "anomaly_map" in outputs:
            anomaly_map = outputs["anomaly_map"].reshape(outputs["anomaly_map"].shape[-2:]).astype(np.float32)
        if self.regions is not None and anomaly_map is not None:
            return self._result_by_area(anomaly_map, size, seconds)
        if anomaly_map is not None:
            mask = self._mask(outputs, anomaly_map)
        if mask is not None and anomaly_map is not None:
            regions = regions_of(mask, anomaly_map, size)[1][:MAX_REGIONS]
        return Inspection(score, self.is_defective(score, label), anomaly_map, mask, regions, seconds)

    def is_defective(self, score: float, label: bool | None) -> bool:
        """Return the verdict for a score, by the threshold of the settings or else the label of the graph."""
        threshold = self.settings.threshold
        # In single precision, so that a score of 0.7 reaches a threshold of 0.7.
        return bool(label) if threshold is None else bool(np.float32(score) >= np.float32(threshold))

    def _result_by_area(self, anomaly_map: npt.NDArray[np.float32], size: Size, seconds: float) -> Inspection | str:
        """Return the result for one image whose defects have a minimum area."""
        threshold, min_area = cast(RegionRule, self.regions)
        try:
            score = region_score(anomaly_map, size, min_area)
        except InvalidInputError as error:
            return str(error)
        mask, regions = find_regions(anomaly_map, threshold, size, min_area)
        is_defective = bool(np.float32(score) >= np.float32(threshold))
        return Inspection(score, is_defective, anomaly_map, mask, regions[:MAX_REGIONS], seconds)

    def _mask(
        self, outputs: dict[str, npt.NDArray[Any]], anomaly_map: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.bool_] | None:
        """Return the defective pixels: the graph's, or for another threshold those of the normalised map."""
        if self.settings.threshold is not None:
            return None if self.is_raw else anomaly_map >= np.float32(self.settings.threshold)
        if "pred_mask" in outputs:
            return outputs["pred_mask"].reshape(anomaly_map.shape).astype(np.bool_)
        return None

    def _graph(self, shape: tuple[int, ...] | None, precision: str | None = None) -> CompiledGraph:
        """Return the fast graph compiled for the shape of most batches, or the one for all shapes."""
        precision = precision or self.settings.precision
        with self.lock:
            if self.common_shape is None and self.learns_shape:
                self.common_shape, self.learns_shape = shape, False
            key = shape if shape == self.common_shape else None, precision
            if key not in self.graphs:
                self.graphs[key] = self._compile(*key)
            return self.graphs[key]

    def _compile(self, shape: tuple[int, ...] | None, precision: str) -> CompiledGraph:
        network = self.network
        try:
            if shape is not None:
                network = network.clone()
                network.reshape({0: list(shape)})
            else:
                network = of_batch(network, self.settings.batch)
            return CompiledGraph(network, self.settings.device, self._options(precision), self.outputs)
        except RuntimeError as error:
            if shape is not None and self.settings.batch == 1:
                self.common_shape = None
                return self._compile(None, precision)
            msg = f"the model does not take {self.settings.batch} images at once ({reason(error)}); use --batch 1"
            raise InvalidInputError(msg) from error

    def _options(self, precision: str) -> dict[str, str]:
        hint = {"INFERENCE_PRECISION_HINT": precision} if self.settings.device == CPU or precision == F32 else {}
        threads = {"INFERENCE_NUM_THREADS": str(self.threads)} if self.threads and self.settings.device == CPU else {}
        return {"PERFORMANCE_HINT": "THROUGHPUT", **hint, **threads}

    def _wanted_outputs(self) -> list[str]:
        own = ["pred_label", "pred_mask"] if self.settings.threshold is None else []
        return ["pred_score", "anomaly_map", *own]


def _has_output(network: openvino.Model, name: str) -> bool:
    return any(name in output.names for output in network.outputs)


def failure(error: RuntimeError) -> str:
    """Return what is written about an image on which the graph fails."""
    return f"the model fails: {reason(error)}"


def not_finite(score: float) -> str:
    """Return what is written about an image whose score is not a number."""
    return f"the model returns the score {score}"


def reason(error: Exception) -> str:
    """Return the cause of an error in one line, without the path, which has its own column."""
    if isinstance(error, FileNotFoundError) and not isinstance(error, UserError):
        return "the file does not exist"
    if isinstance(error, Image.DecompressionBombError):
        number = (re.findall(r"\d+", str(error)) or ["too many"])[0]
        return f"the image has {number} pixels, more than the limit; pass --max-pixels {number} to inspect it"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
