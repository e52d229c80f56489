"""From features to scores and anomaly maps: densely on feature maps, or window by window as in the paper.

A localizer extracts the features of an image, one kind for each density (``describe``), and converts their distances
to a score and a map (``forward``).
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components.filters import GaussianBlur2d
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.layers import top_mean
from anomalib_defect_plugins.layers.density import GaussianDensity, Moments

Extract = Callable[[Tensor], list[Tensor]]
"""Backbone: images (B, 3, H, W) to feature maps (B, C, h, w), the last of which is the input of the classifier."""

MAX_WINDOWS = 256
"""Maximum windows of an image in one pass of the network: more need more memory, fewer make a larger graph."""

SCORES = ("features", "positions", "both")

TOP_SHARE = 0.01
"""Fraction of the pixels of an anomaly map whose mean is the score of its positions."""

FIT_STEP = 4
"""Step between the rows and columns of windows that the density is fitted to, since neighbours overlap almost fully."""


def pool(features: Tensor) -> Tensor:
    """Average over the positions: (B, C, h, w) to (B, C)."""
    return features.mean((-2, -1))


class DenseLocalizer(nn.Module):
    """Score images by their pooled features and by their positions, and each position by the feature maps there.

    All positions share one Gaussian, because the texture of a surface is the same everywhere. The pooled features of
    each map have one, and are independent of those of the others.

    Args:
        channels: Channels of the feature maps.
        layers: Indices of the maps that positions are scored by.
        image_maps: Indices of the maps that are pooled for the image score.
        sigma: Standard deviation of the smoothing of the anomaly map, in pixels.
        score: Image score: ``features``, the distance of the pooled features; ``positions``, the mean of the highest
            pixels of the anomaly map; ``both``, the mean of the two, each divided by its standard deviation on
            normal images.
    """

    deviations: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        layers: Sequence[int],
        image_maps: Sequence[int],
        sigma: float,
        score: str = "features",
    ) -> None:
        super().__init__()
        self.image_maps = tuple(image_maps)
        self.layers = tuple(layers)
        self.score = score
        sizes = (*(channels[index] for index in self.image_maps), sum(channels[index] for index in self.layers))
        self.densities = nn.ModuleList(GaussianDensity(size) for size in sizes)
        self.blur = GaussianBlur2d(sigma)
        self.register_buffer("deviations", torch.ones(2))

    def fit(self, scores: Moments) -> None:
        """Fit the standard deviations to the scores (..., 2) of normal images."""
        variances = scores.products.diagonal() / scores.count - (scores.sum / scores.count).square()
        self.deviations.copy_(variances.clamp(min=1e-12).sqrt())

    def describe(self, extract: Extract, image: Tensor, fitting: bool = False) -> list[Tensor]:
        """Compute pooled features (B, C) of each map, and those of positions (B, h, w, C'), as fine as the finest."""
        del fitting
        maps = extract(image)
        selected = [maps[layer] for layer in self.layers]
        size = max((features.shape[-2:] for features in selected), key=lambda shape: shape[0])
        fine = [functional.interpolate(features, size, mode="bilinear", align_corners=False) for features in selected]
        positions = torch.cat(fine, dim=1).permute(0, 2, 3, 1)
        return [*(pool(maps[index]) for index in self.image_maps), positions]

    def forward(self, distances: Sequence[Tensor], size: Size) -> InferenceBatch:
        """Convert distances (B,) of each map and (B, h, w) to scores (B,) and smoothed maps (B, 1, *size)."""
        scores, anomaly_map = self.scores(distances, size)
        selected = {"features": scores[0], "positions": scores[1], "both": (scores / self.deviations[:, None]).mean(0)}
        return InferenceBatch(pred_score=selected[self.score], anomaly_map=anomaly_map)

    def scores(self, distances: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Compute the scores of features and of positions, shape (2, B), and smoothed maps (B, 1, *size)."""
        *features, positions = distances
        fine = functional.interpolate(positions[:, None], list(size), mode="bilinear", align_corners=False)
        anomaly_map = self.blur(fine)
        distance = torch.stack(features).square().sum(0).sqrt()  # the maps are independent
        return torch.stack([distance, top_mean(anomaly_map, TOP_SHARE)]), anomaly_map


class WindowLocalizer(nn.Module):
    """Score each window by its pooled features, and the image by its highest window score.

    Args:
        channels: Channels of the feature maps; the last map is pooled.
        image_size: Height and width of the images, in pixels.
        window: Side of a window, in pixels.
        stride: Pixels from one window to the next; the last windows touch the borders.
        sigma: Standard deviation of the Gaussian that spreads a window's distance over its pixels, in pixels.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, channels: Sequence[int], image_size: Size, window: int, stride: int, sigma: float) -> None:
        super().__init__()
        self.window = window
        self.tops, self.lefts = (window_starts(side, window, stride) for side in image_size)
        self.densities = nn.ModuleList([GaussianDensity(channels[-1])])
        # Not persistent, as they follow from the sizes, which are hyperparameters.
        for name, starts, side in (("rows", self.tops, image_size[0]), ("columns", self.lefts, image_size[1])):
            self.register_buffer(name, spread_matrix(starts, window, side, sigma).T.contiguous(), persistent=False)

    def describe(self, extract: Extract, image: Tensor, fitting: bool = False) -> list[Tensor]:
        """Compute the pooled features of all windows, (B, rows, columns, C); of every fourth each way if fitting."""
        step = FIT_STEP if fitting else 1
        tops, lefts = self.tops[::step], self.lefts[::step]
        rows = max(1, MAX_WINDOWS // len(lefts))
        parts = []
        for start in range(0, len(tops), rows):
            chunk = tops[start : start + rows]
            features = pool(extract(cut_windows(image, chunk, lefts, self.window))[-1])
            parts.append(_unflatten(features, 0, (-1, len(chunk), len(lefts))))
        return [torch.cat(parts, dim=1)]

    def forward(self, distances: Sequence[Tensor], size: Size) -> InferenceBatch:
        """Convert distances (B, rows, columns) to scores (B,) and maps (B, 1, H, W)."""
        del size
        (windows,) = distances
        # Constants on the right of both products, because OpenVINO 2026 cannot compile the quantised graph otherwise.
        spread = ((windows @ self.columns).transpose(1, 2) @ self.rows).transpose(1, 2)
        return InferenceBatch(pred_score=windows.amax((-2, -1)), anomaly_map=spread[:, None])


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Return the first pixels of the windows along a side, ``stride`` apart; the last window ends at the border."""
    last = side - window
    return sorted({*range(0, last + 1, stride), last})


def cut_windows(image: Tensor, tops: Sequence[int], lefts: Sequence[int], window: int) -> Tensor:
    """Cut windows out of images.

    Args:
        image: Images, shape (B, C, H, W).
        tops: First rows of the windows.
        lefts: First columns of the windows.
        window: Side of a window, in pixels.

    Returns:
        Windows, shape (B * len(tops) * len(lefts), C, window, window), image by image, row by row.
    """
    offsets = torch.arange(window, device=image.device)
    rows, columns = (
        (torch.tensor(starts, device=image.device)[:, None] + offsets).flatten() for starts in (tops, lefts)
    )
    cut = image.index_select(2, rows).index_select(3, columns)
    cut = _unflatten(_unflatten(cut, 3, (len(lefts), window)), 2, (len(tops), window))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def _unflatten(tensor: Tensor, dim: int, sizes: tuple[int, ...]) -> Tensor:
    return cast(Tensor, cast(Any, tensor).unflatten(dim, sizes))  # untyped in torch


def spread_matrix(starts: Sequence[int], window: int, side: int, sigma: float) -> Tensor:
    """Compute the weights of the windows in the mean of each pixel along a side.

    The weight of a window is a Gaussian of the distance from its centre to the pixel, and 0 outside the window, which
    is the receptive field of its score.

    Args:
        starts: First pixels of the windows.
        window: Side of a window, in pixels; the windows leave no pixel out.
        side: Length of the side, in pixels.
        sigma: Standard deviation of the Gaussian, in pixels.

    Returns:
        Weights, shape (side, len(starts)); each row sums to 1.
    """
    centers = torch.tensor(starts) + (window - 1) / 2
    distance = torch.arange(side)[:, None] - centers
    logits = (-(distance**2) / (2 * sigma**2)).masked_fill(distance.abs() > window / 2, -torch.inf)
    return logits.softmax(1)  # softmax, since far Gaussians are all 0 in single precision
