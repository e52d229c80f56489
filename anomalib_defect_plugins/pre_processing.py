"""A pre-processor whose exported graph resizes as training did.

anomalib turns antialiasing off in exported graphs. An image that shrinks then arrives with aliased grain, which a
model of texture rightly calls a defect. Here the exported resize is written as matrix products and keeps it.
"""

from typing import Any

from anomalib.pre_processing import PreProcessor
from torch import nn
from torchvision.transforms.v2 import Compose, InterpolationMode, Transform
from torchvision.transforms.v2 import Resize as ResizeTransform

from anomalib_defect_plugins.layers import Resize


def _exportable(transform: Any, default: Any) -> Any:
    """Replace bicubic antialiased resizing by its exportable twin in ``default``, which is what anomalib exports."""
    if isinstance(transform, Compose):
        pairs = zip(transform.transforms, default.transforms, strict=True)
        parts = [_exportable(part, exported) for part, exported in pairs]
        return nn.Sequential(*parts) if parts != list(default.transforms) else default
    fixed = isinstance(transform, ResizeTransform) and transform.size is not None and len(transform.size) == 2
    if fixed and transform.antialias and transform.interpolation == InterpolationMode.BICUBIC:
        return Resize(tuple(transform.size))
    return default


class AntialiasedPreProcessor(PreProcessor):
    """A ``PreProcessor`` that keeps the antialiasing of bicubic resizing in exported graphs.

    Args:
        transform: Transforms of the images; those that are not such a resize are exported as anomalib does.
    """

    def __init__(self, transform: Transform | None = None) -> None:
        super().__init__(transform)
        self.export_transform = _exportable(self.transform, self.export_transform)

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore the transforms that :meth:`checkpoint_config` gave."""
        super().load_checkpoint_config(config)
        self.export_transform = _exportable(self.transform, self.export_transform)
