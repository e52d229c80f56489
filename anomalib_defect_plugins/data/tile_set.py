"""Training sets of tiles: all tiles of normal images, and windows around defects."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from scipy import ndimage
from torch.nn import functional as F
from torch.utils.data import Sampler
from torchvision.tv_tensors import Image, Mask

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.image_io import read_size
from anomalib_defect_plugins.core.mask_io import Marks
from anomalib_defect_plugins.core.region_masks import resize_region
from anomalib_defect_plugins.core.tiling import Box, grid
from anomalib_defect_plugins.data.dataclasses import GOOD, DefectItem
from anomalib_defect_plugins.data.mask_resize import augment
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.data.with_region import RegionSet
from anomalib_defect_plugins.data.wrapped_dataset import WrappedDataset, defect_item
from anomalib_defect_plugins.layers.restricted_forward import pad

CACHED_PIXELS = 1 << 24
"""Number of pixels of whole images that a process keeps while their tiles are read; at least one image."""

MAX_DEFECTS = 32
"""Maximum number of defects of an image around which windows are cut."""


class TileSet(WrappedDataset):
    """Tiles of the images of a data set.

    Normal images, and defective ones where nothing is marked, are split into the tiles of a grid. Windows are cut at
    random positions around each defect, so that small defects are as frequent as large ones.

    Args:
        dataset: Data set to wrap. Its defective images need masks.
        size: Side of a tile in pixels.
        overlap: Lowest number of pixels that neighbouring tiles share.
        per_image: Maximum number of tiles of the grid that are used of each image; ``None`` for all.
        per_defect: Number of windows around each defect.
        seed: Seed of the selection of tiles and windows.

    Attributes:
        samples: Table of the tiles, with the columns ``row``, of the image in ``dataset``, ``tile_top`` and
            ``tile_left``.
    """

    def __init__(
        self, dataset: AnomalibDataset, size: int, overlap: int, per_image: int | None, per_defect: int, seed: int
    ) -> None:
        super().__init__(dataset)
        self.size = size
        self.overlap = overlap
        self.per_image = per_image
        self.per_defect = per_defect
        self._rng = np.random.default_rng(seed)
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._sizes = self._read_sizes()
        attrs = dataset.samples.attrs
        self._table = with_defect_types(dataset.samples)
        self._samples = pd.DataFrame([tile for row in range(len(dataset)) for tile in self._tiles(row)])
        self._samples.attrs = attrs

    def _read_sizes(self) -> list[tuple[int, int]]:
        """Return height and width of all images; of the files, unless the data set resizes or crops them."""
        paths = self.dataset.samples.image_path
        if not len(paths):
            return []
        sizes = [read_size(path)[::-1] for path in paths]
        first: tuple[int, int] = tuple(self.load_whole(0).image.shape[-2:])
        is_unchanged = first == tuple(sizes[0])
        if is_unchanged:
            return [(height, width) for height, width in sizes]
        return [tuple(self.load_whole(row).image.shape[-2:]) for row in range(len(paths))]

    def _tiles(self, row: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of the table for an image."""
        sample = self._table.iloc[row].to_dict()
        boxes = list(grid(*self._sizes[row], self.size, self.overlap))
        inside = self._inside(row)
        if inside is not None:
            boxes = [box for box in boxes if inside[box.rows, box.columns].any()]
        marks = self._marks(row) if sample["label_index"] == LabelName.ABNORMAL else None
        if marks is not None:
            boxes = [box for box in boxes if not marks[box.rows, box.columns].any()]
            for top, left in self._windows(marks):
                yield {**sample, "row": row, "tile_top": top, "tile_left": left}
        if self.per_image is not None and len(boxes) > self.per_image:
            boxes = [boxes[index] for index in sorted(self._rng.permutation(len(boxes))[: self.per_image])]
        normal = {"label_index": int(LabelName.NORMAL), "defect_type": GOOD, "mask_path": ""}
        if marks is not None and "label" in sample:
            normal["label"] = LabelName.NORMAL.name.lower()
        for box in boxes:
            yield {**sample, **normal, "row": row, "tile_top": box.top, "tile_left": box.left}

    def _inside(self, row: int) -> Marks | None:
        if not isinstance(self.dataset, RegionSet):
            return None
        return resize_region(self.dataset.regions(self.dataset.samples.image_path.iloc[row]), *self._sizes[row])

    def _marks(self, row: int) -> Marks:
        mask = self.load_whole(row).gt_mask
        if mask is None:
            path = self.dataset.samples.image_path.iloc[row]
            msg = f"{path} is defective and has no mask, so that its normal tiles are unknown: use data with masks, "
            raise ConfigurationError(msg + "or train on normal images only")
        marks: Marks = mask.numpy() > 0
        return marks

    def _windows(self, marks: Marks) -> Iterator[tuple[int, int]]:
        """Yield the first row and column of windows around the defects of a mask."""
        regions, _ = ndimage.label(marks, np.ones((3, 3)))
        defects = ndimage.find_objects(regions)
        for index in sorted(self._rng.permutation(len(defects))[:MAX_DEFECTS]):
            for _ in range(self.per_defect):
                rows, columns = self._visible_part(regions[defects[index]] == index + 1, defects[index])
                yield self._start(rows, marks.shape[0]), self._start(columns, marks.shape[1])

    def _visible_part(self, defect: Marks, bounds: tuple[slice, slice]) -> tuple[slice, slice]:
        """Return the bounds of a defect, or if it does not fit into a window, of one of its pixels."""
        if max(defect.shape) <= self.size:
            return bounds
        pixels = np.argwhere(defect)
        top, left = pixels[self._rng.integers(len(pixels))] + [side.start for side in bounds]
        return slice(top, top + 1), slice(left, left + 1)

    def _start(self, part: slice, length: int) -> int:
        """Draw the start of a window that contains a part of a side."""
        low, high = max(0, part.stop - self.size), min(part.start, max(0, length - self.size))
        return int(self._rng.integers(min(low, high), max(low, high) + 1))

    @property
    def images_at_once(self) -> int:
        """Number of whole images that are kept in memory."""
        largest = max((height * width for height, width in self._sizes), default=1)
        return max(1, CACHED_PIXELS // largest)

    def __getitem__(self, index: int) -> DefectItem:
        """Load a tile: image, shape (3, size, size), and mask, shape (size, size), bool."""
        row = self.samples.iloc[index]
        item, size = self._load_cached(int(row.row)), self.size
        box = Box(row.tile_top, row.tile_left, row.tile_top + size, row.tile_left + size)
        image = Image(pad(item.image[:, box.rows, box.columns], size))
        mask = None if item.gt_mask is None else _crop_mask(item.gt_mask, box)
        ignored = getattr(item, "ignore_mask", None)
        ignored = None if ignored is None else _crop_mask(ignored, box)
        if self.augmentations:
            image, mask, ignored = augment(self.augmentations, image, mask, ignored)
        label = torch.tensor(int(row.label_index))
        changes = {"image": image, "gt_mask": mask, "gt_label": label, "mask_path": row.mask_path or ""}
        changes["ignore_mask"] = None if ignored is None else ignored.bool()
        return defect_item(item, defect_type=row.defect_type, **changes)

    def _load_cached(self, row: int) -> Any:
        if row not in self._cache:
            while len(self._cache) >= self.images_at_once:
                self._cache.popitem(last=False)
            self._cache[row] = self.load_whole(row)
        self._cache.move_to_end(row)
        return self._cache[row]

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker process needs."""
        return {**vars(self), "_cache": OrderedDict()}


def _crop_mask(mask: Any, box: Box) -> Mask:
    cropped = mask[box.rows, box.columns].to(torch.uint8)
    height, width = cropped.shape
    return Mask(F.pad(cropped, (0, box.right - box.left - width, 0, box.bottom - box.top - height)))


class ByImage(Sampler[int]):
    """Orders the tiles that another sampler draws, so that whole images are read once in an epoch.

    The tiles of a few images, which are drawn at random, are shuffled at a time.

    Args:
        sampler: Sampler of tiles.
        image_of: Number of the image of each tile.
        at_once: Number of images whose tiles are shuffled.
    """

    def __init__(self, sampler: Any, image_of: Sequence[int], at_once: int) -> None:
        self.sampler = sampler
        self.image_of = np.asarray(image_of)
        self.at_once = at_once

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        drawn: npt.NDArray[np.int64] = np.array(list(self.sampler), np.int64)
        images = torch.randperm(int(self.image_of.max()) + 1).numpy()
        group = images[self.image_of[drawn]] // self.at_once
        order = torch.randperm(len(drawn)).numpy()
        yield from drawn[order[np.argsort(group[order], kind="stable")]].tolist()
