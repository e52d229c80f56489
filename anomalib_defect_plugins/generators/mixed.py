"""Defects of several sources, so that a network cannot learn the artefact of one."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.rng import numpy_rng
from anomalib_defect_plugins.plugins.instantiate import build


class MixedDefects(DefectGenerator):
    """Let one of several generators, drawn anew for each image, make its defect.

    Args:
        generators: Names of registered generators, instances, or mappings with ``class_path`` and ``init_args``.

    Raises:
        InvalidInputError: There is none, or one cannot be made.
    """

    name: ClassVar[str] = "mixed"

    def __init__(self, generators: Sequence[DefectGenerator | str] = ("perturb", "poisson", "cutpaste_scar")) -> None:
        if not generators:
            msg = "generators of MixedDefects is empty; name one at least"
            raise InvalidInputError(msg)
        self.generators = [build(DefectGenerator, one, "a generator of MixedDefects") for one in generators]

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the images (B, C, H, W) that fall to a generator together."""
        chosen = torch.from_numpy(numpy_rng(rng).integers(len(self.generators), size=len(images)))
        result, mask = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        for index, generator in enumerate(self.generators):
            rows = (chosen == index).nonzero()[:, 0].to(images.device)
            if len(rows):
                result[rows], mask[rows] = generator.draw(images[rows], rng)
        return result, mask
