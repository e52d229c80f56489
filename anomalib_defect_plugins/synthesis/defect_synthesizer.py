"""Trained models that synthesize defects, of any method, and the loading of their checkpoints."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.plugins.bridge import registered
from anomalib_defect_plugins.plugins.manager import Kind


class DefectSynthesizer(Protocol):
    """A trained model that puts defects of given categories at given places on normal images.

    A control map, shape (B, K, H, W) of any size or (B, K, 1, 1), float in [0, 1], is the request for defects: one
    channel for each of ``categories``, above 0 at the pixels where its defects may be.

    Attributes:
        categories: Categories of its defects.
        image_size: Size of its images.
    """

    @property
    def categories(self) -> tuple[str, ...]: ...  # noqa: D102 - see the class

    @property
    def image_size(self) -> Size: ...  # noqa: D102 - see the class

    def synthesize(self, images: Tensor, control: Tensor, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Put defects on images.

        Args:
            images: Normal images of any size, shape (B, 3, h, w), float in [0, 1].
            control: Control map.
            rng: CPU generator of all randomness; ``None`` for none.

        Returns:
            Images, shape (B, 3, *image_size), float in [0, 1]; and maps, shape (B, 1, *image_size), in [0, 1]: how much
            of each pixel is defect.
        """

    def restore(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Remove the defects from images; arguments and results as in :meth:`synthesize`."""

    def draw_defects(
        self, images: Tensor, control: Tensor, rng: torch.Generator, threshold: float = 0.5
    ) -> tuple[Tensor, Tensor]:
        """Put defects on images of any size, which keep their own pixels elsewhere.

        Args:
            images: Normal images, shape (B, C, H, W), float in [0, 1], C 1 or 3.
            control: Control map.
            rng: CPU generator of all randomness.
            threshold: Value of the map that a defect reaches.

        Returns:
            Images, shape (B, C, H, W), not clamped; and masks, shape (B, 1, H, W), bool.
        """

    def affected_region(self, control: Tensor) -> Tensor:
        """Return where a control map can have an effect, shape (B, 1, *image_size), bool."""

    def defect_masks(self, maps: Tensor, threshold: float, max_share: float) -> Tensor:
        """Return the masks of synthesized defects.

        Args:
            maps: Maps of :meth:`synthesize`.
            threshold: Threshold of the maps.
            max_share: Maximum size of a mask, as a fraction of the image; larger masks are emptied.

        Returns:
            Masks, shape (B, 1, *image_size), bool.
        """


@runtime_checkable
class SynthesizerClass(Protocol):
    """The class of a model that is a :class:`DefectSynthesizer` once it is trained."""

    __name__: str

    def load_for_synthesis(self, checkpoint: Path, device: torch.device | str = "cpu") -> DefectSynthesizer:
        """Load a trained model in evaluation mode.

        Raises:
            MissingDataError: If the checkpoint does not exist.
            InvalidInputError: If it is not a checkpoint of this class.
        """


def synthesizer_classes() -> dict[str, SynthesizerClass]:
    """Return the registered models that synthesize defects, by name."""
    return {name: cls for name, cls in registered(Kind.MODEL).items() if isinstance(cls, SynthesizerClass)}


def load_synthesizer(checkpoint: Path, device: torch.device | str = "cpu") -> DefectSynthesizer:
    """Load a trained model for synthesis, of the first registered class that accepts the checkpoint.

    Args:
        checkpoint: Checkpoint of its training.
        device: Device for the model.

    Raises:
        MissingDataError: If the checkpoint does not exist.
        InvalidInputError: If no registered model accepts it; says what each of them has found.
    """
    refusals: list[InvalidInputError] = []
    for cls in synthesizer_classes().values():
        try:
            return cls.load_for_synthesis(checkpoint, device)
        except InvalidInputError as error:  # noqa: PERF203 - loading takes far longer
            refusals.append(error)
    if not refusals:
        msg = "no registered model synthesizes defects; 'anomalib-defects list' shows which are disabled or failed"
        raise InvalidInputError(msg)
    raise InvalidInputError("; ".join(map(str, refusals))) from refusals[-1]
