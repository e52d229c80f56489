"""Items and batches of anomalib with the type of each defect."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from torch import Tensor
from torchvision.tv_tensors import Image, Mask

from anomalib_defect_plugins.core.errors import ConfigurationError

GOOD = "good"
"""Defect type of a normal image."""

SEPARATOR = "+"
"""Joins the types of an image with defects of several types: ``crack+efflorescence``."""


@dataclass
class NumpyDefectItem(NumpyImageItem):
    """A sample as arrays."""

    defect_type: str | None = None
    needs_synthetic_defect: bool | None = None
    ignore_mask: object | None = None


@dataclass
class NumpyDefectBatch(NumpyImageBatch):
    """A batch as arrays."""

    item_class: ClassVar[type[NumpyDefectItem]] = NumpyDefectItem

    defect_type: list[str] | None = None
    needs_synthetic_defect: object | None = None
    ignore_mask: object | None = None


@dataclass
class DefectItem(ImageItem):
    """A sample.

    Attributes:
        defect_type: Defect type, ``good`` for a normal image; several types are joined by ``+``.
        needs_synthetic_defect: Whether a synthetic defect is to be drawn once its batch is on the training device.
        ignore_mask: Pixels that are neither defective nor normal, shape (H, W), bool, in data sets that know any.
    """

    numpy_class: ClassVar[type[NumpyDefectItem]] = NumpyDefectItem

    defect_type: str | None = None
    needs_synthetic_defect: bool | None = None
    ignore_mask: Mask | None = None


@dataclass
class DefectBatch(ImageBatch):
    """A batch.

    ``image`` and ``gt_mask`` of images of different sizes are lists until the model's pre-processor has resized each of
    them as it would alone; assigning images of one size stacks them. anomalib's ``ImageBatch`` resizes them to the size
    of the largest instead, so that the result for an image depends on its neighbours and thin defects vanish. A batch
    with a defective image whose mask is not known has no ``gt_mask``.

    Attributes:
        defect_type: Defect type of each image, ``good`` for a normal one; several types are joined by ``+``.
        needs_synthetic_defect: Images that a synthetic defect is still to be drawn on, shape (B,), bool.
        ignore_mask: Pixels that are neither defective nor normal, shape (B, H, W), bool, or a list.
    """

    item_class: ClassVar[type[DefectItem]] = DefectItem
    numpy_class: ClassVar[type[NumpyDefectBatch]] = NumpyDefectBatch

    defect_type: list[str] | None = None
    needs_synthetic_defect: Tensor | None = None
    ignore_mask: Tensor | list[Tensor] | None = None

    @classmethod
    def collate(cls, items: list[ImageItem]) -> "DefectBatch":
        """Collate items; see the class for images of different sizes, and without masks."""
        if any(item.gt_mask is None for item in items):
            items = [replace(item, gt_mask=None) for item in items]
        names = ("image", "gt_mask", "ignore_mask")
        images, masks, ignored = ([getattr(item, name, None) for item in items] for name in names)
        if not is_mixed(images):
            return cast(DefectBatch, super().collate(items))
        # anomalib's method collates the other fields.
        batch = cast(DefectBatch, super().collate([_first_pixel(item) for item in items]))
        batch.image = images
        batch.gt_mask = None if batch.gt_mask is None else masks
        batch.ignore_mask = None if batch.ignore_mask is None else cast("list[Tensor]", ignored)
        return batch

    def __getitem__(self, key: str) -> Any:
        """Return a field, as anomalib does to quantise a model.

        Raises:
            ConfigurationError: If it is a list of images of different sizes.
        """
        value = super().__getitem__(key)
        if is_mixed(value):
            msg = f"a batch has {two_sizes(value)}, which are not quantised together: set eval_batch_size to 1"
            raise ConfigurationError(msg)
        return value

    @staticmethod
    def validate_image(image: Tensor | Sequence[Tensor]) -> Any:
        """Return images of one size as a batch, shape (B, 3, H, W), float, or else as a list."""
        if is_mixed(image):
            return [Image(one, dtype=torch.float32) for one in image]
        return ImageBatch.validate_image(_stacked(image))

    @staticmethod
    def validate_gt_mask(gt_mask: Tensor | Sequence[Tensor] | None) -> Any:
        """Return masks of one size as a batch, shape (B, H, W), bool, or else as a list."""
        if is_mixed(gt_mask):
            return [Mask(one, dtype=torch.bool) for one in cast(Sequence[Tensor], gt_mask)]
        return ImageBatch.validate_gt_mask(_stacked(gt_mask))


def is_mixed(images: Any) -> bool:
    """Whether images or masks are a list with different sizes."""
    return isinstance(images, list) and len({image.shape for image in images}) > 1


def two_sizes(images: Sequence[Tensor]) -> str:
    """Return the width and height of two images that differ in size, for a message."""
    first, second, *_ = sorted({f"{image.shape[-1]}x{image.shape[-2]}" for image in images})
    return f"images of {first} and {second} pixels"


def _stacked(images: Any) -> Any:
    return torch.stack(images) if isinstance(images, list) else images


def _first_pixel(item: ImageItem) -> ImageItem:
    """Return an item with its image and masks reduced to one pixel."""
    names = ("gt_mask", "ignore_mask")
    masks = {name: mask[:1, :1] for name in names if (mask := getattr(item, name, None)) is not None}
    return cast(ImageItem, replace(cast(Any, item), image=cast(Tensor, item.image)[:, :1, :1], **masks))


def split_types(defect_type: str) -> tuple[str, ...]:
    """Split a defect type into its single types; empty for ``good``."""
    return () if defect_type == GOOD else tuple(defect_type.split(SEPARATOR))
