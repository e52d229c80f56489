"""Latency and throughput of models in PyTorch and OpenVINO."""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import torch
from anomalib.models.components import AnomalibModule

from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.inference.openvino import compile_full_precision

BATCH_SIZES = (1, 8)
"""Batch sizes that are measured."""

WARM_UP_CALLS = 3
"""Calls that are not timed: the first ones allocate memory and choose kernels."""

MIN_CALLS, MAX_CALLS = 5, 300
"""Bounds of the number of timed calls."""

TIMING_FIELDS = ("median_ms", "p95_ms", "p99_ms", "images_per_second", "repeats")
"""Measured fields of an entry: milliseconds per call (one batch), images per second, and number of timed calls."""

LatencyEntry = dict[str, Any]
"""Fields of a ``LatencyRow``: engine, precision, device, batch, ``TIMING_FIELDS``, and the reason if these are null."""


def torch_rows(model: AnomalibModule, image_size: Size, seconds: float) -> Iterator[LatencyEntry]:
    """Measure a model in PyTorch on its device, pre- and post-processing included.

    Args:
        model: Model in evaluation mode.
        image_size: Height and width of the images.
        seconds: Maximum time per measurement, exceeded only for ``MIN_CALLS``.

    Yields:
        An entry for each batch size.
    """
    for batch in BATCH_SIZES:
        setting = {"engine": "torch", "precision": "FP32", "device": model.device.type.upper(), "batch": batch}
        yield setting | _measure_or_reason(partial(_time_torch, model, image_size, batch, seconds))


def openvino_rows(network: openvino.Model, precision: str, image_size: Size, seconds: float) -> Iterator[LatencyEntry]:
    """Measure an exported graph on all cores of the CPU: latency with one request, throughput with several.

    Args:
        network: The graph.
        precision: Precision of its weights.
        image_size: Height and width of the images.
        seconds: Maximum time per measurement, exceeded only for ``MIN_CALLS``.

    Yields:
        An entry for each batch size; null with a reason if the graph does not take it. A graph that takes only another
        batch size, such as an exported PatchCore, has an entry for that too.
    """

    def entry(batch: int) -> LatencyEntry:
        times = _measure_or_reason(partial(_time_openvino, network, (batch, 3, *image_size), seconds))
        return openvino_row(precision, batch) | times

    entries = [entry(batch) for batch in BATCH_SIZES]
    yield from entries
    own_batch = network.inputs[0].partial_shape[0]
    if own_batch.is_static and own_batch.get_length() not in BATCH_SIZES and all(item["reason"] for item in entries):
        yield entry(own_batch.get_length())


def openvino_row(precision: str, batch: int, reason: str | None = None) -> LatencyEntry:
    """Return an entry without times."""
    setting = {"engine": "openvino", "precision": precision, "device": "CPU", "batch": batch}
    return setting | dict.fromkeys(TIMING_FIELDS) | {"reason": reason}


def time_calls(call: Callable[[], object], batch: int, seconds: float) -> LatencyEntry:
    """Time repeated calls.

    Args:
        call: Function to time, which returns when its work is done.
        batch: Images per call.
        seconds: Maximum time of all calls without the warm-up, exceeded only for ``MIN_CALLS``.

    Returns:
        ``TIMING_FIELDS``.
    """
    times: list[float] = []
    for repeat in range(-WARM_UP_CALLS, MAX_CALLS):
        start = time.perf_counter()
        call()
        if repeat >= 0:
            times.append(time.perf_counter() - start)
        if len(times) >= MIN_CALLS and sum(times) > seconds:
            break
    median, p95, p99 = (1e3 * float(value) for value in np.percentile(times, (50, 95, 99)))
    rate = batch * len(times) / sum(times)
    return dict(zip(TIMING_FIELDS, (median, p95, p99, rate, len(times)), strict=True))


def last_line(error: Exception) -> str:
    """Return the last line of a message, where OpenVINO and torch put the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _measure_or_reason(measure: Callable[[], LatencyEntry]) -> LatencyEntry:
    try:
        return measure() | {"reason": None}
    except Exception as error:  # noqa: BLE001 - a size that a model does not take must not end the run
        return dict.fromkeys(TIMING_FIELDS) | {"reason": last_line(error)}


def _time_torch(model: AnomalibModule, image_size: Size, batch: int, seconds: float) -> LatencyEntry:
    images = torch.rand(batch, 3, *image_size, generator=torch.Generator().manual_seed(0)).to(model.device)

    def call() -> None:
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    with torch.inference_mode():
        return time_calls(call, batch, seconds)


def _time_openvino(network: openvino.Model, shape: tuple[int, ...], seconds: float) -> LatencyEntry:
    network = network.clone()
    network.reshape({0: list(shape)})
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    request = compile_full_precision(network, "LATENCY").create_infer_request()
    times = time_calls(lambda: request.infer({0: images}, share_inputs=True), shape[0], seconds)
    graph = compile_full_precision(network, "THROUGHPUT")
    return times | {"images_per_second": _throughput(graph, images, seconds)}


def _throughput(graph: openvino.CompiledModel, images: npt.NDArray[np.float32], seconds: float) -> float:
    """Measure images per second with the number of parallel requests that OpenVINO recommends."""
    queue = openvino.AsyncInferQueue(graph)
    for _ in range(WARM_UP_CALLS * len(queue)):
        queue.start_async({0: images}, share_inputs=True)
    queue.wait_all()
    start = time.perf_counter()
    for count in itertools.count(1):
        queue.start_async({0: images}, share_inputs=True)
        is_over = time.perf_counter() - start > seconds or count >= MAX_CALLS * len(queue)
        if count >= MIN_CALLS * len(queue) and is_over:
            break
    queue.wait_all()
    return count * len(images) / (time.perf_counter() - start)
