"""Inference with exported OpenVINO graphs, at full throughput and in constant memory.

Worker threads decode images, wait for a free inference request and write maps while other images are inferred; decoding
and inference release the GIL. The number of images in flight is bounded, and rows are yielded in the order of the
images.

Inference requests are used directly instead of OpenVINO's ``AsyncInferQueue``, which stops working after the first
error and does not report which image caused it.
"""

import contextlib
import itertools
import os
import re
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.core.image_io import Size, read_image
from anomalib_defect_plugins.core.image_statistics import image_statistics
from anomalib_defect_plugins.core.region_masks import RegionMasks
from anomalib_defect_plugins.core.regions import region_score
from anomalib_defect_plugins.core.value_range import uses_little_range
from anomalib_defect_plugins.inference.graph_checks import check_graph, is_normalized, region_rule
from anomalib_defect_plugins.inference.resumable_table import (
    LITTLE_RANGE,
    ROWS_PER_PART,
    InspectionRow,
    NumberedPath,
)
from anomalib_defect_plugins.inference.whole_image import WholeImage, WholeImageSettings

FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""OpenVINO setting for single precision; its default is bfloat16 where the processor supports it."""

SPARE_REQUESTS = 1
"""Inference requests beyond those that run at once, so that the processor does not wait for Python."""


def compile_full_precision(network: openvino.Model, hint: str) -> openvino.CompiledModel:
    """Compile a graph for the CPU in single precision.

    Args:
        network: The graph.
        hint: OpenVINO's performance hint: ``LATENCY`` or ``THROUGHPUT``.
    """
    return openvino.Core().compile_model(network, "CPU", {"PERFORMANCE_HINT": hint, **FULL_PRECISION})


@dataclass(frozen=True)
class InspectSettings:
    """What the results depend on besides the model and the images.

    Args:
        threshold: Score from which an image is defective; by default the model's own.
        batch: Batch size.
        precision: Inference precision of OpenVINO, such as ``f32``; by default its choice for the processor.
        maps: Folder for the anomaly maps; by default they are not kept.
        max_pixels: Maximum pixels of an image; by default those that training accepts.
        tile: Side of the tiles that images are split into; by default they are inspected as a whole.
        overlap: Lowest number of pixels that neighbouring tiles share.
        roi_mask: Region of interest; see ``core.region_masks``.
    """

    threshold: float | None = None
    batch: int = 1
    precision: str | None = None
    maps: Path | None = None
    max_pixels: int | None = None
    tile: int | None = None
    overlap: int = 0
    roi_mask: Path | None = None

    @property
    def is_whole(self) -> bool:
        """Whether images are passed to the graph as they are."""
        return self.tile is None and self.roi_mask is None


class Inspector:
    """A graph that inspects images.

    Args:
        network: Graph as anomalib exports it. It takes images, shape (N, 3, H, W), float in [0, 1], resizes and
            normalises them, and returns ``pred_score``, shape (N,); ``pred_label``, shape (N,), unless a threshold is
            set; and ``anomaly_map``, shape (N, 1, h, w), if maps are kept.
        settings: The settings.
        size: Height and width of most images; images of other sizes take longer.
        threads: Number of inference threads; by default one per core.

    Attributes:
        size: Height and width that the graph takes, if fixed. Other images are resized, bilinear with antialiasing.
        is_raw: Whether the graph has no threshold, and does not normalise scores and maps.

    Raises:
        InvalidInputError: If the graph does not fit the settings.
    """

    def __init__(
        self, network: openvino.Model, settings: InspectSettings, size: Size | None = None, threads: int | None = None
    ) -> None:
        self.settings = settings
        self.network = network
        self.threads = threads
        self.size = check_graph(network, settings.threshold, settings.batch, settings.maps)
        self.is_raw = not is_normalized(network)
        self.regions = region_rule(network) if settings.threshold is None else None
        if self.regions is not None and not settings.is_whole:
            msg = "the model has a minimum area of defects, which tiles may divide; leave --tile and --roi-mask out"
            raise InvalidInputError(msg)
        self.graphs: dict[tuple[int, ...] | None, _CompiledGraph] = {}
        self.lock = threading.Lock()
        common_size = self.size or size
        self.common_shape = None if common_size is None else (settings.batch, 3, *common_size)
        self.workers = self._graph(self.common_shape).num_requests
        # Whole images are large, and take long to infer.
        self.workers += (threads or os.cpu_count() or 1) if settings.is_whole else 0
        regions = None if settings.roi_mask is None else RegionMasks(settings.roi_mask)
        self.splitting = WholeImageSettings(settings.tile, settings.overlap, settings.batch, regions, self.size)

    def inspect(
        self, images: Iterable[NumberedPath], folder: Path | None = None
    ) -> Iterator[tuple[int, InspectionRow]]:
        """Inspect images.

        Args:
            images: Row numbers and paths.
            folder: Folder of relative paths; by default the working directory.

        Yields:
            Row number and row of each image, in the same order; see ``resumable_table.schema``.
        """
        futures: deque[Future[dict[int, InspectionRow]]] = deque()
        with pixel_limit(self.settings.max_pixels), ThreadPoolExecutor(self.workers) as pool:
            try:
                for batch in self._batches(images):
                    futures.append(pool.submit(self._inspect_batch, batch, folder or Path()))
                    if len(futures) > 2 * self.workers:
                        yield from futures.popleft().result().items()
                while futures:
                    yield from futures.popleft().result().items()
            finally:
                for future in futures:
                    future.cancel()

    def _batches(self, images: Iterable[NumberedPath]) -> Iterator[list[NumberedPath]]:
        """Split into batches that do not cross parts, so that a resumed run has the same ones."""

        def part_and_batch(image: NumberedPath) -> tuple[int, int]:
            part, row = divmod(image[0], ROWS_PER_PART)
            return part, row // self.settings.batch

        for _, batch in itertools.groupby(images, part_and_batch):
            yield list(batch)

    def _inspect_batch(self, batch: Sequence[NumberedPath], folder: Path) -> dict[int, InspectionRow]:
        rows: dict[int, InspectionRow] = {number: {"path": _printable(path)} for number, path in batch}
        if not self.settings.is_whole:
            for number, path in batch:
                rows[number] |= self._inspect_parts(number, folder / path)
            return rows
        by_shape: dict[tuple[int, ...], dict[int, npt.NDArray[np.float32]]] = {}
        for number, path in batch:
            start = time.perf_counter()
            try:
                image, width, height = read_image(folder / path, self.size)
            except Exception as error:  # noqa: BLE001 - decoders raise errors of many types on a broken file
                rows[number]["error"] = _reason(error)
            else:
                by_shape.setdefault(image.shape, {})[number] = image
                rows[number] |= {"width": width, "height": height, **image_statistics(image)}
                if uses_little_range(image):
                    rows[number][LITTLE_RANGE] = True
            rows[number]["seconds"] = time.perf_counter() - start
        for images in by_shape.values():
            self._predict(images, rows)
        return rows

    def _inspect_parts(self, number: int, path: Path) -> InspectionRow:
        """Inspect the tiles of an image, and what is in its region of interest."""
        start = time.perf_counter()
        maps = self.settings.maps
        row: InspectionRow = {}
        try:
            image = WholeImage(path, self.splitting, self._infer, maps and maps / f"{number:08}")
            row |= {"width": image.width, "height": image.height}
            score, label = image.inspect(self.is_raw)
            outputs = {"pred_score": np.array(score), "pred_label": np.array(label)}
            row |= self._prediction(outputs, 0, (image.height, image.width))
            if uses_little_range(image.first_rows):
                row[LITTLE_RANGE] = True
        except Exception as error:  # noqa: BLE001 - decoders raise errors of many types on a broken file
            row["error"] = f"the model fails: {_reason(error)}" if isinstance(error, _GraphError) else _reason(error)
        return {**row, "seconds": time.perf_counter() - start}

    def _infer(self, tiles: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        graph = self._graph(tiles.shape)
        try:
            return graph(tiles)[0]
        except RuntimeError as error:
            raise _GraphError(_reason(error)) from error

    def _predict(self, images: dict[int, npt.NDArray[np.float32]], rows: dict[int, InspectionRow]) -> None:
        """Add the predictions for images of one shape to their rows."""
        batch = self._stack(list(images.values()))
        graph = self._graph(batch.shape)
        try:
            outputs, seconds = graph(batch)
        except RuntimeError as error:
            for number in images:
                rows[number]["error"] = f"the model fails: {_reason(error)}"
            return
        for index, number in enumerate(images):
            rows[number]["seconds"] += seconds
            size = rows[number]["height"], rows[number]["width"]
            rows[number] |= self._prediction(outputs, index, size)
            if self.settings.maps:
                _write_map(outputs["anomaly_map"][index], self.settings.maps / f"{number:08}", self.is_raw)

    def _stack(self, images: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Stack images into a batch, padded with copies of the last one."""
        if self.settings.batch == 1:
            return images[0][None]
        return np.stack(images + images[-1:] * (self.settings.batch - len(images)))

    def _prediction(self, outputs: dict[str, npt.NDArray[Any]], index: int, size: Size) -> InspectionRow:
        score = float(outputs["pred_score"].reshape(-1)[index])
        if not np.isfinite(score):
            return {"error": f"the model returns the score {score}"}
        threshold = self.settings.threshold
        if self.regions is not None:
            anomaly_map = outputs["anomaly_map"][index]
            score = region_score(anomaly_map.reshape(anomaly_map.shape[-2:]), size, self.regions.min_area)
            threshold = self.regions.threshold
        # In single precision, so that a score of 0.7 reaches a threshold of 0.7.
        reached = threshold is not None and np.float32(score) >= np.float32(threshold)
        pred_label = outputs["pred_label"].reshape(-1)[index] if threshold is None else reached
        return {"score": score, "pred_label": int(pred_label)}

    def _graph(self, shape: tuple[int, ...] | None) -> "_CompiledGraph":
        """Return the fast graph compiled for the shape of most batches, or the one for all shapes."""
        key = shape if shape == self.common_shape else None
        with self.lock:
            if key not in self.graphs:
                self.graphs[key] = self._compile(key)
            return self.graphs[key]

    def _compile(self, shape: tuple[int, ...] | None) -> "_CompiledGraph":
        network = self.network
        try:
            if shape is not None:
                network = network.clone()
                network.reshape({0: list(shape)})
            return _CompiledGraph(network, self._options(), self._outputs())
        except RuntimeError as error:
            if shape is not None and self.settings.batch == 1:
                self.common_shape = None
                return self._compile(None)
            msg = f"the model does not take {self.settings.batch} images at once ({_reason(error)}); use --batch 1"
            raise InvalidInputError(msg) from error

    def _options(self) -> dict[str, str]:
        precision = {"INFERENCE_PRECISION_HINT": self.settings.precision} if self.settings.precision else {}
        threads = {"INFERENCE_NUM_THREADS": str(self.threads)} if self.threads else {}
        return {"PERFORMANCE_HINT": "THROUGHPUT", **precision, **threads}

    def _outputs(self) -> list[str]:
        label = ["pred_label"] if self.settings.threshold is None else []
        has_maps = self.settings.maps or self.regions is not None
        return ["pred_score", *label, *(["anomaly_map"] if has_maps else [])]


class _GraphError(RuntimeError):
    """The graph cannot infer an image."""


class _CompiledGraph:
    """A compiled graph and its inference requests."""

    def __init__(self, network: openvino.Model, options: dict[str, str], outputs: Sequence[str]) -> None:
        _initialise_openvino()
        compiled = openvino.Core().compile_model(network, "CPU", options)
        self.outputs = outputs
        self.num_requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + SPARE_REQUESTS
        self.free_requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(self.num_requests):
            self.free_requests.put(compiled.create_infer_request())

    def __call__(self, images: npt.NDArray[np.float32]) -> tuple[dict[str, npt.NDArray[Any]], float]:
        """Infer images, shape (N, 3, H, W); return the outputs by name, and the seconds taken."""
        request = self.free_requests.get()
        try:
            start = time.perf_counter()
            request.set_input_tensor(openvino.Tensor(images, shared_memory=True))
            request.start_async()
            request.wait()
            seconds = time.perf_counter() - start
            return {name: request.get_tensor(name).data.copy() for name in self.outputs}, seconds
        finally:
            self.free_requests.put(request)


def _initialise_openvino() -> None:
    """Fill OpenVINO's tables of NumPy types, which deadlock if two threads use them first at the same time."""
    _ = openvino.Tensor(np.zeros(1, np.float32), shared_memory=True).data


def _write_map(anomaly_map: npt.NDArray[Any], path: Path, is_raw: bool) -> None:
    """Write a map, shape (1, h, w) or (h, w), as an 8-bit grey PNG of [0, 1], or if that loses values, as a float TIFF.

    Args:
        anomaly_map: The map.
        path: Path without suffix.
        is_raw: Whether maps are not normalised.
    """
    values = anomaly_map.reshape(anomaly_map.shape[-2:]).astype(np.float32)
    if is_raw or (values < 0).any() or (values > 1).any():
        Image.fromarray(values).save(path.with_suffix(".tiff"))
    else:
        grey = (np.nan_to_num(values) * 255).round().astype(np.uint8)
        Image.fromarray(grey).save(path.with_suffix(".png"))


@contextlib.contextmanager
def pixel_limit(max_pixels: int | None) -> Iterator[None]:
    """Refuse images of more pixels; the limit of ``None`` is that of training, Pillow's."""
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        # Pillow warns of images with more than half of the pixels that it refuses.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        if max_pixels is not None:
            Image.MAX_IMAGE_PIXELS = max_pixels / 2  # type: ignore[assignment]  # odd numbers have half a pixel
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _reason(error: Exception) -> str:
    """Return the cause in one line, without the path, which has its own column."""
    if isinstance(error, FileNotFoundError) and not isinstance(error, UserError):
        return "the file does not exist"
    if isinstance(error, Image.DecompressionBombError):
        number = (re.findall(r"\d+", str(error)) or ["too many"])[0]
        return f"the image has {number} pixels, more than the limit; pass --max-pixels {number} to inspect it"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _printable(path: str) -> str:
    """Return a path as valid text, with undecodable bytes replaced."""
    return path.encode(errors="surrogateescape").decode(errors="replace")
