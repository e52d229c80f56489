"""Regions of interest of images and anomaly maps."""

from typing import Any

import torch
from torch import Tensor


def resize_region(region: Tensor, height: int, width: int) -> Tensor:
    """Resize a region to another size: a pixel belongs to it if its centre does. Can be exported with unknown sizes.

    Args:
        region: Region, shape (..., H, W), bool.
        height: New height.
        width: New width.
    """
    rows = (2 * torch.arange(height, device=region.device) + 1) * region.shape[-2] // (2 * height)
    columns = (2 * torch.arange(width, device=region.device) + 1) * region.shape[-1] // (2 * width)
    return region.index_select(-2, rows).index_select(-1, columns)


def fill_outside(images: Tensor, region: Tensor) -> Tensor:
    """Fill images outside a region with the mean colour inside it, so that nothing depends on what is outside.

    Args:
        images: Images, shape (..., 3, H, W), float.
        region: Region, shape (H, W), bool.
    """
    inside = torch.where(region, images, torch.zeros_like(images))
    # Row by row, because single precision loses digits in sums of millions of pixels.
    colour = inside.sum(-1).sum(-1) / region.sum()
    return torch.where(region, images, colour[..., None, None])


class Region:
    """The region of interest of a model's images.

    Args:
        fixed: The region of all images, shape (H, W), bool; ``None`` if each image has its own.
        has_peak_scores: Whether the model's scores are the highest values of its maps; ``None`` if that is unknown.

    Attributes:
        current: Regions of the images of a batch, if each has its own.
    """

    def __init__(self, fixed: Tensor | None = None, has_peak_scores: bool | None = None) -> None:
        self.fixed = fixed
        self.has_peak_scores = has_peak_scores
        self.current: list[Tensor] | None = None

    def inside(self, height: int, width: int, device: Any = None) -> Tensor | None:
        """Return the region at a size, shape (1, H, W) or (B, H, W); ``None`` if it is unknown."""
        regions = self.current if self.fixed is None else [self.fixed]
        if regions is None:
            return None
        return torch.stack([resize_region(region.to(device), height, width) for region in regions])

    def fill(self, images: Tensor) -> Tensor:
        """Fill images, shape (B, 3, H, W), float in [0, 1], outside the region of all images, if there is one."""
        if self.fixed is None:
            return images
        region = resize_region(self.fixed.to(images.device), images.shape[-2], images.shape[-1])
        return fill_outside(images, region)

    def restrict(self, output: Any, inside: Tensor | None) -> Any:
        """Restrict the output of a network to the region.

        Maps have their lowest value inside the region outside of it too, so that nothing there is marked, and neither
        thresholds nor the normalisation depend on it. Scores that are the highest value of a map become the highest
        one inside the region; others are those of the filled image.

        Args:
            output: ``InferenceBatch``, or another result, which is returned as it is.
            inside: Region at the size of the map, shape (1, H, W) or (B, H, W), bool.
        """
        maps = getattr(output, "anomaly_map", None)
        if maps is None or inside is None:
            return output
        inside = inside.reshape(len(inside), *(1,) * (maps.ndim - 3), *inside.shape[1:])
        self._compare(output.pred_score, maps)
        low = maps.masked_fill(~inside, torch.inf).amin((-2, -1), keepdim=True)
        restricted = torch.where(inside, maps, low)
        output = output._replace(anomaly_map=restricted)
        if output.pred_mask is not None:
            output = output._replace(pred_mask=output.pred_mask & inside)
        if output.pred_score is not None and self.has_peak_scores:
            output = output._replace(pred_score=restricted.flatten(1).amax(1).reshape(output.pred_score.shape))
        return output

    def _compare(self, scores: Tensor | None, maps: Tensor) -> None:
        """Find out whether scores are the highest values of maps."""
        if scores is None or self.has_peak_scores is not None or torch.compiler.is_compiling():
            return
        flat = maps.flatten(1)
        if bool((flat.amin(1) < flat.amax(1)).all()):  # any mean of a constant map is its highest value
            self.has_peak_scores = torch.equal(scores.flatten(), flat.amax(1))
