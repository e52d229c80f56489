"""Defects of several generators, so that a network cannot learn the artefacts of a single one."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.rng import numpy_rng
from anomalib_defect_plugins.plugins.instantiate import build


class MixedDefects(DefectGenerator):
    """Draw each image's defect with one of several generators, chosen at random.

    Args:
        generators: Names of registered generators, instances, or mappings with ``class_path`` and ``init_args``.

    Raises:
        InvalidInputError: If the list is empty, or a generator cannot be created.
    """

    name: ClassVar[str] = "mixed"

    def __init__(self, generators: Sequence[DefectGenerator | str] = ("perturb", "poisson", "cutpaste_scar")) -> None:
        if not generators:
            msg = "generators of MixedDefects is empty; name at least one"
            raise InvalidInputError(msg)
        self.generators = [
            build(DefectGenerator, generator, "a generator of MixedDefects")  # type: ignore[type-abstract]
            for generator in generators
        ]

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw on images (B, C, H, W); all images of one generator form a batch."""
        chosen = torch.from_numpy(numpy_rng(rng).integers(len(self.generators), size=len(images)))
        result, mask = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        for index, generator in enumerate(self.generators):
            rows = (chosen == index).nonzero()[:, 0].to(images.device)
            if len(rows):
                result[rows], mask[rows] = generator.draw(images[rows], rng)
        return result, mask


def build_generator(given: DefectGenerator | str | Sequence[DefectGenerator | str], what: str) -> DefectGenerator:
    """Create a generator from its configuration, or a mixture from several.

    Args:
        given: As in :func:`~anomalib_defect_plugins.plugins.instantiate.build`, or a list of these.
        what: Description of the generator for the error message.

    Raises:
        InvalidInputError: If a generator cannot be created, or the list is empty.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        return MixedDefects(given)
    return build(DefectGenerator, given, what)  # type: ignore[type-abstract]


def generator_names(generator: DefectGenerator) -> str | list[str]:
    """Return the name of a generator, or those of a mixture, which checkpoints store instead of the object."""
    return [one.name for one in generator.generators] if isinstance(generator, MixedDefects) else generator.name
