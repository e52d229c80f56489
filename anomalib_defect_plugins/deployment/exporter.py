"""Export of a trained model to a bundle, whose graph is checked against PyTorch on images of the data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import openvino

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.deployment.agreement import (
    Agreement,
    Bounds,
    Predictions,
    compare,
    predict,
    predict_graph,
    predict_torch,
)
from anomalib_defect_plugins.deployment.graphs import read_network, write_onnx
from anomalib_defect_plugins.deployment.images import LabelledImages, check_images, training_images
from anomalib_defect_plugins.deployment.metadata import Origin, write_description
from anomalib_defect_plugins.deployment.operating_point import keep_operating_point
from anomalib_defect_plugins.deployment.quantization import calibration_images, quantize, quantize_with_control
from anomalib_defect_plugins.inference.bundle import GRAPH, ONNX
from anomalib_defect_plugins.models.components.checked_export import before_distances

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule
    from anomalib.models.components import AnomalibModule

PRECISIONS = ("FP32", "FP16", "INT8", "auto")

BRANCHES = "INT8 branches"
"""8 bits, without the layers whose features distances are computed from."""

MIXED = "INT8 mixed"
"""8 bits with the sensitive layers in floating point."""

CANDIDATES = {
    "FP32": ("FP32",),
    "FP16": ("FP16",),
    "INT8": ("INT8", BRANCHES, MIXED),
    "auto": ("INT8", BRANCHES, MIXED, "FP16", "FP32"),
}
"""Precisions that are tried in turn for the one that was asked for."""

SEARCH_IMAGES = 24
"""Maximum images on which the search for sensitive layers compares predictions, at most every second one."""

Step = Callable[[str], None]


@dataclass(frozen=True)
class ExportSettings:
    """What an export does.

    Args:
        precision: ``FP32``, ``FP16``, ``INT8``, or ``auto`` for the first of INT8, FP16 and FP32 that keeps the bounds.
        bounds: How far the predictions may be from those in PyTorch.
        images: Maximum images of the test split to check the graph on.
        calibration_images: Images that 8-bit graphs are calibrated with.
        size: Height and width of the images; any by default.
    """

    precision: str = "FP32"
    bounds: Bounds = field(default_factory=Bounds)
    images: int = 200
    calibration_images: int = 300
    size: tuple[int, int] | None = None


class Export(NamedTuple):
    """A bundle, and the comparison with PyTorch of every precision that was tried; the last one is the bundle's."""

    folder: Path
    tried: Sequence[Agreement]


def export_bundle(
    model: "AnomalibModule",
    datamodule: "AnomalibDataModule",
    out: Path,
    settings: ExportSettings | None = None,
    checkpoint: Path | None = None,
    step: Step = lambda _: None,
) -> Export:
    """Export a model to a bundle: graphs of 8-bit images of any size, ``metadata.json`` and a model card.

    Args:
        model: Trained model.
        datamodule: Data module that is set up: images of its test split check the graph, and images of its training
            split calibrate 8-bit ones.
        out: Folder to create.
        settings: The settings.
        checkpoint: File that the model was loaded from, for the description.
        step: Function that is called with the name of each step.

    Raises:
        InvalidInputError: If the folder exists, or a setting is invalid.
        ConfigurationError: If the model cannot be exported, or no graph of the precision keeps the bounds.
    """
    settings = settings or ExportSettings()
    check_settings(settings, out)
    model.eval()
    with new_folder(out, "--out") as folder:
        step("exporting to ONNX")
        write_onnx(model, folder / ONNX, settings.size)
        search = _Search(model, datamodule, read_network(folder / ONNX), settings, step)
        tried = search.write(folder / GRAPH)
        point = {} if checkpoint is None else keep_operating_point(checkpoint, model, folder)
        write_description(folder, Origin(model, datamodule, checkpoint, settings.size, point), tried[-1])
    return Export(out, tried)


def check_settings(settings: ExportSettings, out: Path) -> None:
    """Check the settings and the folder before anything is loaded.

    Raises:
        InvalidInputError: If the folder exists, or a setting is invalid.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} exists; choose another folder (--out), or delete it"
        raise InvalidInputError(msg)
    if settings.precision not in CANDIDATES:
        msg = f"--precision is {settings.precision}; use one of {', '.join(PRECISIONS)}"
        raise InvalidInputError(msg)
    for name, number in (("--images", settings.images), ("--calibration-images", settings.calibration_images)):
        if number < 1:
            msg = f"{name} is {number}; it must be 1 or more"
            raise InvalidInputError(msg)
    for name in ("auroc_drop", "changed_verdicts"):
        share = getattr(settings.bounds, name)
        if not 0 <= share <= 1:
            msg = f"--max-{name.replace('_', '-')} is {share}; it must be in [0, 1]"
            raise InvalidInputError(msg)


class _Search:
    """Search for a graph of a model that keeps the bounds."""

    def __init__(
        self,
        model: "AnomalibModule",
        datamodule: "AnomalibDataModule",
        network: openvino.Model,
        settings: ExportSettings,
        step: Step,
    ) -> None:
        self.model = model
        self.datamodule = datamodule
        self.network = network
        self.settings = settings
        self.step = step
        step("predicting in PyTorch")
        self.data: LabelledImages = check_images(datamodule, settings.images)
        self.torch: Predictions = predict_torch(model, self.data.images)

    def write(self, path: Path) -> list[Agreement]:
        """Write the first graph that keeps the bounds; return the comparisons of all that were tried."""
        precision = self.settings.precision
        tried = list(self._try(CANDIDATES[precision], path))
        if not tried[-1].keeps(self.settings.bounds):
            raise ConfigurationError(self._refusal(tried, path))
        return tried

    def _try(self, precisions: Sequence[str], path: Path) -> Iterator[Agreement]:
        """Write graphs until one keeps the bounds."""
        for precision in precisions:
            if precision.startswith("INT8") and not self._can_be_judged:
                continue
            if precision == BRANCHES and not before_distances(self.network):
                continue
            self.step(f"writing {precision}")
            openvino.save_model(self._graph(precision), path, compress_to_fp16=precision not in {"FP32", "INT8"})
            self.step(f"checking {precision}")
            graph = predict_graph(openvino_core().read_model(path), self.data.images)
            agreement = compare(precision, graph, self.torch, self.data.labels)
            yield agreement
            if agreement.keeps(self.settings.bounds):
                return

    @property
    def _can_be_judged(self) -> bool:
        """Whether there are verdicts or an AUROC, which 8 bits may change."""
        labels = self.data.labels
        return self.torch.verdicts is not None or bool(labels.any() and not labels.all())

    def _graph(self, precision: str) -> openvino.Model:
        if precision in {"FP32", "FP16"}:
            return self.network
        number = self.settings.calibration_images
        images = list(calibration_images(training_images(self.datamodule, number), number))
        if precision == "INT8":
            return quantize(self.network, images)
        if precision == BRANCHES:
            return quantize(self.network, images, before_distances(self.network))
        return quantize_with_control(self.network, images, self._excess)

    def _excess(self, graph: Callable[[npt.NDArray[np.uint8]], Any]) -> float:
        """Return how far the predictions are from PyTorch on a part of the images, as a multiple of the bound.

        The others are left for the check of the result.
        """
        part = slice(None, None, max(2, -(-len(self.data.images) // SEARCH_IMAGES)))
        verdicts = self.torch.verdicts
        expected = Predictions(self.torch.scores[part], None if verdicts is None else verdicts[part], ())
        found = predict(graph, self.data.images[part], maps=0)
        return compare(MIXED, found, expected, self.data.labels[part]).excess(self.settings.bounds)

    def _refusal(self, tried: Sequence[Agreement], path: Path) -> str:
        reasons = "; ".join(f"{agreement.precision}: {agreement.describe()}" for agreement in tried)
        bounds = self.settings.bounds
        limits = (
            f"(bounds: AUROC lower by {bounds.auroc_drop:g}, {100 * bounds.changed_verdicts:g} % of the verdicts, and "
            f"in FP32 differences of {bounds.difference:g})"
        )
        if self.settings.precision != "INT8":
            return f"the graph differs from PyTorch, {reasons} {limits}; nothing is written"
        (fallback,) = self._try(("FP16",), path)
        name = "FP16" if fallback.keeps(bounds) else "FP32"
        return f"INT8 is refused, {reasons} {limits}; use --precision {name} (FP16: {fallback.describe()})"
