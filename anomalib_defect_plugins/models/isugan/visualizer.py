"""Pictures with the repaired image beside the anomaly map."""

from pathlib import Path

from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from anomalib.models.components import AnomalibModule
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from anomalib.visualization.image.functional import add_text_to_image, create_image_grid
from anomalib.visualization.image.item_visualizer import visualize_image_item
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

Item = ImageItem | NumpyImageItem
ItemBatch = ImageBatch | NumpyImageBatch


class RepairVisualizer(ImageVisualizer):
    """anomalib's pictures, with the repaired image between the fields and the overlays.

    The arguments are anomalib's.
    """

    def visualize(self, predictions: Item | ItemBatch) -> Image.Image | list[Image.Image | None] | None:
        """Draw a sample or a batch, as in anomalib."""
        if isinstance(predictions, Item):
            return self._picture(predictions)
        pictures = [self._picture(item) for item in predictions]
        return pictures[0] if len(pictures) == 1 else pictures

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnomalibModule,
        outputs: ImageBatch,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a picture of each image of the batch; where to, anomalib decides."""
        del pl_module, outputs, batch_idx, dataloader_idx
        if self.output_dir is None:
            self.output_dir = Path(trainer.default_root_dir) / "images"
        for item in batch:
            picture = self._picture(item)
            if picture is not None:
                datamodule = getattr(trainer, "datamodule", None)
                names = (getattr(datamodule, name, None) for name in ("name", "category"))
                picture.save(generate_output_filename(item.image_path or "", self.output_dir, *names))

    def _picture(self, item: Item) -> Image.Image | None:
        fields, overlays = self._part(item, self.fields, []), self._part(item, [], self.overlay_fields)
        parts = [part for part in (fields, self._repaired(item), overlays) if part is not None]
        tile = self.field_size
        tiles = [
            part.crop((left, 0, left + tile[0], tile[1])) for part in parts for left in range(0, part.width, tile[0])
        ]
        return create_image_grid(tiles, nrow=len(tiles)) if tiles else None

    def _part(self, item: Item, fields: list[str], overlays: list[tuple[str, list[str]]]) -> Image.Image | None:
        settings = (self.field_size, self.fields_config, self.overlay_fields_config, self.text_config)
        return visualize_image_item(item, fields, overlays, *settings)

    def _repaired(self, item: Item) -> Image.Image | None:
        repaired = getattr(item, "repaired", None)
        if repaired is None:
            return None
        pixels = repaired.detach().float().cpu() if isinstance(repaired, Tensor) else Tensor(repaired)
        image = to_pil_image(pixels.reshape(-1, *pixels.shape[-2:])).convert("RGB").resize(self.field_size)
        text = dict(self.text_config)
        return add_text_to_image(image, "Repaired", **text) if text.pop("enable", True) else image
