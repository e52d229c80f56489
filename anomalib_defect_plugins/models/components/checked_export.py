"""Export of models without thresholds, and quantisation that leaves scores and thresholds as they are."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib.deploy import CompressionType

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.openvino_core import of_batch, signal_stack_restored
from anomalib_defect_plugins.post_processing import DefectPostProcessor

if TYPE_CHECKING:
    import openvino
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object  # a model derives from AnomalibModule directly, or anomalib's get_model would not find it

logger = logging.getLogger(__name__)

OPSET = 18
"""Version of ONNX's operators, the lowest one that is exported."""

CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData")
"""Operators whose computation in 8 bits saves time in a convolutional network."""

DATA = ("Constant", "Parameter", "Result")
"""Nodes that compute nothing."""

PRODUCTS = ("MatMul",)
"""Operators whose computation in 8 bits saves time in a transformer. Elsewhere they resize images and compute
distances, which 8 bits would ruin."""


class CheckedExport(_Module):
    """Exports verdicts only if there are thresholds. Comes before ``AnomalibModule`` among the bases of a model."""

    def to_onnx(self, *args: Any, **kwargs: Any) -> Path:  # type: ignore[override]  # as in anomalib
        """Export the model to ONNX, as in anomalib; without thresholds it has no labels and masks."""
        # anomalib's default of 14 is no longer exported: a conversion is tried, and fails with a traceback.
        kwargs.setdefault("opset_version", OPSET)
        post_processor = self.post_processor
        if not isinstance(post_processor, DefectPostProcessor) or post_processor.has_threshold:
            return super().to_onnx(*args, **kwargs)
        logger.warning(
            "%s has no thresholds, because it was not validated after training: the exported graph returns raw scores "
            "and maps, and no labels and masks; pass --threshold to 'anomalib-defects inspect'",
            self.name,
        )
        with _without_thresholding(post_processor):
            return super().to_onnx(*args, **kwargs)

    def _compress_ov_model(
        self, model: Any, compression_type: CompressionType | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Compress a graph, as in anomalib, but do not quantise what follows the last convolutions.

        Quantised scores would be equal, and on another side of the threshold.
        """
        outputs = {name for output in model.outputs for name in output.names}
        if compression_type == CompressionType.INT8_ACQ and "pred_label" not in outputs:
            msg = f"INT8_ACQ compares labels, but {self.name} has no thresholds; validate it, or use INT8_PTQ"
            raise ConfigurationError(msg)
        with _passed_to_nncf(model), signal_stack_restored():
            compressed = super()._compress_ov_model(model, compression_type, *args, **kwargs)
        is_quantised = compression_type in {CompressionType.INT8_PTQ, CompressionType.INT8_ACQ}
        return of_batch(compressed, 1) if is_quantised else compressed  # only now: anomalib calibrates with batches


def quantised_layers(network: "openvino.Model") -> tuple[str, ...]:
    """Return the types of the layers to quantise: convolutions, or matrix products if there are more of them."""
    types = [node.get_type_name() for node in network.get_ordered_ops()]
    convolutions, products = (sum(map(types.count, kinds)) for kinds in (CONVOLUTIONS, PRODUCTS))
    return CONVOLUTIONS if convolutions >= products else (*CONVOLUTIONS, *PRODUCTS)


def quantisation(network: "openvino.Model", kept: Iterable[str] = ()) -> dict[str, Any]:
    """Return the arguments of ``nncf.quantize`` for a graph.

    Only convolutions, or matrix products, are quantised, without those of scores, thresholds and distances: means and
    variances of norms in 8 bits ruin the maps. Weights have half of the range, because sums of products saturate on
    processors without instructions for 8-bit networks, such as those with AVX2. Activations have a zero point, because
    few are centred.

    Args:
        network: The graph.
        kept: Names of further nodes that are not quantised.
    """
    import nncf

    types = {node.get_type_name() for node in network.get_ordered_ops()} - {*DATA, *quantised_layers(network)}
    return {
        "ignored_scope": nncf.IgnoredScope(
            names=sorted({*tail(network), *_distances(network), *kept}), types=sorted(types), validate=False
        ),
        "preset": nncf.QuantizationPreset.MIXED,
        "advanced_parameters": nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
    }


def _distances(network: "openvino.Model") -> list[str]:
    """Return the names of the convolutions that compute distances to centres, of which the lowest is kept."""
    lowest = [node for node in network.get_ordered_ops() if node.get_type_name() == "ReduceMin"]
    sources = [node.input_value(0).get_node() for node in lowest]
    sources = [node.input_value(0).get_node() if node.get_type_name() == "Add" else node for node in sources]
    return [node.get_friendly_name() for node in sources if node.get_type_name() in CONVOLUTIONS]


def before_distances(network: "openvino.Model") -> list[str]:
    """Return the names of the layers whose features are compared with centres, by the distance to the nearest one.

    None if those are all layers, as with a minimum of the map, which a region of interest adds.
    """
    types = quantised_layers(network)
    nodes = [node for node in network.get_ordered_ops() if node.get_type_name() == "ReduceMin"]
    found: set[str] = set()
    while nodes:
        node = nodes.pop()
        sources = [node.input_value(index).get_node() for index in range(node.get_input_size())]
        nodes += [source for source in sources if source.get_friendly_name() not in found]
        found |= {source.get_friendly_name() for source in sources}
    layers = [node.get_friendly_name() for node in network.get_ordered_ops() if node.get_type_name() in types]
    before = [name for name in layers if name in found]
    return before if set(layers) - {*before, *tail(network)} else []


def quantisation_with_control(network: "openvino.Model") -> dict[str, Any]:
    """Return the same for ``nncf.quantize_with_accuracy_control``, which has another name for one of them."""
    arguments = quantisation(network)
    arguments["advanced_quantization_parameters"] = arguments.pop("advanced_parameters")
    return arguments


def tail(network: "openvino.Model") -> list[str]:
    """Return the names of the nodes of a graph that no layer to quantise follows, blurs of a single map included."""
    types, nodes = quantised_layers(network), network.get_ordered_ops()
    kept = {node.get_friendly_name() for node in nodes if node.get_type_name() in types and not _is_blur(node)}
    for node in reversed(nodes):
        targets = (port.get_node() for output in node.outputs() for port in output.get_target_inputs())
        if any(target.get_friendly_name() in kept for target in targets):
            kept.add(node.get_friendly_name())
    computing = (node.get_friendly_name() for node in nodes if node.get_type_name() not in DATA)
    return [name for name in computing if name not in kept]


def _is_blur(node: "openvino.Node") -> bool:
    """Whether a node convolves one channel with one filter, as the blur of an anomaly map does."""
    if node.get_type_name() not in CONVOLUTIONS:
        return False
    # Filters have the shape (groups, out, in, h, w), or (out, in, h, w).
    leading = list(node.get_input_partial_shape(1))[:-2]
    return all(size.is_static and size.get_length() == 1 for size in leading)


@contextlib.contextmanager
def _without_thresholding(post_processor: DefectPostProcessor) -> Iterator[None]:
    enabled, post_processor.enable_thresholding = post_processor.enable_thresholding, False
    try:
        yield
    finally:
        post_processor.enable_thresholding = enabled


@contextlib.contextmanager
def _passed_to_nncf(network: "openvino.Model") -> Iterator[None]:
    """Pass arguments to NNCF that anomalib 2.7 does not pass."""
    import nncf

    functions = {
        "quantize": (nncf.quantize, quantisation(network)),
        "quantize_with_accuracy_control": (nncf.quantize_with_accuracy_control, quantisation_with_control(network)),
    }
    for name, (function, arguments) in functions.items():
        setattr(nncf, name, partial(function, **arguments))
    try:
        yield
    finally:
        for name, (function, _) in functions.items():
            setattr(nncf, name, function)
