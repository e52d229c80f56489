"""What a trained model costs: its size, arithmetic, speed in PyTorch and OpenVINO, and what exporting changes."""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openvino
import torch
from anomalib.models import AnomalibModule
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anomalib_defect_plugins.benchmark.latency import (
    BATCHES,
    Size,
    in_one_line,
    openvino_row,
    openvino_rows,
    torch_rows,
)
from anomalib_defect_plugins.inference.openvino import compiled

OUTPUTS = ("pred_score", "anomaly_map")
"""Outputs in which an exported graph is compared with PyTorch."""


class Measure(Protocol):
    """What is to be measured, as the configuration of a benchmark says it.

    Attributes:
        latency: Whether latency and throughput are.
        precisions: In which precisions the model is exported to OpenVINO: some of FP32, FP16 and INT8.
        seconds: Time for each figure of latency or throughput, at most; more only for a few calls.
    """

    latency: bool
    precisions: Sequence[str]
    seconds: float


def profile(model: AnomalibModule, image_size: Size, folder: Path, images: Tensor, measure: Measure) -> dict[str, Any]:
    """Measure a model, and export it.

    Args:
        model: The trained model; it is measured where it is.
        image_size: Size of the images for size-dependent figures.
        folder: Where the graphs go, as ``openvino/PRECISION/model.xml``.
        images: (N, 3, H, W), float in [0, 1], as ``model`` takes them: what exported graphs are compared on, and what
            8-bit ones are calibrated with.
        measure: What to measure.

    Returns:
        ``cost``: ``parameters`` and ``buffers`` (numbers, since the Gaussians and memories of some models are not
        trained), ``flops`` of one image, an addition and a multiplication being two; null if they cannot be counted.
        ``latency``: rows as ``latency.py`` makes them; those of a model that cannot be exported say why not.
        ``export_difference``: greatest difference of scores and maps to PyTorch by precision, computed in single
        precision; null if the model cannot be exported, the graph cannot be run, or something is not finite.
    """
    with _evaluating(model):
        rows = list(torch_rows(model, image_size, measure.seconds)) if measure.latency else []
        differences = {}
        with tempfile.TemporaryDirectory() as scratch:
            graphs = Graphs(model, image_size, Path(scratch), images)
            for precision in measure.precisions:
                network, reason = graphs.write(precision, folder / "openvino" / precision / "model.xml")
                differences[precision] = None if network is None else difference(model, network, images)
                if measure.latency and network is None:
                    rows += [openvino_row(precision, batch, reason) for batch in BATCHES]
                elif measure.latency:
                    rows += openvino_rows(network, precision, image_size, measure.seconds)
        return {"cost": cost(model, image_size), "latency": rows, "export_difference": differences}


def cost(model: AnomalibModule, image_size: Size) -> dict[str, int | None]:
    """Count what the network consists of, and the arithmetic of one image; see :func:`profile`."""
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    buffers = sum(buffer.numel() for buffer in model.model.buffers())
    return {"parameters": parameters, "buffers": buffers, "flops": _flops(model, image_size)}


def difference(model: AnomalibModule, network: openvino.Model, images: Tensor) -> float | None:
    """Greatest difference of scores and maps between PyTorch and an exported graph.

    Args:
        model: The model.
        network: The graph.
        images: (N, 3, H, W), float in [0, 1].

    Returns:
        The difference; nothing if it is not finite, or if OpenVINO cannot run the graph.
    """
    try:
        return _difference(model, network, images)
    except RuntimeError:  # the rows of latency say why
        return None


def _difference(model: AnomalibModule, network: openvino.Model, images: Tensor) -> float | None:
    network = network.clone()
    network.reshape({0: [1, *images.shape[1:]]})
    graph, greatest = compiled(network, "LATENCY"), 0.0
    for image in images.split(1):
        with torch.inference_mode():
            expected = model(image.to(model.device))
        outputs = {name: value for output, value in graph({0: image.numpy()}).items() for name in output.names}
        for name in OUTPUTS:
            reference = getattr(expected, name)
            if reference is not None:
                reference = reference.float().cpu().numpy()
                differing = np.abs(outputs[name].reshape(reference.shape) - reference).max()
                greatest = float(np.maximum(greatest, differing))  # a NaN stays one
    return greatest if np.isfinite(greatest) else None


class Graphs:
    """The OpenVINO graphs of a model.

    Args:
        model: The model.
        image_size: Size of the graph's images, if it cannot be exported for every size.
        folder: Folder for files in between.
        images: (N, 3, H, W), float in [0, 1]: what 8-bit graphs are calibrated with.
    """

    def __init__(self, model: AnomalibModule, image_size: Size, folder: Path, images: Tensor) -> None:
        self.images = images
        self.network, self.reason = _export(model, image_size, folder)

    def write(self, precision: str, path: Path) -> tuple[openvino.Model | None, str | None]:
        """Write the graph of a precision.

        Returns:
            The graph; or nothing, and why there is none.
        """
        if self.network is None:
            return None, self.reason
        try:
            network = _quantised(self.network, self.images) if precision == "INT8" else self.network
            path.parent.mkdir(parents=True, exist_ok=True)
            openvino.save_model(network, path, compress_to_fp16=precision == "FP16")
        except ImportError:
            return None, "8 bits need nncf; pip install nncf"
        except Exception as error:  # noqa: BLE001 - not every graph can be quantised, which is a result
            return None, in_one_line(error)
        return openvino.Core().read_model(path), None


def _export(model: AnomalibModule, image_size: Size, folder: Path) -> tuple[openvino.Model | None, str | None]:
    """Export for images of any size, as anomalib does by default, or else of one; see :meth:`Graphs.write`."""
    network, reason = _export_for(model, None, folder)
    return (network, reason) if network else _export_for(model, image_size, folder)


def _export_for(model: AnomalibModule, size: Size | None, folder: Path) -> tuple[openvino.Model | None, str | None]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torch's exporter tells how it goes
            path = model.to_openvino(folder / str(size), input_size=size)
        return openvino.Core().read_model(path), None
    except Exception as error:  # noqa: BLE001 - that a model cannot be exported is a result
        return None, f"cannot be exported: {in_one_line(error)}"


def _quantised(network: openvino.Model, images: Tensor) -> openvino.Model:
    """Quantise to 8 bits after training, as anomalib's INT8_PTQ does, with given images."""
    import nncf

    with contextlib.redirect_stdout(io.StringIO()):  # a progress bar
        calibration = nncf.Dataset([image.numpy() for image in images.split(1)])
        return nncf.quantize(network, calibration, subset_size=len(images))


def _flops(model: AnomalibModule, image_size: Size) -> int | None:
    image = torch.zeros(1, 3, *image_size, device=model.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        try:
            model.model(model.pre_processor(image) if model.pre_processor else image)
        except Exception:  # noqa: BLE001 - not every operation can be counted, nor does every network take zeros
            return None
    return counter.get_total_flops()


@contextlib.contextmanager
def _evaluating(model: AnomalibModule) -> Iterator[None]:
    """Put a model into evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
