"""``WithTiles`` trains and evaluates any model on tiles of the images of any data module."""

import logging
from typing import Any, ClassVar, cast

from anomalib.data import AnomalibDataModule
from anomalib.models import Cflow, Padim
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.checks import check_positive
from anomalib_defect_plugins.core.tiling import check_tiles
from anomalib_defect_plugins.data.restriction import set_region, start_tiling, stop_tiling
from anomalib_defect_plugins.data.stock_datasets import checked
from anomalib_defect_plugins.data.tile_set import ByImage, TileSet
from anomalib_defect_plugins.data.with_region import WithRegion
from anomalib_defect_plugins.data.wrapped_dataset import subset_names
from anomalib_defect_plugins.data.wrapping import OuterDataModule
from anomalib_defect_plugins.layers.restricted_forward import reduction

logger = logging.getLogger(__name__)

MODELS_WITH_POSITIONS = (Padim, Cflow)
"""Models of anomalib that treat the same texture differently at each position in an image."""


class WithTiles(OuterDataModule):
    """Any data module, in tiles at the resolution of its images.

    Training images are cut into tiles, which the model resizes to its own size. Defective ones, which need masks, are
    cut into windows around each defect and the tiles without any. Validation and test images stay whole: the model
    evaluates them tile by tile, maps are blended where tiles overlap, and the score of an image is the highest one of
    its tiles. A trained model, and its exported graph, takes tiles: ``anomalib-defects inspect --tile`` splits images
    as here.

    Args:
        base: Data module to wrap: an instance, or a mapping with ``class_path`` and ``init_args``. ``WithDefects`` and
            ``WithRegion`` are wrapped, and do not wrap.
        size: Side of a tile in pixels. Smaller images are enlarged by repeating their last row and column.
        overlap: Lowest number of pixels that neighbouring tiles share, up to half of ``size``; by default a quarter.
        per_image: Maximum number of normal tiles of each training image, drawn at random; by default all of them.
        per_defect: Number of windows around each defect of a training image.
        max_map_pixels: Maximum pixels of the maps that the trainer's metrics and thresholds are computed from, which
            store all of them. Larger maps and masks are reduced by a whole number; their highest values stay.
        seed: As in ``WithDefects``.

    Raises:
        InvalidInputError: If an argument is invalid.
        ConfigurationError: On setup, if a defective training image has no mask.
    """

    order: ClassVar[int] = 2

    def __init__(
        self,
        base: AnomalibDataModule,
        size: int = 256,
        overlap: int | None = None,
        per_image: int | None = None,
        per_defect: int = 4,
        max_map_pixels: int = 2_000_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(base, seed)
        self.size = size
        self.overlap = size // 4 if overlap is None else overlap
        check_tiles(size, self.overlap)
        check_positive(per_image=1 if per_image is None else per_image, per_defect=per_defect)
        check_positive(max_map_pixels=max_map_pixels)
        self.per_image = per_image
        self.per_defect = per_defect
        self.max_map_pixels = max_map_pixels
        self.tile_batch_size = self.eval_batch_size
        self.eval_batch_size = 1

    @property
    def _tiles_base(self) -> AnomalibDataModule:
        """The data module that batches come from: without the region, which applies to whole images."""
        return self.base.base if isinstance(self.base, WithRegion) else self.base

    def _setup(self, stage: str | None = None) -> None:
        self.base.setup(stage)
        for name in subset_names(self.base):
            subset = checked(getattr(self.base, f"{name}_data"))
            if name == "train":
                amounts = (self.size, self.overlap, self.per_image, self.per_defect, self.seed or 0)
                subset = TileSet(subset, *amounts)
            setattr(self, f"{name}_data", subset)

    def _update_augmentations(self) -> None:
        """Resize tiles for the model as anomalib does, and leave whole images as they are."""
        super()._update_augmentations()
        for name in subset_names(self, ("val", "test")):
            getattr(self, f"{name}_data").augmentations = getattr(self, f"{name}_augmentations")

    def setup(self, stage: str | None = None) -> None:
        """Set up the splits, and make the model of the trainer evaluate tiles."""
        super().setup(stage)
        model = getattr(self.trainer, "lightning_module", None)
        if model is not None:
            if isinstance(self.base, WithRegion):
                self.base.restrict(model)
            if stage == "fit" and isinstance(model, MODELS_WITH_POSITIONS):
                logger.warning(
                    "%s uses the position in an image, which in a tile says nothing about the part: its maps depend on "
                    "where tiles start. For tiles, prefer a model without positions, such as Patchcore.",
                    type(model).__name__,
                )
            if stage == "fit" and getattr(model, "uses_positions", False):
                logger.warning(
                    "%s subtracts the mean feature at each position, which in a tile says nothing about the part: pass "
                    "--model.position_means false",
                    type(model).__name__,
                )
            start_tiling(model, self.size, self.overlap, self.tile_batch_size, self.max_map_pixels)

    def teardown(self, stage: str | None = None) -> None:
        """Make the model take single tiles again."""
        super().teardown(stage)  # type: ignore[arg-type]
        model = getattr(self.trainer, "lightning_module", None)
        if model is not None:
            stop_tiling(model)
            if isinstance(self.base, WithRegion):
                set_region(model, None)

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the batches of training tiles."""
        loader = super().train_dataloader()
        tiles = cast(TileSet, self.train_data)
        order = ByImage(loader.sampler, tiles.samples.row, tiles.images_at_once)
        settings = {name: getattr(loader, name) for name in ("batch_size", "num_workers", "collate_fn")}
        return DataLoader(loader.dataset, sampler=order, **settings)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Draw the synthetic defects that a training batch still needs; reduce masks to the size of maps."""
        self._tiles_base.trainer = self.trainer
        if self.trainer is not None and self.trainer.training:
            return self._tiles_base.on_after_batch_transfer(batch, dataloader_idx)
        if isinstance(self.base, WithRegion):
            self.base.note_regions(batch)
        if batch.gt_mask is not None:
            height, width = batch.gt_mask.shape[-2:]
            factor = reduction(height, width, self.max_map_pixels)
            batch.gt_mask = Mask(F.max_pool2d(batch.gt_mask.float(), factor, ceil_mode=True) > 0)
        return batch
