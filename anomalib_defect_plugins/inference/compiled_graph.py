"""A compiled OpenVINO graph and its inference requests, which several threads share.

Requests are used directly instead of OpenVINO's ``AsyncInferQueue``, which stops working after the first error and does
not report which image caused it.
"""

import time
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.openvino_core import openvino_core

SPARE_REQUESTS = 1
"""Inference requests beyond those that run at once, so that the processor does not wait for Python."""

CPU = "CPU"


class CompiledGraph:
    """A compiled graph.

    Args:
        network: The graph.
        device: Device of OpenVINO, such as ``CPU``, ``GPU``, ``NPU`` or ``AUTO``.
        options: Options of OpenVINO.
        outputs: Names of the outputs that are returned.

    Attributes:
        num_requests: Number of calls that run at once.
    """

    def __init__(
        self, network: openvino.Model, device: str, options: Mapping[str, str], outputs: Sequence[str]
    ) -> None:
        _initialise_openvino()
        compiled = openvino_core().compile_model(network, device, dict(options))
        self.outputs = outputs
        self.num_requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + SPARE_REQUESTS
        self.free_requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(self.num_requests):
            self.free_requests.put(compiled.create_infer_request())

    def __call__(self, images: npt.NDArray[Any]) -> tuple[dict[str, npt.NDArray[Any]], float]:
        """Infer a batch of images; return the outputs by name, and the seconds taken."""
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


def check_device(device: str) -> None:
    """Check that this machine has a device.

    Raises:
        InvalidInputError: If it has none of that kind, or the name is unknown.
    """
    available = openvino_core().available_devices
    kinds = {name.partition(".")[0] for name in available}
    wanted = device.partition(":")[2].split(",") if ":" in device else [device]
    missing = [name for name in wanted if name not in {"AUTO", *kinds, *available}]
    if missing:
        msg = (
            f"--device {device}: OpenVINO finds no {missing[0]} on this machine, only {', '.join(available)}; use one "
        )
        raise InvalidInputError(msg + "of these, or AUTO; a GPU or NPU needs its driver")


def _initialise_openvino() -> None:
    """Fill OpenVINO's tables of NumPy types, which deadlock if two threads use them first at the same time."""
    for kind in (np.float32, np.uint8):
        _ = openvino.Tensor(np.zeros(1, kind), shared_memory=True).data
