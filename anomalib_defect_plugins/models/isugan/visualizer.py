"""Visualisation with the repaired image beside the anomaly map."""

import torch
from anomalib.visualization.image.functional import add_text_to_image, create_image_grid
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from anomalib_defect_plugins.models.components.visualizer import CheckedVisualizer, Item
from anomalib_defect_plugins.models.isugan.dataclasses import NumpyRepairedItem, RepairedItem


class RepairVisualizer(CheckedVisualizer):
    """anomalib's image visualizer, with the repaired image between the fields and the overlays.

    The arguments are anomalib's.
    """

    def draw(self, item: Item) -> Image.Image | None:
        """Draw the fields, the repaired image and the overlays of a sample side by side."""
        fields, overlays = self.panels(item, self.fields, []), self.panels(item, [], self.overlay_fields)
        strips = [strip for strip in (fields, self._repaired(item), overlays) if strip is not None]
        width, height = self.field_size
        panels = [
            strip.crop((left, 0, left + width, height)) for strip in strips for left in range(0, strip.width, width)
        ]
        return create_image_grid(panels, nrow=len(panels)) if panels else None

    def _repaired(self, item: Item) -> Image.Image | None:
        if not isinstance(item, RepairedItem | NumpyRepairedItem) or item.repaired is None:
            return None
        pixels = torch.as_tensor(item.repaired).detach().float().cpu()
        image = to_pil_image(pixels.reshape(-1, *pixels.shape[-2:])).convert("RGB").resize(self.field_size)
        text = dict(self.text_config)
        return add_text_to_image(image, "Repaired", **text) if text.pop("enable", True) else image
