"""Inspection of an image tile by tile and within a region of interest.

A wide image is divided into strips of columns, and each of them into bands of rows. Neither the image, unless its
format demands it, nor its map is ever in memory as a whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from anomalib_defect_plugins.core.files import atomic_path
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.image_rows import RowImage, Rows, open_rows, rows_at_once, write_grey_png
from anomalib_defect_plugins.core.mask_io import Marks
from anomalib_defect_plugins.core.region_masks import RegionMasks, resize_rows
from anomalib_defect_plugins.core.tiling import Box, starts, strips, weights_of
from anomalib_defect_plugins.core.value_range import uses_little_range

if TYPE_CHECKING:
    from typing_extensions import Self

Floats = npt.NDArray[np.float32]

Outputs = dict[str, npt.NDArray[Any]]

STRIP = 4096
"""Lowest number of columns of a strip. A wider image is decoded once for each of its strips."""

NOTHING = np.nan
"""Value of a map outside the region until the lowest value inside is known."""


@dataclass(frozen=True)
class WholeImageSettings:
    """How images are split.

    Args:
        tile: Side of a tile; ``None`` for one tile, the image.
        overlap: Lowest number of pixels that neighbouring tiles share.
        batch: Number of tiles that are inferred at once.
        regions: Regions of interest, if there are any.
        size: Height and width that the graph takes, if fixed.
    """

    tile: int | None
    overlap: int
    batch: int
    regions: RegionMasks | None
    size: Size | None


class WholeImage:
    """An image that is being inspected.

    Args:
        path: The image file.
        settings: How it is split.
        infer: Function that returns the outputs of the graph for images, shape (N, 3, H, W).
        map_path: PNG file of its map, as in :func:`pictures.write_map`; ``None`` if maps are not kept.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        has_little_range: Whether the first tiles are almost black or almost white; see :func:`uses_little_range`.
    """

    def __init__(
        self, path: Path, settings: WholeImageSettings, infer: Callable[[Floats], Outputs], map_path: Path | None
    ) -> None:
        self.path = path
        self.settings = settings
        self.infer = infer
        self.map_path = map_path
        self.rows: RowImage = open_rows(path)
        self.width, self.height = self.rows.width, self.rows.height
        self.region = None if settings.regions is None else settings.regions(path)
        self.has_little_range = False

    def inspect(self, is_raw: bool) -> tuple[float, bool]:
        """Inspect the image, and write its map.

        Args:
            is_raw: Whether maps are not normalised.

        Returns:
            The highest score of all tiles, and whether one of them has the label 1.
        """
        scores, labels = [-np.inf], [False]
        self.colour = self._colour()
        side = self.settings.tile or max(self.height, self.width)
        with MapFile(self.map_path, self.width, self.height) as file:
            for columns, lefts in strips(self.width, side, self.settings.overlap, STRIP):
                # Tiles that begin in the strip before this one have been scored there.
                needed = lefts if self.map_path is not None else [left for left in lefts if left >= columns.start]
                for top, outputs, band in self._bands(columns, needed, side):
                    for output in outputs:
                        scores.extend(output["pred_score"].reshape(-1).tolist())
                        labels.extend(output.get("pred_label", np.zeros(1)).reshape(-1).astype(bool).tolist())
                    file.add(band, top, columns.start)
            file.finish(is_raw)
        # A score that is not a number must not be lost in the comparison.
        return float(np.max(scores)), any(labels)

    def _bands(self, columns: slice, lefts: list[int], side: int) -> Iterator[tuple[int, list[Outputs], Floats]]:
        """Yield the outputs for each row of tiles of a strip, and the rows of its map that no later tile covers.

        Args:
            columns: Columns of the strip.
            lefts: First columns of the tiles.
            side: Side of a tile.
        """
        part = slice(lefts[0], min(lefts[-1] + side, self.width))
        tops = starts(self.height, side, self.settings.overlap)
        blend = BandBlend(self.height, self.width, part, side, self.settings.overlap)
        rows, end = np.empty((3, min(side, self.height), part.stop - part.start), np.float32), 0
        self.rows.restart()
        for top, following in zip(tops, [*tops[1:], self.height], strict=True):
            shared = end - top
            rows[:, :shared] = rows[:, rows.shape[1] - shared :].copy()
            self._read(rows[:, shared:], end, part)
            end = top + rows.shape[1]
            if top == 0 and part.start == 0:
                self.has_little_range = uses_little_range(rows)
            outputs = []
            for boxes, tiles in self._tiles(rows, top, part, lefts):
                outputs.append(self._infer(tiles, len(boxes)))
                if self.map_path is not None:
                    blend.add(boxes, outputs[-1]["anomaly_map"], tiles.shape[-2:])
            band = np.empty((0, 0), np.float32)
            if self.map_path is not None:
                band = blend.take(following - top)[:, columns.start - part.start : columns.stop - part.start]
            yield top, outputs, self._outside(band, top, columns)

    def _blocks(self, number: int) -> Iterator[tuple[slice, Rows]]:
        """Yield the next rows a few at a time, with their position."""
        step = rows_at_once(self.width)
        for start in range(0, number, step):
            stop = min(start + step, number)
            yield slice(start, stop), self.rows.read(stop - start)

    def _read(self, rows: Rows, top: int, part: slice) -> None:
        """Read the next rows of some columns, and fill them outside the region."""
        for block, values in self._blocks(rows.shape[1]):
            rows[:, block] = values[:, :, part]
            if self.colour is not None:
                inside = self._inside(top + block.start, top + block.stop, part)
                rows[:, block] = np.where(inside, rows[:, block], self.colour)

    def _colour(self) -> Floats | None:
        """Return the mean colour inside the region, shape (3, 1, 1)."""
        if self.region is None:
            return None
        total, number = np.zeros(3), 0
        for block, values in self._blocks(self.height):
            inside = self._inside(block.start, block.stop, slice(None))
            total += (values * inside).sum((1, 2), dtype=np.float64)
            number += int(inside.sum())
        return (total / number).astype(np.float32)[:, None, None]

    def _inside(self, top: int, bottom: int, columns: slice) -> Marks:
        return resize_rows(cast(Marks, self.region), self.height, self.width, top, bottom)[:, columns]

    def _outside(self, band: Floats, top: int, columns: slice) -> Floats:
        if self.region is None or not band.size:
            return band
        return np.where(self._inside(top, top + len(band), columns), band, NOTHING)

    def _tiles(self, rows: Rows, top: int, part: slice, lefts: list[int]) -> Iterator[tuple[list[Box], Floats]]:
        """Yield batches of tiles of one row, without those outside the region; ``rows`` has the columns ``part``."""
        side = self.settings.tile or max(self.height, self.width)
        bottom = top + rows.shape[1]
        boxes = [Box(top, left, bottom, min(left + side, self.width)) for left in lefts]
        if self.region is not None:
            inside = self._inside(top, bottom, slice(None))
            boxes = [box for box in boxes if inside[:, box.columns].any()]
        for start in range(0, len(boxes), self.settings.batch):
            batch = boxes[start : start + self.settings.batch]
            tiles = (rows[:, :, box.left - part.start : box.right - part.start] for box in batch)
            yield batch, np.stack([self._padded(tile) for tile in tiles])

    def _padded(self, tile: Rows) -> Rows:
        """Repeat the last row and column of a tile up to its size."""
        side = self.settings.tile
        if side is None:
            return tile
        missing = ((0, 0), (0, side - tile.shape[1]), (0, side - tile.shape[2]))
        return np.pad(tile, missing, mode="edge")

    def _infer(self, tiles: Floats, number: int) -> Outputs:
        """Infer tiles at the size and batch size of the graph, and return the outputs for them."""
        size = self.settings.size
        if size is not None:
            tiles = np.stack([np.stack([resized(plane, size) for plane in tile]) for tile in tiles])
        missing = self.settings.batch - number
        outputs = self.infer(np.ascontiguousarray(np.concatenate([tiles, np.repeat(tiles[-1:], missing, 0)])))
        return {name: values[:number] for name, values in outputs.items()}


def resized(plane: Floats, size: Size) -> Floats:
    """Resize values, shape (H, W), bilinearly, with antialiasing if they shrink."""
    if plane.shape == size:
        return plane
    values: Floats = np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR))
    return values


class BandBlend:
    """Joins the maps of rows of tiles: where tiles overlap, by their weighted mean.

    Args:
        height: Height of the image.
        width: Width of the image.
        part: Columns that the tiles cover.
        side: Side of a tile.
        overlap: Lowest number of pixels that neighbouring tiles share.
    """

    def __init__(self, height: int, width: int, part: slice, side: int, overlap: int) -> None:
        self.height, self.width, self.overlap = height, width, overlap
        self.left = part.start
        self.values: Floats = np.zeros((min(side, height), part.stop - part.start), np.float32)
        self.weights: Floats = np.zeros_like(self.values)

    def add(self, boxes: list[Box], maps: npt.NDArray[Any], size: Size) -> None:
        """Add the maps of tiles of one row, which starts at the first row that was not taken.

        Args:
            boxes: The tiles.
            maps: Their maps, shape (N, 1, h, w) or (N, h, w).
            size: Height and width of the tiles that the graph was passed.
        """
        for box, values in zip(boxes, maps.reshape(len(boxes), *maps.shape[-2:]), strict=True):
            weights = weights_of(box, self.height, self.width, self.overlap)
            whole = resized(np.ascontiguousarray(values, np.float32), size)[: weights.shape[0], : weights.shape[1]]
            columns = slice(box.left - self.left, box.right - self.left)
            self.values[: len(weights), columns] += weights * whole
            self.weights[: len(weights), columns] += weights

    def take(self, number: int) -> Floats:
        """Remove the first rows, and return them; without any tile they are not a number."""
        with np.errstate(invalid="ignore"):
            taken: Floats = self.values[:number] / self.weights[:number]
        for values in (self.values, self.weights):
            values[: len(values) - number] = values[number:].copy()
            values[len(values) - number :] = 0
        return taken


class MapFile:
    """An anomaly map that is written part by part: an 8-bit PNG of [0, 1], or if that loses values, a float TIFF.

    Args:
        path: PNG file, as in :func:`pictures.write_map`; ``None`` to write nothing.
        width: Width of the map.
        height: Height of the map.
    """

    def __init__(self, path: Path | None, width: int, height: int) -> None:
        self.path = path
        self.width = width
        self.height = height
        self.step = rows_at_once(width)
        self.low, self.high = np.inf, -np.inf

    def __enter__(self) -> "Self":
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.temporary = self.path.with_name(f".{self.path.name}.values")
            self.file = self.temporary.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self.path is not None:
            self.file.close()
            self.temporary.unlink(missing_ok=True)

    def add(self, band: Floats, top: int, left: int) -> None:
        """Write a part of the map, shape (h, w), whose first pixel is at ``top`` and ``left``."""
        if self.path is None or not band.size:
            return
        if not np.isnan(band).all():
            self.low, self.high = min(self.low, float(np.nanmin(band))), max(self.high, float(np.nanmax(band)))
        for row, values in enumerate(band.astype(np.float32), top):
            self.file.seek(4 * (row * self.width + left))
            self.file.write(values.tobytes())

    def finish(self, is_raw: bool) -> None:
        """Write the map in its format; values that are not a number become the lowest one."""
        if self.path is None:
            return
        self.file.close()
        if is_raw or self.low < 0 or self.high > 1:
            with atomic_path(self.path.with_suffix(".tiff")) as partial:
                shape = (self.height, self.width)
                tifffile.imwrite(partial, self._read(), shape=shape, dtype=np.float32, rowsperstrip=self.step)
        else:
            with atomic_path(self.path.with_suffix(".png")) as partial:
                grey = ((rows * 255).round().astype(np.uint8) for rows in self._read())
                write_grey_png(partial, self.width, self.height, grey)

    def _read(self) -> Iterator[Floats]:
        for top in range(0, self.height, self.step):
            number = min(self.step, self.height - top) * self.width
            values = np.fromfile(self.temporary, np.float32, number, offset=4 * top * self.width)
            yield np.nan_to_num(values.reshape(-1, self.width), nan=self.low if np.isfinite(self.low) else 0)
