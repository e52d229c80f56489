"""Visualisation with the repaired image beside the anomaly map."""

from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from anomalib.visualization.image.functional import add_text_to_image, create_image_grid
from anomalib.visualization.image.item_visualizer import visualize_image_item
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from anomalib_defect_plugins.models.components.checks import datamodule_of
from anomalib_defect_plugins.models.isugan.dataclasses import NumpyRepairedItem, RepairedItem

Item = ImageItem | NumpyImageItem
ItemBatch = ImageBatch | NumpyImageBatch


class RepairVisualizer(ImageVisualizer):
    """anomalib's image visualizer, with the repaired image between the fields and the overlays.

    The arguments are anomalib's.
    """

    def visualize(self, predictions: Item | ItemBatch) -> Image.Image | list[Image.Image | None] | None:
        """Draw a sample or a batch, as in anomalib."""
        if isinstance(predictions, Item):
            return self._draw(predictions)
        images = [self._draw(item) for item in predictions]
        return images[0] if len(images) == 1 else images

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one file per image of the batch, named as by anomalib."""
        del pl_module, outputs, batch_idx, dataloader_idx
        if self.output_dir is None:
            self.output_dir = Path(trainer.default_root_dir) / "images"
        datamodule = datamodule_of(trainer)
        name, category = getattr(datamodule, "name", None), getattr(datamodule, "category", None)
        for item in batch:
            image = self._draw(item)
            if image is not None:
                image.save(generate_output_filename(item.image_path or "", self.output_dir, name, category))

    def _draw(self, item: Item) -> Image.Image | None:
        fields, overlays = self._panels(item, self.fields, []), self._panels(item, [], self.overlay_fields)
        strips = [strip for strip in (fields, self._repaired(item), overlays) if strip is not None]
        width, height = self.field_size
        panels = [
            strip.crop((left, 0, left + width, height)) for strip in strips for left in range(0, strip.width, width)
        ]
        return create_image_grid(panels, nrow=len(panels)) if panels else None

    def _panels(self, item: Item, fields: list[str], overlays: list[tuple[str, list[str]]]) -> Image.Image | None:
        settings = (self.field_size, self.fields_config, self.overlay_fields_config, self.text_config)
        return visualize_image_item(item, fields, overlays, *settings)

    def _repaired(self, item: Item) -> Image.Image | None:
        if not isinstance(item, RepairedItem | NumpyRepairedItem) or item.repaired is None:
            return None
        pixels = torch.as_tensor(item.repaired).detach().float().cpu()
        image = to_pil_image(pixels.reshape(-1, *pixels.shape[-2:])).convert("RGB").resize(self.field_size)
        text = dict(self.text_config)
        return add_text_to_image(image, "Repaired", **text) if text.pop("enable", True) else image
