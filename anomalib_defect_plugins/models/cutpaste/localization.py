"""From features to scores and maps: densely on feature maps, or window by window as in the paper.

A localizer says which features of an image have a density each (``describe``) and what their distances mean
(``forward``).
"""

from collections.abc import Callable, Sequence

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components.filters import GaussianBlur2d
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.models.cutpaste.density import GaussianDensity

Extract = Callable[[Tensor], list[Tensor]]
"""The backbone: images (B, 3, H, W) to feature maps (B, C, h, w), the last being what the classifier sees."""

WINDOWS_AT_ONCE = 256
"""Windows of an image that go through the network together: more need more memory, fewer make a larger graph."""

FIT_STEP = 4
"""Every so many rows and columns of windows the density is fitted to one: neighbours overlap almost fully."""


def pool(features: Tensor) -> Tensor:
    """Mean over the positions: (B, C, h, w) to (B, C)."""
    return features.mean((-2, -1))


class DenseLocalizer(nn.Module):
    """The image is judged by its pooled features, each position by the feature maps there.

    One Gaussian serves all positions: the texture of a surface is the same everywhere.

    Args:
        channels: Channels of the feature maps; the last map is pooled for the image.
        layers: Indices of the maps that positions are judged by.
        sigma: Standard deviation of the smoothing of the anomaly map, in pixels.
    """

    def __init__(self, channels: Sequence[int], layers: Sequence[int], sigma: float) -> None:
        super().__init__()
        self.layers = tuple(layers)
        sizes = (channels[-1], sum(channels[layer] for layer in self.layers))
        self.densities = nn.ModuleList(GaussianDensity(size) for size in sizes)
        self.blur = GaussianBlur2d(sigma)

    def describe(self, extract: Extract, image: Tensor, fitting: bool = False) -> list[Tensor]:
        """Give the pooled features (B, C) and those of the positions (B, h, w, C'), all at the finest map's size."""
        del fitting
        maps = extract(image)
        chosen = [maps[layer] for layer in self.layers]
        size = max((part.shape[-2:] for part in chosen), key=lambda shape: shape[0])
        fine = [functional.interpolate(part, size, mode="bilinear", align_corners=False) for part in chosen]
        return [pool(maps[-1]), torch.cat(fine, dim=1).permute(0, 2, 3, 1)]

    def forward(self, distances: Sequence[Tensor], size: tuple[int, int]) -> InferenceBatch:
        """Give scores (B,) and maps (B, 1, H, W), smoothed, from distances (B,) and (B, h, w)."""
        score, positions = distances
        fine = functional.interpolate(positions[:, None], size, mode="bilinear", align_corners=False)
        return InferenceBatch(pred_score=score, anomaly_map=self.blur(fine))


class WindowLocalizer(nn.Module):
    """Every window is judged by its pooled features; the image by its worst window.

    Args:
        channels: Channels of the feature maps; the last map is pooled.
        image_size: Height and width of the images, in pixels.
        window: Side of a window, in pixels.
        stride: Pixels from one window to the next; the last ones touch the borders.
        sigma: Standard deviation of the Gaussian that spreads a window's distance around its middle, in pixels.
    """

    def __init__(
        self, channels: Sequence[int], image_size: tuple[int, int], window: int, stride: int, sigma: float
    ) -> None:
        super().__init__()
        self.window = window
        self.tops, self.lefts = (window_starts(side, window, stride) for side in image_size)
        self.densities = nn.ModuleList([GaussianDensity(channels[-1])])
        # Not persistent: they follow from the sizes, which are hyperparameters.
        for name, starts, side in (("rows", self.tops, image_size[0]), ("columns", self.lefts, image_size[1])):
            self.register_buffer(name, spread_matrix(starts, window, side, sigma).T.contiguous(), persistent=False)

    def describe(self, extract: Extract, image: Tensor, fitting: bool = False) -> list[Tensor]:
        """Give the pooled features of all windows, (B, rows, columns, C); when fitting, of every fourth."""
        step = FIT_STEP if fitting else 1
        tops, lefts = self.tops[::step], self.lefts[::step]
        rows = max(1, WINDOWS_AT_ONCE // len(lefts))
        parts = []
        for start in range(0, len(tops), rows):
            some = tops[start : start + rows]
            features = pool(extract(cut_windows(image, some, lefts, self.window))[-1])
            parts.append(features.unflatten(0, (-1, len(some), len(lefts))))
        return [torch.cat(parts, dim=1)]

    def forward(self, distances: Sequence[Tensor], size: tuple[int, int]) -> InferenceBatch:
        """Give scores (B,) and maps (B, 1, H, W) from distances (B, rows, columns)."""
        del size
        (windows,) = distances
        # Constants on the right of both products: OpenVINO 2026 cannot compile the quantised graph otherwise.
        spread = ((windows @ self.columns).transpose(1, 2) @ self.rows).transpose(1, 2)
        return InferenceBatch(pred_score=windows.amax((-2, -1)), anomaly_map=spread[:, None])


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """First pixels of windows along a side: one each ``stride`` pixels, and one that ends at the border."""
    last = side - window
    return sorted({*range(0, last + 1, stride), last})


def cut_windows(image: Tensor, tops: Sequence[int], lefts: Sequence[int], window: int) -> Tensor:
    """Cut windows out of images (B, C, H, W).

    Returns:
        (B * len(tops) * len(lefts), C, window, window), image by image, row by row.
    """
    offsets = torch.arange(window, device=image.device)
    rows, columns = (
        (torch.tensor(starts, device=image.device)[:, None] + offsets).flatten() for starts in (tops, lefts)
    )
    cut = image.index_select(2, rows).index_select(3, columns)
    cut = cut.unflatten(3, (len(lefts), window)).unflatten(2, (len(tops), window))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def spread_matrix(starts: Sequence[int], window: int, side: int, sigma: float) -> Tensor:
    """Weights that give each pixel of a side the mean of the windows around it.

    A window weighs by a Gaussian of the distance from its middle to the pixel.

    Returns:
        (side, len(starts)), each row sums to 1.
    """
    middles = torch.tensor(starts) + (window - 1) / 2
    distance = torch.arange(side)[:, None] - middles
    return (-(distance**2) / (2 * sigma**2)).softmax(1)  # a softmax, since far Gaussians are all 0 in single precision
