"""Pre-processor that resizes in exported graphs as it does in training.

anomalib disables antialiasing in exported graphs. Downsampled images are then aliased, which a texture model detects as
a defect. Here the exported resize consists of matrix products and keeps the antialiasing.
"""

from typing import Any

from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import get_exportable_transform
from torch import nn
from torchvision.transforms.v2 import Compose, InterpolationMode, Transform
from torchvision.transforms.v2 import Resize as ResizeTransform

from anomalib_defect_plugins.layers import Resize


def _exportable(transform: Any, default: Any) -> Any:
    """Return ``default``, the transform anomalib exports, with bicubic antialiased resizing replaced."""
    if isinstance(transform, Compose):
        pairs = zip(transform.transforms, default.transforms, strict=True)
        steps = [_exportable(step, exported) for step, exported in pairs]
        return nn.Sequential(*steps) if steps != list(default.transforms) else default
    fixed = isinstance(transform, ResizeTransform) and transform.size is not None and len(transform.size) == 2
    if fixed and transform.antialias and transform.interpolation == InterpolationMode.BICUBIC:
        return Resize(tuple(transform.size))
    return default


class AntialiasedPreProcessor(PreProcessor):
    """A ``PreProcessor`` that keeps the antialiasing of bicubic resizing in exported graphs.

    Args:
        transform: Transforms of the images; all other transforms are exported as by anomalib.
    """

    def __init__(self, transform: Transform | None = None) -> None:
        super().__init__(transform)
        self.export_transform = _exportable(self.transform, self.export_transform)

    def set_transform(self, transform: Transform) -> None:
        """Replace the transforms, also those that are exported."""
        self.transform = transform
        self.export_transform = _exportable(transform, get_exportable_transform(transform))

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore the transforms from a checkpoint."""
        super().load_checkpoint_config(config)
        self.export_transform = _exportable(self.transform, self.export_transform)
