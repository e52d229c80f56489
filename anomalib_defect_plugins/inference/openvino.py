"""Looks at images with an exported model, as fast as the machine can and in constant memory.

Worker threads decode, wait for a free inference request of OpenVINO and write maps, while other images are inferred:
decoding and inference release Python's lock. The number of images in flight is bounded, and rows come in the order of
the images.

Requests of OpenVINO are used one by one instead of its ``AsyncInferQueue``, which stops working after the first error
and does not say whose it was.
"""

import itertools
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import openvino
from PIL import Image

from anomalib_defect_plugins.core.image_io import Size, read_image
from anomalib_defect_plugins.inference.resumable_table import ROWS, Item, Row, invalid

SPARE = 1
"""Inference requests beyond those that run at once, so that the processor need not wait for Python."""


@dataclass(frozen=True)
class Settings:
    """What the results depend on besides the model and the images.

    Args:
        threshold: An image is defective if its score is above it; by default as the model says.
        batch: Images that are given to the model at once.
        precision: What OpenVINO computes in, such as ``f32``; by default what it holds best on the processor.
        maps: Folder for the anomaly maps; by default they are not kept.
    """

    threshold: float | None = None
    batch: int = 1
    precision: str | None = None
    maps: Path | None = None


class Inspector:
    """A model that looks at images.

    Args:
        network: The exported graph. It takes images (N, 3, H, W), float in [0, 1], resizes and normalises them itself,
            and gives ``pred_score`` (N,) and, unless there is a threshold, ``pred_label`` (N,); for maps also
            ``anomaly_map`` (N, 1, h, w), in [0, 1].
        settings: What is wanted.
        size: Size of most images; those of other sizes take longer.
        threads: Threads that infer; by default as many as the processor has cores.

    Attributes:
        size: Size that the graph takes, if it is but one. Images of another are resized, bilinear with antialiasing.

    Raises:
        InvalidInputError: The graph is none of an anomaly model, or does not do what is wanted.
    """

    def __init__(
        self, network: openvino.Model, settings: Settings, size: Size | None = None, threads: int | None = None
    ) -> None:
        self.settings = settings
        self.network = network
        self.threads = threads
        self.size = check(network, settings)
        self.graphs: dict[tuple[int, ...] | None, _Graph] = {}
        self.lock = threading.Lock()
        common = self.size or size
        self.common = None if common is None else (settings.batch, 3, *common)
        self.workers = self._graph(self.common).requests + (threads or os.cpu_count() or 1)

    def inspect(self, items: Iterable[Item], folder: Path | None = None) -> Iterator[tuple[int, Row]]:
        """Look at images; at most a few are in memory at once.

        Args:
            items: Numbers and paths.
            folder: What paths are relative to; by default the working folder.

        Yields:
            The number and the row of each, in the same order; see ``schema`` in ``parts.py``.
        """
        futures: deque[Future[dict[int, Row]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                for chunk in self._chunks(items):
                    futures.append(pool.submit(self._look, chunk, folder or Path()))
                    if len(futures) > 2 * self.workers:
                        yield from futures.popleft().result().items()
                while futures:
                    yield from futures.popleft().result().items()
            finally:
                for future in futures:
                    future.cancel()

    def _chunks(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Cut into batches, which do not reach over parts: then a restart has the same ones."""
        for _, chunk in itertools.groupby(items, lambda item: (item[0] // ROWS, item[0] % ROWS // self.settings.batch)):
            yield list(chunk)

    def _look(self, chunk: Sequence[Item], folder: Path) -> dict[int, Row]:
        rows = {number: {"path": _printable(path)} for number, path in chunk}
        by_size: dict[tuple[int, ...], dict[int, np.ndarray]] = {}
        for number, path in chunk:
            start = time.perf_counter()
            try:
                image, width, height = read_image(folder / path, self.size)
            except Exception as error:  # noqa: BLE001 - decoders raise errors of many kinds on a broken file
                rows[number]["error"] = _reason(error)
            else:
                by_size.setdefault(image.shape, {})[number] = image
                rows[number] |= {"width": width, "height": height}
            rows[number]["seconds"] = time.perf_counter() - start
        for images in by_size.values():
            self._judge(images, rows)
        return rows

    def _judge(self, images: dict[int, np.ndarray], rows: dict[int, Row]) -> None:
        """Fill the rows of images that are equally large."""
        batch = self._batch(list(images.values()))
        graph = self._graph(batch.shape)
        try:
            outputs, seconds = graph(batch)
        except RuntimeError as error:
            for number in images:
                rows[number]["error"] = f"the model fails: {_reason(error)}"
            return
        for place, number in enumerate(images):
            rows[number]["seconds"] += seconds
            rows[number] |= self._verdict(outputs, place)
            if self.settings.maps:
                _write_map(outputs["anomaly_map"][place], self.settings.maps / f"{number:08}.png")

    def _batch(self, images: list[np.ndarray]) -> np.ndarray:
        """Make one array; a batch that is not full is filled with its last image."""
        if self.settings.batch == 1:
            return images[0][None]
        return np.stack(images + images[-1:] * (self.settings.batch - len(images)))

    def _verdict(self, outputs: dict[str, np.ndarray], place: int) -> Row:
        score = float(outputs["pred_score"].reshape(-1)[place])
        if not np.isfinite(score):
            return {"error": f"the model gives the score {score}"}
        threshold = self.settings.threshold
        verdict = outputs["pred_label"].reshape(-1)[place] if threshold is None else score > threshold
        return {"score": score, "verdict": int(verdict)}

    def _graph(self, shape: tuple[int, ...] | None) -> "_Graph":
        """Give the graph for most images, which is made for their size and therefore fast, or the one for all."""
        key = shape if shape == self.common else None
        with self.lock:
            if key not in self.graphs:
                self.graphs[key] = self._compile(key)
            return self.graphs[key]

    def _compile(self, shape: tuple[int, ...] | None) -> "_Graph":
        network = self.network
        try:
            if shape is not None:
                network = network.clone()
                network.reshape({0: list(shape)})
            return _Graph(network, self._options(), self._wanted())
        except RuntimeError as error:
            if shape is not None and self.settings.batch == 1:
                self.common = None
                return self._compile(None)
            msg = f"the model does not take {self.settings.batch} images at once ({_reason(error)}); give --batch 1"
            raise invalid(msg) from error

    def _options(self) -> dict[str, str]:
        precision = {"INFERENCE_PRECISION_HINT": self.settings.precision} if self.settings.precision else {}
        threads = {"INFERENCE_NUM_THREADS": str(self.threads)} if self.threads else {}
        return {"PERFORMANCE_HINT": "THROUGHPUT", **precision, **threads}

    def _wanted(self) -> list[str]:
        label = ["pred_label"] if self.settings.threshold is None else []
        return ["pred_score", *label, *(["anomaly_map"] if self.settings.maps else [])]


class _Graph:
    """A compiled graph with its requests."""

    def __init__(self, network: openvino.Model, options: dict[str, str], wanted: Sequence[str]) -> None:
        _initialise()
        compiled = openvino.Core().compile_model(network, "CPU", options)
        self.wanted = wanted
        self.requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + SPARE
        self.free: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(self.requests):
            self.free.put(compiled.create_infer_request())

    def __call__(self, images: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
        """Give the outputs for images (N, 3, H, W), and the seconds that they took."""
        request = self.free.get()
        try:
            start = time.perf_counter()
            request.set_input_tensor(openvino.Tensor(images, shared_memory=True))
            request.start_async()
            request.wait()
            seconds = time.perf_counter() - start
            return {name: request.get_tensor(name).data.copy() for name in self.wanted}, seconds
        finally:
            self.free.put(request)


def _initialise() -> None:
    """Make OpenVINO set up its tables of numpy's types.

    It does so at their first use, and waits for ever if two threads come to that at the same time.
    """
    _ = openvino.Tensor(np.zeros(1, np.float32), shared_memory=True).data


def check(network: openvino.Model, settings: Settings) -> Size | None:
    """Refuse a graph that does not do what is wanted.

    Returns:
        The size of images that it takes, if it is but one.

    Raises:
        InvalidInputError: It takes no images, not so many at once, or does not give what is needed.
    """
    shape = network.inputs[0].partial_shape
    is_image = shape.rank.is_static and shape.compatible(openvino.PartialShape([-1, 3, -1, -1]))
    if len(network.inputs) != 1 or not is_image:
        msg = "the model does not take images (N, 3, H, W); give the model.xml that 'anomalib export' has written"
        raise invalid(msg)
    if shape[0].is_static and shape[0].get_length() != settings.batch:
        msg = f"the model takes {shape[0]} images at once, not {settings.batch}; give --batch {shape[0]}"
        raise invalid(msg)
    _check_outputs({name for output in network.outputs for name in output.names}, settings)
    return (shape[2].get_length(), shape[3].get_length()) if shape[2].is_static and shape[3].is_static else None


def _check_outputs(names: set[str], settings: Settings) -> None:
    wanted = {"pred_score": "give"}
    if settings.threshold is None:
        wanted["pred_label"] = "give --threshold, or"
    if settings.maps:
        wanted["anomaly_map"] = "leave --maps out, or give"
    for name, advice in wanted.items():
        if name not in names:
            msg = f"the model has no output {name}; {advice} one that 'anomalib export' has written with it"
            raise invalid(msg)


def _write_map(anomaly_map: np.ndarray, path: Path) -> None:
    """Write a map, (1, h, w) or (h, w), in [0, 1], as a grey image of 8 bits."""
    grey = (np.clip(np.nan_to_num(anomaly_map), 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(grey.reshape(grey.shape[-2:])).save(path)


def _reason(error: Exception) -> str:
    """Give one line that says why, without the path, which stands beside it."""
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _printable(path: str) -> str:
    """Give a path as text; file names of other encodings have their odd bytes replaced."""
    return path.encode(errors="surrogateescape").decode(errors="replace")


FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""OpenVINO would compute in bfloat16 where the processor can; figures are to be those of the graph as written."""


def compiled(network: openvino.Model, hint: str) -> openvino.CompiledModel:
    """Compile for the processor, to compute in single precision."""
    return openvino.Core().compile_model(network, "CPU", {"PERFORMANCE_HINT": hint, **FULL_PRECISION})
