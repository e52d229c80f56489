"""Quantisation to 8 bits by NNCF: all of a graph, or with its sensitive layers left in floating point."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import openvino

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.openvino_core import of_batch, signal_stack_restored
from anomalib_defect_plugins.deployment.agreement import Outputs, Picture, as_function
from anomalib_defect_plugins.deployment.quiet import quiet
from anomalib_defect_plugins.generators.procedural import KINDS, draw_defect
from anomalib_defect_plugins.models.components.checked_export import quantisation, quantisation_with_control

MAX_RESTORED = 10
"""Maximum quantised layers that the accuracy-aware search turns back to floating point."""

RANKING_IMAGES = 8
"""Images that the accuracy-aware search ranks layers with."""


def calibration_images(images: Sequence[Picture], number: int) -> Iterator[Picture]:
    """Iterate over images for the calibration, one by one; if there are too few, mirrored ones follow.

    Every second one has a drawn defect: a graph that is calibrated with normal images only clips the values that tell
    defects from them.

    Args:
        images: The images, at least one.
        number: Number of draws; repeated draws of an image are the image mirrored across, down, and both.
    """
    mirrored: list[Callable[[Picture], Picture]] = [
        lambda image: image,
        lambda image: image[:, ::-1],
        lambda image: image[::-1],
        lambda image: image[::-1, ::-1],
    ]
    draws = ((mirror, image) for mirror in itertools.cycle(mirrored) for image in images)
    rng = np.random.default_rng(0)
    for index, (mirror, image) in enumerate(itertools.islice(draws, number)):
        drawn = np.ascontiguousarray(mirror(image))
        yield _with_defect(drawn, rng) if index % 2 else drawn


def _with_defect(image: Picture, rng: np.random.Generator) -> Picture:
    defective, _ = draw_defect(image * np.float32(1 / 255), str(rng.choice(KINDS)), rng)
    pixels: Picture = (defective * 255).round().clip(0, 255).astype(np.uint8)
    return pixels


def quantize(network: openvino.Model, images: Sequence[Picture], kept: Sequence[str] = ()) -> openvino.Model:
    """Quantise a graph, as ``checked_export.quantisation`` says; the result takes one image at once.

    Args:
        network: Graph of 8-bit images, shape (N, H, W, 3).
        images: Images for the calibration.
        kept: Names of further nodes that are not quantised.

    Raises:
        InvalidInputError: If NNCF is not installed.
    """
    nncf = import_nncf()
    network = of_batch(network, 1)
    with quiet(), signal_stack_restored():
        return nncf.quantize(
            network,
            nncf.Dataset([image[None] for image in images]),
            subset_size=len(images),
            **quantisation(network, kept),
        )


def quantize_with_control(
    network: openvino.Model,
    images: Sequence[Picture],
    excess: Callable[[Callable[[Picture], Outputs]], float],
) -> openvino.Model:
    """Quantise a graph as above, and turn the layers back to floating point that matter most until a bound is kept.

    Args:
        network: Graph of 8-bit images, shape (N, H, W, 3).
        images: Images for the calibration.
        excess: Function of a graph, itself a function of an image, that returns how far its predictions are from the
            original ones, as a multiple of the bound.
    """
    nncf = import_nncf()
    network = of_batch(network, 1)

    def validate(compiled: openvino.CompiledModel, _: object) -> float:
        # NNCF divides by the value of the original graph.
        return 2 - excess(as_function(compiled))

    arrays = [image[None] for image in images]
    with quiet(), signal_stack_restored():
        return nncf.quantize_with_accuracy_control(
            network,
            nncf.Dataset(arrays),
            nncf.Dataset(arrays[:RANKING_IMAGES]),
            validation_fn=validate,
            max_drop=1.0,
            drop_type=nncf.DropType.ABSOLUTE,
            subset_size=len(images),
            **quantisation_with_control(network),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=MAX_RESTORED, ranking_subset_size=RANKING_IMAGES
            ),
        )


def import_nncf() -> Any:
    """Import NNCF.

    Raises:
        InvalidInputError: If it is not installed.
    """
    try:
        with quiet():
            import nncf
    except ModuleNotFoundError as error:
        msg = "INT8 needs NNCF; pip install nncf, or use --precision FP16"
        raise InvalidInputError(msg) from error
    return nncf
