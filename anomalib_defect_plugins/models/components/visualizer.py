"""anomalib's image visualizer, with images as the readers of this package read them."""

import copy
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from anomalib.visualization.image.item_visualizer import visualize_image_item
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from anomalib_defect_plugins.core.image_io import is_read_otherwise, read_image
from anomalib_defect_plugins.models.components.checks import datamodule_of

Item = ImageItem | NumpyImageItem
ItemBatch = ImageBatch | NumpyImageBatch


class CheckedVisualizer(ImageVisualizer):
    """anomalib's image visualizer, which would show 16 bits white, ignore orientation tags, or fail to open a file.

    The arguments are anomalib's.
    """

    def visualize(self, predictions: Item | ItemBatch) -> Image.Image | list[Image.Image | None] | None:
        """Draw a sample or a batch, as in anomalib."""
        if isinstance(predictions, Item):
            return self.draw(predictions)
        images = [self.draw(item) for item in predictions]
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
            image = self.draw(item)
            if image is not None:
                image.save(generate_output_filename(item.image_path or "", self.output_dir, name, category))

    def draw(self, item: Item) -> Image.Image | None:
        """Draw the fields and overlays of a sample side by side; ``None`` if it has none of them."""
        return self.panels(item, self.fields, self.overlay_fields)

    def panels(self, item: Item, fields: list[str], overlays: list[tuple[str, list[str]]]) -> Image.Image | None:
        """Draw some fields and overlays of a sample side by side; ``None`` if it has none of them."""
        settings = (self.field_size, self.fields_config, self.overlay_fields_config, self.text_config)
        return visualize_image_item(_with_image(item), fields, overlays, *settings)


def _with_image(item: Item) -> Item:
    """Return a sample from which anomalib draws the image, as it is before pre-processing."""
    path = item.image_path
    if not isinstance(item, ImageItem) or not path or not Path(path).is_file() or not is_read_otherwise(path):
        return item
    shown = copy.copy(item)
    shown.image_path = None
    shown.image = torch.from_numpy(read_image(path)[0])
    return shown
