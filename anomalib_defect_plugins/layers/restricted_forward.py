"""Evaluation of a network on tiles of an image and within a region of interest."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomalib_defect_plugins.core.tiling import Box, grid, weights_of
from anomalib_defect_plugins.layers.region import Region, resize_region


@dataclass
class Tiling:
    """How images are split.

    Attributes:
        size: Side of a tile in pixels.
        overlap: Lowest number of pixels that neighbouring tiles share.
        batch: Number of tiles that are evaluated at once.
        prepare: Pre-processing of a batch of tiles.
        max_map_pixels: Larger maps are reduced by a whole number, keeping the highest values.
        is_active: Whether the network is being passed whole images.
    """

    size: int
    overlap: int
    batch: int
    prepare: Callable[[Tensor], Tensor]
    max_map_pixels: int
    is_active: bool = False


class RestrictedForward:
    """Takes the place of the ``forward`` of a network in evaluation; parameters and their names are unchanged.

    Args:
        network: Network that returns an ``InferenceBatch`` in evaluation.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.region: Region | None = None
        self.tiling: Tiling | None = None

    def __call__(self, images: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Evaluate images, shape (B, 3, H, W)."""
        if self.network.training:
            return self._run(images, *args, **kwargs)
        if self.tiling is not None and self.tiling.is_active:
            return self._evaluate_tiles(images, self.tiling)
        output = self._run(images, *args, **kwargs)
        maps = getattr(output, "anomaly_map", None)
        if self.region is None or maps is None:
            return output
        return self.region.restrict(output, self.region.inside(maps.shape[-2], maps.shape[-1], maps.device))

    def _run(self, images: Tensor, *args: Any, **kwargs: Any) -> Any:
        return type(self.network).forward(self.network, images, *args, **kwargs)

    def _evaluate_tiles(self, images: Tensor, tiling: Tiling) -> Any:
        """Evaluate whole images, one after the other."""
        height, width = images.shape[-2:]
        inside = None if self.region is None else self.region.inside(height, width, images.device)
        regions = [None] * len(images) if inside is None else list(inside.expand(len(images), -1, -1))
        outputs = [self._evaluate(image, region, tiling) for image, region in zip(images, regions, strict=True)]
        scores = torch.stack([score for score, _ in outputs])
        maps = [joined for _, joined in outputs if joined is not None]
        if not maps:
            return self.output_type(pred_score=scores)
        factor = reduction(height, width, tiling.max_map_pixels)
        whole = torch.stack(maps)[:, None]
        return self.output_type(pred_score=scores, anomaly_map=F.max_pool2d(whole, factor, ceil_mode=True))

    def _evaluate(self, image: Tensor, region: Tensor | None, tiling: Tiling) -> tuple[Tensor, Tensor | None]:
        """Return the highest score of all tiles of an image, shape (3, H, W), and its map, shape (H, W)."""
        height, width = image.shape[-2:]
        boxes = grid(height, width, tiling.size, tiling.overlap)
        inside = (box for box in boxes if region is None or region[box.rows, box.columns].any())
        blend = Blend(height, width, tiling.overlap, image.device)
        scores: list[Tensor] = []
        while chunk := list(islice(inside, tiling.batch)):
            tiles = torch.stack([pad(image[..., box.rows, box.columns], tiling.size) for box in chunk])
            output = self._run(tiling.prepare(tiles))
            self.output_type = type(output)
            blend.add(chunk, output.anomaly_map, tiling.size)
            if self.region is not None and region is not None and output.anomaly_map is not None:
                output = self.region.restrict(output, _tiles_of(region, chunk, output.anomaly_map, tiling.size))
            scores.append(output.pred_score.flatten())
        return torch.cat(scores).amax(), blend.result(region)


def region_of(model: Any) -> Region | None:
    """Return the region of interest of a model, whose network is its attribute ``model``."""
    forward = getattr(getattr(model, "model", None), "forward", None)
    return forward.region if isinstance(forward, RestrictedForward) else None


def values_inside(model: Any, maps: Tensor) -> Tensor:
    """Return the values of a model's maps, shape (B, ..., H, W), in its region of interest, shape (N,)."""
    region = region_of(model)
    inside = None if region is None else region.inside(maps.shape[-2], maps.shape[-1], maps.device)
    if inside is None:
        return maps.flatten()
    return maps.reshape(len(maps), -1, *maps.shape[-2:]).movedim(1, 0)[:, inside.expand(len(maps), -1, -1)].flatten()


def reduction(height: int, width: int, max_pixels: int) -> int:
    """Return the lowest whole number by which both sides are divided so that at most ``max_pixels`` are left."""
    factor = 1
    while -(-height // factor) * -(-width // factor) > max_pixels:
        factor += 1
    return factor


def pad(tile: Tensor, size: int) -> Tensor:
    """Repeat the last row and column of a tile, shape (..., C, H, W), up to a size."""
    height, width = tile.shape[-2:]
    if (height, width) == (size, size):
        return tile
    return F.pad(tile[None], (0, size - width, 0, size - height), mode="replicate")[0]


def _tiles_of(region: Tensor, boxes: list[Box], maps: Tensor, size: int) -> Tensor:
    """Return a region's part of each tile at the size of the maps."""
    parts = [region[box.rows, box.columns] for box in boxes]
    padded = torch.stack([F.pad(part, (0, size - part.shape[1], 0, size - part.shape[0])) for part in parts])
    return resize_region(padded, maps.shape[-2], maps.shape[-1])


class Blend:
    """Joins the maps of tiles: where tiles overlap, by their weighted mean.

    Args:
        height: Height of the image.
        width: Width of the image.
        overlap: Lowest number of pixels that neighbouring tiles share.
        device: Device of the map.
    """

    def __init__(self, height: int, width: int, overlap: int, device: torch.device) -> None:
        self.overlap = overlap
        self.values, self.weights = (torch.zeros(height, width, device=device) for _ in range(2))
        self.is_empty = True

    def add(self, boxes: list[Box], maps: Tensor | None, size: int) -> None:
        """Add the maps of tiles, resized to the size of a tile."""
        if maps is None:
            return
        self.is_empty = False
        maps = maps.reshape(len(boxes), 1, *maps.shape[-2:]).float()
        for box, values in zip(boxes, F.interpolate(maps, (size, size), mode="bilinear")[:, 0], strict=True):
            height, width = self.values.shape
            weights = torch.from_numpy(weights_of(box, height, width, self.overlap)).to(values)
            self.values[box.rows, box.columns] += weights * values[: weights.shape[0], : weights.shape[1]]
            self.weights[box.rows, box.columns] += weights

    def result(self, region: Tensor | None) -> Tensor | None:
        """Return the map, with its lowest value outside a region, shape (H, W)."""
        if self.is_empty:
            return None
        values = self.values / self.weights
        return values if region is None else torch.where(region, values, values[region].min())
