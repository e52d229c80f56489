"""Times models: how long an answer takes, and how many images a second can be had."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openvino
import torch
from anomalib.models import AnomalibModule

from anomalib_defect_plugins.inference.openvino import compiled

BATCHES = (1, 8)
"""Images at once for which figures are taken."""

WARM_UP = 3
"""Calls that are not counted: the first ones allocate memory and choose kernels."""

LEAST, MOST = 5, 300
"""Calls that are timed: at least so many however long they take, and at most, however short."""


FIGURES = ("median_ms", "p95_ms", "p99_ms", "images_per_second", "repeats")
"""Figures of a row: milliseconds of a call (one batch), images a second, and how many calls were timed."""

Row = dict[str, Any]
"""A row of the latency table: engine, precision, device, batch, ``FIGURES``, and a reason where they are null."""

Size = tuple[int, int]
"""Height and width, in pixels."""


def torch_rows(model: AnomalibModule, image_size: Size, seconds: float) -> Iterator[Row]:
    """Time a model in PyTorch, from the image to scores and maps, where it is.

    Args:
        model: The model, in evaluation mode.
        image_size: Size of the images.
        seconds: Time for each figure, at most; more only for ``LEAST`` calls.

    Yields:
        A row for each batch size.
    """
    for batch in BATCHES:
        row = {"engine": "torch", "precision": "FP32", "device": model.device.type.upper(), "batch": batch}
        yield row | _or_reason(lambda batch=batch: _time_torch(model, image_size, batch, seconds))


def openvino_rows(network: openvino.Model, precision: str, image_size: Size, seconds: float) -> Iterator[Row]:
    """Time an exported graph on the processor, all of whose cores work: on one batch for latency, else on several.

    Args:
        network: The graph.
        precision: What its weights are written in.
        image_size: Size of the images.
        seconds: Time for each figure, at most; more only for ``LEAST`` calls.

    Yields:
        A row for each batch size; null with a reason where the graph cannot take so many images at once. If it can
        take none of these numbers, but has one of its own, as the exported PatchCore does, there is a row for that.
    """

    def row(batch: int) -> Row:
        figures = _or_reason(lambda: _time_openvino(network, (batch, 3, *image_size), seconds))
        return openvino_row(precision, batch) | figures

    rows = [row(batch) for batch in BATCHES]
    yield from rows
    own = network.inputs[0].partial_shape[0]
    if own.is_static and own.get_length() not in BATCHES and all(it["reason"] for it in rows):
        yield row(own.get_length())


def openvino_row(precision: str, batch: int, reason: str | None = None) -> Row:
    """Give a row without figures."""
    row = {"engine": "openvino", "precision": precision, "device": "CPU", "batch": batch}
    return row | dict.fromkeys(FIGURES) | {"reason": reason}


def time_calls(call: Callable[[], object], batch: int, seconds: float) -> Row:
    """Time a call again and again.

    Args:
        call: What to time; when it returns, the work is done.
        batch: Images of a call.
        seconds: Time for all, at most; more only for ``LEAST`` calls. The warm-up comes on top.

    Returns:
        ``FIGURES``.
    """
    times = []
    for repeat in range(-WARM_UP, MOST):
        start = time.perf_counter()
        call()
        if repeat >= 0:
            times.append(time.perf_counter() - start)
        if len(times) >= LEAST and sum(times) > seconds:
            break
    median, p95, p99 = (1e3 * float(value) for value in np.percentile(times, (50, 95, 99)))
    rate = batch * len(times) / sum(times)
    return dict(zip(FIGURES, (median, p95, p99, rate, len(times)), strict=True))


def in_one_line(error: Exception) -> str:
    """Give the line of a message that says most: the last one, where OpenVINO and torch put the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _or_reason(measure: Callable[[], Row]) -> Row:
    try:
        return measure() | {"reason": None}
    except Exception as error:  # noqa: BLE001 - a size that a model cannot take is a row of the table, not an end
        return dict.fromkeys(FIGURES) | {"reason": in_one_line(error)}


def _time_torch(model: AnomalibModule, image_size: Size, batch: int, seconds: float) -> Row:
    images = torch.rand(batch, 3, *image_size, generator=torch.Generator().manual_seed(0)).to(model.device)

    def call() -> None:
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)

    with torch.inference_mode():
        return time_calls(call, batch, seconds)


def _time_openvino(network: openvino.Model, shape: tuple[int, ...], seconds: float) -> Row:
    network = network.clone()
    network.reshape({0: list(shape)})
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    request = compiled(network, "LATENCY").create_infer_request()
    figures = time_calls(lambda: request.infer({0: images}, share_inputs=True), shape[0], seconds)
    return figures | {"images_per_second": _throughput(compiled(network, "THROUGHPUT"), images, seconds)}


def _throughput(graph: openvino.CompiledModel, images: np.ndarray, seconds: float) -> float:
    """Images a second with as many requests at once as OpenVINO advises."""
    queue = openvino.AsyncInferQueue(graph)
    for _ in range(WARM_UP * len(queue)):
        queue.start_async({0: images}, share_inputs=True)
    queue.wait_all()
    start = time.perf_counter()
    for count in itertools.count(1):
        queue.start_async({0: images}, share_inputs=True)
        if count >= LEAST * len(queue) and (time.perf_counter() - start > seconds or count >= MOST * len(queue)):
            break
    queue.wait_all()
    return count * len(images) / (time.perf_counter() - start)
