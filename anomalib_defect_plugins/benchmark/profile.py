"""Cost of a trained model: size, FLOPs, latency in PyTorch and OpenVINO, and the output difference of its export."""

import contextlib
import io
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openvino
import torch
from anomalib.models.components import AnomalibModule
from torch.utils.flop_counter import FlopCounterMode

from anomalib_defect_plugins.benchmark.export_check import LabelledImages, compare_exports
from anomalib_defect_plugins.benchmark.latency import (
    BATCH_SIZES,
    LatencyEntry,
    last_line,
    openvino_row,
    openvino_rows,
    torch_rows,
)
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.openvino_core import of_batch, openvino_core, signal_stack_restored
from anomalib_defect_plugins.models.components.checked_export import quantisation
from anomalib_defect_plugins.results.run_spec import MeasureSpec

CALIBRATION_IMAGES = 32
"""Maximum number of images, spread evenly, to calibrate 8-bit graphs with."""


def profile(
    model: AnomalibModule, image_size: Size, folder: Path, images: LabelledImages, measure: MeasureSpec
) -> dict[str, Any]:
    """Measure and export a model.

    Args:
        model: Trained model, measured on its device.
        image_size: Height and width of images for FLOPs and latency.
        folder: Folder of the graphs, which are written to ``openvino/PRECISION/model.xml``.
        images: Images of the test to compare exported graphs on, and some of them to calibrate the 8-bit one with.
        measure: Measurements to make.

    Returns:
        ``cost``: ``parameters``, ``buffers`` (the statistics and memory banks of some models are not parameters) and
        ``flops`` of one image, where a multiply-add counts as two; ``None`` if they cannot be counted.
        ``latency``: entries as in ``latency.py``, with a reason if the model cannot be exported.
        ``export_difference``: maximum difference of scores and maps from PyTorch by precision, computed in single
        precision; ``None`` if the model cannot be exported, the graph fails, or an output is not finite.
        ``export_changes``: what the difference means for decisions, by precision; see ``ExportComparison.summary``.
    """
    with _evaluation_mode(model):
        latency = list(torch_rows(model, image_size, measure.seconds)) if measure.latency else []
        networks = {}
        with tempfile.TemporaryDirectory() as scratch:
            exporter = GraphExporter(model, image_size, Path(scratch), images)
            for precision in measure.precisions:
                network, reason = exporter.write(precision, folder / "openvino" / precision / "model.xml")
                if network is not None:
                    networks[precision] = network
                if measure.latency:
                    latency += _graph_latency(network, reason, precision, image_size, measure.seconds)
        compared = compare_exports(model, networks, images)
        differences = {name: compared[name].difference if name in compared else None for name in measure.precisions}
        changes = {name: comparison.summary() for name, comparison in compared.items()}
        exports = {"export_difference": differences, "export_changes": changes}
        return {"cost": cost(model, image_size), "latency": latency, **exports}


def _graph_latency(
    network: openvino.Model | None, reason: str | None, precision: str, image_size: Size, seconds: float
) -> list[LatencyEntry]:
    if network is None:
        return [openvino_row(precision, batch, reason) for batch in BATCH_SIZES]
    return list(openvino_rows(network, precision, image_size, seconds))


def cost(model: AnomalibModule, image_size: Size) -> dict[str, int | None]:
    """Count parameters, buffers and FLOPs; see :func:`profile`."""
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    buffers = sum(buffer.numel() for buffer in model.model.buffers())
    return {"parameters": parameters, "buffers": buffers, "flops": _flops(model, image_size)}


class GraphExporter:
    """Export of a model to OpenVINO graphs.

    Args:
        model: The model.
        image_size: Height and width of the graph's images, if it cannot be exported for any size.
        scratch: Folder for intermediate files.
        images: Images for the calibration of 8-bit graphs.
    """

    def __init__(self, model: AnomalibModule, image_size: Size, scratch: Path, images: LabelledImages) -> None:
        self.images = images
        self.network, self.reason = _export(model, image_size, scratch)

    def write(self, precision: str, path: Path) -> tuple[openvino.Model | None, str | None]:
        """Write the graph in one precision.

        Returns:
            The graph, or ``None``; and the reason if there is none.
        """
        if self.network is None:
            return None, self.reason
        try:
            network = _quantize(self.network, self.images) if precision == "INT8" else self.network
            path.parent.mkdir(parents=True, exist_ok=True)
            openvino.save_model(network, path, compress_to_fp16=precision == "FP16")
        except ImportError:
            return None, "8 bits need nncf; pip install nncf"
        except Exception as error:  # noqa: BLE001 - not every graph can be quantized, and the run goes on
            return None, last_line(error)
        return openvino_core().read_model(path), None


def _export(model: AnomalibModule, image_size: Size, scratch: Path) -> tuple[openvino.Model | None, str | None]:
    """Export for images of any size, as anomalib does by default, or else for one; see :meth:`GraphExporter.write`."""
    network, reason = _export_for_size(model, None, scratch)
    return (network, reason) if network else _export_for_size(model, image_size, scratch)


def _export_for_size(
    model: AnomalibModule, size: Size | None, scratch: Path
) -> tuple[openvino.Model | None, str | None]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torch's exporter prints its progress
            path = model.to_openvino(scratch / str(size), input_size=size)
        return openvino_core().read_model(path), None
    except Exception as error:  # noqa: BLE001 - a model may not be exportable, and the run goes on
        return None, f"cannot be exported: {last_line(error)}"


def _quantize(network: openvino.Model, images: LabelledImages) -> openvino.Model:
    """Quantize to 8 bits after training, as ``anomalib-defects export`` does, calibrated with some of ``images``."""
    import nncf

    with contextlib.redirect_stdout(io.StringIO()), signal_stack_restored():  # nncf prints a progress bar
        step = math.ceil(len(images) / CALIBRATION_IMAGES)
        calibration = [images[index][0][None].numpy() for index in range(0, len(images), step)]
        network = of_batch(network, 1)
        return nncf.quantize(network, nncf.Dataset(calibration), subset_size=len(calibration), **quantisation(network))


def _flops(model: AnomalibModule, image_size: Size) -> int | None:
    image = torch.zeros(1, 3, *image_size, device=model.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        try:
            model.model(model.pre_processor(image) if model.pre_processor else image)
        except Exception:  # noqa: BLE001 - not every operation can be counted, and not every network takes zeros
            return None
    return int(counter.get_total_flops())


@contextlib.contextmanager
def _evaluation_mode(model: AnomalibModule) -> Iterator[None]:
    """Set a model to evaluation mode until the block ends."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
