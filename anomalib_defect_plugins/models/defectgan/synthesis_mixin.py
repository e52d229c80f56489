"""Synthesis with a trained Defect-GAN: the part of the model that training does not use."""

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.rng import device_rng
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.models.defectgan.synthesis import (
    MAX_SHARE,
    affected_region,
    blend_defects,
    defect_masks,
)
from anomalib_defect_plugins.models.defectgan.torch_model import DefectGanModel, Synthesized, everywhere

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object


class SynthesisMixin(_Module):
    """Adds and removes defects with the averaged weights. Comes before ``AnomalibModule`` among the bases.

    Attributes:
        model: The network with the averaged weights.
        categories: Defect types in the order of the control map's channels.
        image_size: Height and width of the network's images, in pixels.
    """

    model: DefectGanModel
    categories: tuple[str, ...]
    image_size: Size

    @torch.no_grad()
    def synthesize(self, images: Tensor, control: Tensor, rng: torch.Generator | None = None) -> Synthesized:
        """Add defects to images with the averaged weights.

        Args:
            images: Images, shape (B, 3, h, w) of any size, float in [0, 1]; they are resized as in training.
            control: Control map, shape (B, K, H, W) of any size, float in [0, 1], or label vectors (B, K) for the whole
                image. Channels have the order of ``categories``; all 0 is normal.
            rng: CPU generator for the adaptive noise; ``None`` disables the noise.

        Returns:
            Images (B, 3, *image_size) in [0, 1] and the maps m of eq. 2, (B, 1, *image_size), in [0, 1].

        Raises:
            InvalidInputError: If the shape of the control map does not match the images and categories.
        """
        if control.ndim not in {2, 4} or control.shape[:2] != (len(images), len(self.categories)):
            msg = f"a control map for {counted(len(images), 'image')} and {len(self.categories)} categories is "
            raise InvalidInputError(msg + f"(B, K) or (B, K, H, W), not {tuple(control.shape)}")
        control = everywhere(control) if control.ndim == 2 else control
        noise = None if rng is None else device_rng(rng, self.device)
        return self.model.synthesize(self.resized(images), control.to(self.device), noise)

    @torch.no_grad()
    def restore(self, images: Tensor) -> Synthesized:
        """Remove the defects of images (B, 3, h, w) in [0, 1], eq. 3 and 4; returns the same as :meth:`synthesize`."""
        return self.model.restore(self.resized(images))

    def resized(self, images: Tensor) -> Tensor:
        """Resize images (B, 3, h, w) in [0, 1] to (B, 3, *image_size), on the device of the model."""
        images = images.to(self.device)
        return images if self.pre_processor is None else cast(Tensor, self.pre_processor(images)).clamp(0, 1)

    @torch.no_grad()
    def draw_defects(
        self, images: Tensor, control: Tensor, rng: torch.Generator, threshold: float = 0.5
    ) -> tuple[Tensor, Tensor]:
        """Add defects to images of any size; pixels outside of the defects are unchanged.

        Args:
            images: Images on the model's device, shape (B, C, H, W), float in [0, 1], C 1 or 3.
            control: Control map, as in :meth:`synthesize`.
            rng: CPU generator of the adaptive noise.
            threshold: Value of the map m that a defect reaches.

        Returns:
            Images, shape (B, C, H, W), not clamped; and masks, shape (B, 1, H, W), bool.
        """
        resized = self.resized(images.expand(-1, 3, -1, -1))
        generated, maps = self.synthesize(resized, control, rng)
        return blend_defects(images, generated - resized, maps * self.affected_region(control), threshold)

    def affected_region(self, control: Tensor) -> Tensor:
        """Return where a control map (B, K, h, w) can have an effect, shape (B, 1, *image_size), bool."""
        return affected_region(control, self.image_size)

    def defect_masks(self, maps: Tensor, threshold: float = 0.5, max_share: float = MAX_SHARE) -> Tensor:
        """Return the masks of synthesized defects; see :func:`~.synthesis.defect_masks`."""
        return defect_masks(maps, threshold, max_share=max_share)
