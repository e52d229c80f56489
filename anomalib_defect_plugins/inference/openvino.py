"""Inference with exported OpenVINO graphs, at full throughput and in constant memory.

Worker threads decode images, wait for a free inference request and write pictures while other images are inferred;
decoding and inference release the GIL. The number of images in flight is bounded, and results are yielded in the order
of the images.
"""

import contextlib
import itertools
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import openvino
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_arrays import ImageLike, to_pixels
from anomalib_defect_plugins.core.image_io import Size, read_bytes, read_image, to_bytes
from anomalib_defect_plugins.core.image_statistics import image_statistics
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.core.region_masks import RegionMasks
from anomalib_defect_plugins.core.value_range import uses_little_range
from anomalib_defect_plugins.inference.bundle import find_graph, read_metadata
from anomalib_defect_plugins.inference.compiled_graph import CPU
from anomalib_defect_plugins.inference.pictures import (
    MAP,
    MASK,
    OVERLAY,
    picture_path,
    write_map,
    write_mask,
    write_overlay,
)
from anomalib_defect_plugins.inference.predictor import (
    F32,
    Inspection,
    InspectSettings,
    Predictor,
    failure,
    not_finite,
    reason,
)
from anomalib_defect_plugins.inference.resumable_table import (
    LITTLE_RANGE,
    ROWS_PER_PART,
    InspectionRow,
    NumberedPath,
)
from anomalib_defect_plugins.inference.whole_image import WholeImage, WholeImageSettings

FULL_PRECISION = {"INFERENCE_PRECISION_HINT": F32}
"""OpenVINO setting for single precision; its default is bfloat16 where the processor supports it."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def compile_full_precision(network: openvino.Model, hint: str) -> openvino.CompiledModel:
    """Compile a graph for the CPU in single precision.

    Args:
        network: The graph.
        hint: OpenVINO's performance hint: ``LATENCY`` or ``THROUGHPUT``.
    """
    return openvino_core().compile_model(network, CPU, {"PERFORMANCE_HINT": hint, **FULL_PRECISION})


def read_graph(model: Path) -> openvino.Model:
    """Read the graph of a bundle, or a graph.

    Raises:
        MissingDataError: If it does not exist.
        InvalidInputError: If it cannot be read, or its metadata are damaged or those of another graph.
    """
    path = find_graph(model)
    read_metadata(model)
    try:
        return openvino_core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        msg = f"{path} cannot be read ({reason}); export the model again"
        raise InvalidInputError(msg) from error


class Inspector(Predictor):
    """A graph that inspects images, several at a time; arguments, attributes and errors as in ``Predictor``."""

    def __init__(self, network: openvino.Model, *args: Any, **kwargs: Any) -> None:
        super().__init__(network, *args, **kwargs)
        settings = self.settings
        regions = None if settings.roi_mask is None else RegionMasks(settings.roi_mask)
        self.splitting = WholeImageSettings(settings.tile, settings.overlap, settings.batch, regions, self.size)

    @classmethod
    def load(cls, model: str | Path, settings: InspectSettings | None = None, size: Size | None = None) -> "Inspector":
        """Load a bundle or a graph.

        Args:
            model: Folder that ``anomalib-defects export`` has written, or OpenVINO graph ``model.xml``.
            settings: The settings.
            size: Height and width of most images; images of other sizes take longer.

        Raises:
            MissingDataError: If it does not exist.
            InvalidInputError: If it cannot be read, or does not fit the settings.
        """
        return cls(read_graph(Path(model)), settings, size)

    def __call__(self, image: ImageLike) -> Inspection:
        """Inspect one image; see :meth:`predict`."""
        (result,) = self._predict_batch([image])
        return result

    def predict(self, images: Iterable[ImageLike]) -> Iterator[Inspection]:
        """Inspect images that need not be files, several at a time.

        Args:
            images: Images, also an endless stream of them. Each is a path; the bytes of a file; a file open in binary
                mode; an image of Pillow; an array, shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), RGB; or a tensor of
                torch, shape (H, W) or (C, H, W). Integers are scaled by all their bits, other values have to be in
                [0, 1].

        Yields:
            Result of each image, in the same order.

        Raises:
            InvalidInputError: If one is not an image, or the model fails.
        """
        waiting = iter(images)
        batches: Iterator[list[ImageLike]] = iter(lambda: list(itertools.islice(waiting, self.settings.batch)), [])
        for results in self._in_order(self._predict_batch, batches):
            yield from results

    def inspect(
        self, images: Iterable[NumberedPath], folder: Path | None = None
    ) -> Iterator[tuple[int, InspectionRow]]:
        """Inspect image files.

        Args:
            images: Row numbers and paths.
            folder: Folder of relative paths; by default the working directory.

        Yields:
            Row number and row of each image, in the same order; see ``resumable_table.schema``.
        """
        base = folder or Path()
        inspect = self._inspect_batch if self.settings.is_whole else self._inspect_divided
        for rows in self._in_order(lambda batch: inspect(batch, base), self._batches(images)):
            yield from rows.items()

    def _in_order(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Apply a function in threads, with a bounded number of items in flight."""
        futures: deque[Future[Result]] = deque()
        with pixel_limit(self.settings.max_pixels), ThreadPoolExecutor(self.workers) as pool:
            try:
                for item in items:
                    futures.append(pool.submit(function, item))
                    if len(futures) > 2 * self.workers:
                        yield futures.popleft().result()
                while futures:
                    yield futures.popleft().result()
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

    def try_images(self, images: Sequence[ImageLike]) -> list[Inspection | str]:
        """Inspect images at once, as many as a batch; return results, or reasons why there are none; see `predict`."""
        results: dict[int, Inspection | str] = {}
        loaded: dict[int, npt.NDArray[Any]] = {}
        for index, image in enumerate(images):
            pixels = _decode(image)
            if isinstance(pixels, str):
                results[index] = pixels
            else:
                loaded[index] = pixels
        sizes = {index: _height_and_width(pixels) for index, pixels in loaded.items()}
        results |= self.infer({index: self.fit(pixels) for index, pixels in loaded.items()}, sizes)
        return [results[index] for index in range(len(images))]

    def _predict_batch(self, images: Sequence[ImageLike]) -> list[Inspection]:
        found: list[Inspection] = []
        for result in self.try_images(images):
            if isinstance(result, str):
                raise InvalidInputError(result)
            found.append(result)
        return found

    def _inspect_batch(self, batch: Sequence[NumberedPath], folder: Path) -> dict[int, InspectionRow]:
        rows: dict[int, InspectionRow] = {number: {"path": _printable(path)} for number, path in batch}
        loaded: dict[int, npt.NDArray[Any]] = {}
        for number, path in batch:
            start = time.perf_counter()
            try:
                loaded[number], width, height = self._read(folder / path)
            except Exception as error:  # noqa: BLE001 - decoders raise errors of many types on a broken file
                rows[number]["error"] = reason(error)
            else:
                rows[number] |= {"width": width, "height": height, **image_statistics(loaded[number])}
                if uses_little_range(loaded[number]):
                    rows[number][LITTLE_RANGE] = True
            rows[number]["seconds"] = time.perf_counter() - start
        sizes = {number: (rows[number]["height"], rows[number]["width"]) for number in loaded}
        paths = dict(batch)
        for number, result in self.infer(loaded, sizes).items():
            if isinstance(result, str):
                rows[number]["error"] = result
                continue
            rows[number]["seconds"] += result.seconds
            rows[number] |= {"score": result.score, "pred_label": int(result.is_defective)}
            rows[number]["regions"] = None if result.regions is None else [asdict(each) for each in result.regions]
            self._write_pictures(loaded[number], result, folder / paths[number])
        return rows

    def _inspect_divided(self, batch: Sequence[NumberedPath], folder: Path) -> dict[int, InspectionRow]:
        return {number: {"path": _printable(path), **self._inspect_parts(folder / path)} for number, path in batch}

    def _inspect_parts(self, path: Path) -> InspectionRow:
        """Inspect the tiles of an image, and what is in its region of interest."""
        start = time.perf_counter()
        maps = self.settings.maps
        row: InspectionRow = {}
        try:
            map_path = maps and maps / picture_path(str(path), self.settings.root)
            image = WholeImage(path, self.splitting, self._infer_tiles, map_path)
            row |= {"width": image.width, "height": image.height}
            score, label = image.inspect(self.is_raw)
            if not math.isfinite(score):
                raise _GraphError(not_finite(score))
            row |= {"score": score, "pred_label": int(self.is_defective(score, label))}
            if image.has_little_range:
                row[LITTLE_RANGE] = True
        except Exception as error:  # noqa: BLE001 - decoders raise errors of many types on a broken file
            row["error"] = str(error) if isinstance(error, _GraphError) else reason(error)
        return {**row, "seconds": time.perf_counter() - start}

    def _infer_tiles(self, tiles: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs for tiles, shape (N, 3, H, W)."""
        batch = np.stack([to_bytes(tile) for tile in tiles]) if self.takes_bytes else tiles
        try:
            return self._run(batch, len(batch))[0]
        except RuntimeError as error:
            raise _GraphError(failure(error)) from error

    def _read(self, path: Path) -> tuple[npt.NDArray[Any], int, int]:
        """Read an image file for the graph; return also the width and height of the file."""
        return read_bytes(path, self.size) if self.takes_bytes else read_image(path, self.size)

    def _write_pictures(self, image: npt.NDArray[Any], result: Inspection, path: Path) -> None:
        settings = self.settings
        if result.anomaly_map is None or not (settings.maps or settings.pictures):
            return
        name = picture_path(str(path), settings.root)
        if settings.maps:
            write_map(result.anomaly_map, settings.maps / name, self.is_raw)
        if settings.pictures:
            write_map(result.anomaly_map, settings.pictures / MAP / name, self.is_raw)
            if result.mask is not None:
                write_mask(result.mask, settings.pictures / MASK / name)
            limits = (float(result.anomaly_map.min()), float(result.anomaly_map.max())) if self.is_raw else (0.0, 1.0)
            shown = image if self.takes_bytes else to_bytes(image)
            write_overlay(shown, result.anomaly_map, result.mask, settings.pictures / OVERLAY / name, limits)


class _GraphError(RuntimeError):
    """The graph cannot infer an image; the message is that for the user."""


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


def _decode(image: ImageLike) -> npt.NDArray[Any] | str:
    """Decode an image; return the reason if that fails."""
    try:
        return to_pixels(image)
    except Exception as error:  # noqa: BLE001 - decoders raise errors of many types on a broken file
        return str(error) if isinstance(error, InvalidInputError) else f"the image cannot be read: {reason(error)}"


def _height_and_width(pixels: npt.NDArray[Any]) -> Size:
    """Return height and width of an image of :func:`to_pixels`."""
    height, width = pixels.shape[:2] if pixels.dtype == np.uint8 else pixels.shape[1:]
    return height, width


def _printable(path: str) -> str:
    """Return a path as valid text, with undecodable bytes replaced."""
    return path.encode(errors="surrogateescape").decode(errors="replace")
