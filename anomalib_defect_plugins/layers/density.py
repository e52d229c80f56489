"""Gaussian densities of features, fitted in closed form.

The covariance is shrunk by Ledoit and Wolf's method (A well-conditioned estimator for large-dimensional covariance
matrices, 2004). It requires only sums over the features, so the features are never held in memory together: a few
hundred images have millions of positions.
"""

from collections.abc import Callable, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.layers.nearest_center import NearestCenter, NearestResidual
from anomalib_defect_plugins.layers.resize import enlarge

RIDGE = 1e-6
"""Fraction of the mean variance that is added to each variance, for features that hardly vary."""


class _Options(TypedDict):
    dtype: torch.dtype
    device: torch.device | str


class Moments:
    """Sums over features, in double precision, from which their mean and shrunk covariance follow.

    Args:
        dimension: Feature dimension C.
        device: Device of the sums.
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        options: _Options = {"dtype": torch.float64, "device": device}
        self.count = torch.zeros((), **options)
        self.sum = torch.zeros(dimension, **options)
        self.products = torch.zeros(dimension, dimension, **options)
        self.cubes = torch.zeros(dimension, **options)
        self.fourths = torch.zeros((), **options)

    def update(self, features: Tensor, keep: Tensor | None = None) -> None:
        """Add features, shape (..., C), or those where ``keep``, shape (...), bool, is true."""
        x = (features.flatten(0, -2) if keep is None else features[keep]).to(self.sum)
        length = x.square().sum(1)
        self.count += len(x)
        self.sum += x.sum(0)
        self.products += x.T @ x
        self.cubes += length @ x
        self.fourths += length @ length

    def reduce(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Add the sums of the processes of a distributed training run.

        Args:
            gather: Function that stacks the tensors of all processes along a new first axis.
        """
        for name, value in vars(self).items():
            setattr(self, name, gather(value).sum(0))

    def ledoit_wolf(self) -> tuple[Tensor, Tensor, float]:
        """Compute the mean (C,), the shrunk covariance (C, C) and the shrinkage, in [0, 1].

        Raises:
            InvalidInputError: If there are fewer than two features, or if some are not finite.
        """
        self._check()
        mean = self.sum / self.count
        covariance = self.products / self.count - torch.outer(mean, mean)
        variance, size = covariance.trace() / len(mean), covariance.square().sum()
        error = (self._centred_fourths(mean) / self.count - size) / self.count
        spread = size - len(mean) * variance**2
        shrinkage = (error.clamp(min=0).minimum(spread) / spread).item() if spread > 0 else 0.0
        shrunk = (1 - shrinkage) * covariance
        shrunk.diagonal().add_(shrinkage * variance)
        return mean, shrunk, shrinkage

    def _centred_fourths(self, mean: Tensor) -> Tensor:
        """Return the sum of the fourth powers of the distances to the mean: (|x|² - 2mx + |m|²)², expanded."""
        square = mean @ mean
        fourths: Tensor = (
            self.fourths
            + 4 * mean @ self.products @ mean
            + self.count * square**2
            - 4 * mean @ self.cubes
            + 2 * square * self.products.trace()
            - 4 * square * mean @ self.sum
        )
        return fourths

    def _check(self) -> None:
        if self.count < 2:
            msg = f"a density needs at least two normal training images, but there are {int(self.count)}: add some"
            raise InvalidInputError(msg)
        if not torch.isfinite(self.fourths):
            msg = "the features of normal training images are not finite: lower --model.learning_rate and train again"
            raise InvalidInputError(msg)


class GaussianDensity(nn.Module):
    """Gaussian density of features that returns the Mahalanobis distance to its mean; a standard normal until fitted.

    Args:
        dimension: Feature dimension C.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("whitening", torch.eye(dimension))
        self.scale = dimension**0.5  # root mean square of the distances of the features that it is fitted to

    def collector(self, device: torch.device | str) -> Moments:
        """Create empty sums."""
        return Moments(len(self.mean), device)

    def fit(self, moments: Moments) -> None:
        """Fit mean and covariance to the features in ``moments``.

        Raises:
            InvalidInputError: As in :meth:`Moments.ledoit_wolf`.
        """
        mean, covariance, _ = moments.ledoit_wolf()
        covariance.diagonal().add_(RIDGE * covariance.diagonal().mean() + 1e-12)
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(len(mean)).to(factor)
        self.mean.copy_(mean)
        self.whitening.copy_(torch.linalg.solve_triangular(factor, identity, upper=False).T)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the distances (...) of features (..., C), in standard deviations."""
        return ((features - self.mean) @ self.whitening).square().sum(-1).sqrt()


class TextureDensity(nn.Module):
    """Density of the features of all positions of normal images, for textures, which look alike everywhere.

    A position is described by several feature maps, as in PaDiM (https://arxiv.org/abs/2011.08785), which has a density
    for each position instead.

    Args:
        channels: Channels of the maps, fine to coarse.
        at: Index of the map at whose resolution positions are described.
        density: Class of the density.
        pool: Whether each map is averaged over 3x3 positions, as in PatchCore (https://arxiv.org/abs/2106.08265).
    """

    def __init__(
        self,
        channels: Sequence[int],
        at: int = 1,
        density: type[GaussianDensity | NearestCenter] = GaussianDensity,
        pool: bool = False,
    ) -> None:
        super().__init__()
        self.at = at
        self.density = density(sum(channels))
        self.pool = pool

    def describe(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute features (B, h, w, C) of maps (B, C_k, h_k, w_k), each of half the resolution of the one before.

        Finer maps than the one at ``at`` are averaged, coarser ones enlarged bilinearly.
        """
        if self.pool:
            maps = [functional.avg_pool2d(one, 3, 1, 1, count_include_pad=False) for one in maps]
        size = maps[self.at].shape[-2:]
        finer = [functional.avg_pool2d(one, 2 ** (self.at - k)) for k, one in enumerate(maps[: self.at])]
        coarser = [functional.interpolate(one, size, mode="bilinear") for one in maps[self.at + 1 :]]
        return torch.cat([*finer, maps[self.at], *coarser], 1).permute(0, 2, 3, 1)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Compute Mahalanobis distances, scaled to a mean square of 1 on the normal images.

        Args:
            maps: Maps, as in :meth:`describe`.
            size: Height H and width W of the images.

        Returns:
            Distances, shape (B, 1, H, W), 0 or greater.
        """
        distances = self.density(self.describe(maps))[:, None] / self.density.scale
        return enlarge(distances, size)


class TwoScaleDensity(nn.Module):
    """Distances to normal features at strides 8 and 16, for small defects, and at 16 and 32, for large ones.

    Args:
        channels: Channels of an encoder's maps at strides 8, 16 and 32.
        position_means: Whether the mean normal feature at each position is subtracted.
    """

    def __init__(self, channels: Sequence[int], position_means: bool = False) -> None:
        super().__init__()
        density = NearestResidual if position_means else NearestCenter
        self.fine = TextureDensity(channels[:2], 0, density, pool=True)
        self.coarse = TextureDensity(channels[1:], 0, density)

    def densities(self) -> list[GaussianDensity | NearestCenter]:
        """Return the two densities."""
        return [self.fine.density, self.coarse.density]

    def describe(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute the features of each density, (B, H/8, W/8, C) and (B, H/16, W/16, C), of maps at these strides."""
        return [self.fine.describe(maps[:2]), self.coarse.describe(maps[1:])]

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Compute the sum of both distances, shape (B, 1, H, W), of the maps at strides 8, 16 and 32."""
        distance: Tensor = self.fine(maps[:2], size) + self.coarse(maps[1:], size)
        return distance
