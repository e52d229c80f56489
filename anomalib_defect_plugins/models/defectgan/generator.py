"""Defects of a trained Defect-GAN: of the types that it has seen, made for the image that they are on.

Paper: Defect-GAN: high-fidelity defect synthesis for automated defect inspection, WACV 2021,
https://arxiv.org/abs/2103.15158, section 3.1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_number, check_one_of
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators.masks import random_masks

REGIONS = ("random", "whole")
"""Where defects may come: in a random lump of the image, or anywhere."""

KINDS: Sequence[str] = ("blobs", "ellipse")
"""Kinds of random regions; a hairline would be lost at the resolution of the network."""


class DefectGanDefects(DefectGenerator):
    """Let a trained Defect-GAN put a defect on each image.

    Its maps m fade out, and with m above 0 nearly everywhere, each pixel would belong to the defect a little. So the
    mask is where m is above half of the threshold, in pieces that reach the threshold; inside, the defect fades in from
    nothing at half of the threshold to all of eq. 2 at the threshold. Outside, and at the border, the image is the
    original one, so there is no seam. Where the control map cannot have an effect, m counts as 0.

    Args:
        checkpoint: What the training of a ``DefectGan`` has left: ``model.ckpt`` or ``last.ckpt``.
        category: Type of the defects; by default a random one for each image.
        region: ``random``: the control map is a random lump of the image; ``whole``: it is all of the image.
        threshold: A defect is where m reaches this, 0.02 to 0.98.

    Raises:
        MissingDataError: There is no such file.
        InvalidInputError: It is no checkpoint of a ``DefectGan``, it does not know the category, or an argument cannot
            be.
    """

    name: ClassVar[str] = "defectgan"

    def __init__(
        self, checkpoint: Path | str, category: str | None = None, region: str = "random", threshold: float = 0.5
    ) -> None:
        # Not above: models import generators.
        from anomalib_defect_plugins.models.defectgan.synthesis import load

        check_number("threshold of DefectGanDefects", threshold, 0.02, 0.98)
        check_one_of("region of DefectGanDefects", region, REGIONS)
        self.model = load(checkpoint)
        if category not in {None, *self.model.categories}:
            msg = f"{checkpoint} knows no category {category!r}; choose one of {', '.join(self.model.categories)}"
            raise InvalidInputError(msg)
        self.category = category
        self.region = region
        self.threshold = threshold

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make defects on (B, C, H, W), on the device of the images."""
        from anomalib_defect_plugins.models.defectgan.synthesis import defect_masks, reached

        model = self.model.to(images.device)
        control = self._control(images, rng)
        with torch.no_grad():
            plain = model.resized(images.expand(-1, 3, -1, -1))
            made, maps = model.synthesize(plain, control, rng)
        maps = maps * reached(control, model.image_size)
        low, size = self.threshold / 2, images.shape[-2:]
        # The change is brought to the size of the image, and not the result, so the image stays sharp.
        change, maps = (functional.interpolate(x, size, mode="bilinear", antialias=True) for x in (made - plain, maps))
        weight = ((maps - low) / (self.threshold - low)).clamp(0, 1)
        change = change if images.shape[1] == 3 else change.mean(1, keepdim=True)
        return images + weight * change, defect_masks(maps, low, core=self.threshold)

    def _control(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Draw the control map, (B, K, H, W), or (B, K, 1, 1) where it is the whole image."""
        count, known = len(images), self.model.categories
        chosen = torch.randint(len(known), (count,), generator=rng)
        if self.category is not None:
            chosen = torch.full_like(chosen, known.index(self.category))
        labels = functional.one_hot(chosen, len(known))[:, :, None, None].to(images)
        if self.region == "whole":
            return labels
        return labels * random_masks(count, images.shape[-2:], rng, images.device, KINDS)
