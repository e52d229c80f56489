"""Distance of features to the nearest of many centres, which k-means fits to a sample of them.

The centres are to normal features what the coreset is to PatchCore (https://arxiv.org/abs/2106.08265), but averages of
them. They fit textures with several kinds of positions, which one Gaussian does not.
"""

from collections.abc import Callable
from typing import Any, cast
from warnings import catch_warnings, simplefilter

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.errors import InvalidInputError

CENTERS = 512
ITERATIONS = 5
SAMPLE_SIZE = 20_000
"""Fewest features of a sample, if there are as many; up to twice as many are kept."""

FEATURES_PER_CENTER = 4
"""Features of the sample for each centre at least: otherwise each is a centre, and no distance sets a scale."""


class FeatureSample:
    """Random sample of features, which grows up to a limit and is then halved, however many there are.

    Args:
        dimension: Feature dimension C.
        device: Device of the sample.
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        self.features = torch.empty(0, dimension, device=device)
        self.step = 1
        self.rng = torch.Generator().manual_seed(0)

    def update(self, features: Tensor, keep: Tensor | None = None) -> None:
        """Add one of ``step`` features, shape (..., C), or of those where ``keep``, shape (...), bool, is true."""
        x = features.flatten(0, -2) if keep is None else features[keep]
        chosen = torch.randperm(len(x), generator=self.rng)[: -(-len(x) // self.step)]
        self.features = torch.cat([self.features, x[chosen.to(x.device)].to(self.features)])
        while len(self.features) > 2 * SAMPLE_SIZE:
            self.features, self.step = self.features[::2], 2 * self.step

    def reduce(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Join the samples of the processes of a distributed training run.

        Args:
            gather: Function that stacks the tensors of all processes along a new first axis.
        """
        padded = self.features.new_zeros(2 * SAMPLE_SIZE, self.features.shape[1])
        padded[: len(self.features)] = self.features
        counts = gather(torch.tensor(len(self.features), device=padded.device))
        parts = zip(gather(padded), counts.tolist(), strict=True)
        self.features = torch.cat([part[:count] for part, count in parts])


class NearestCenter(nn.Module):
    """Distance to the nearest centre.

    Args:
        dimension: Feature dimension C.

    Attributes:
        centers: Centres, shape (K, C).
        scale: Root mean square of the distances of the sample that the centres were fitted to.
    """

    centers: Tensor
    scale: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(CENTERS, dimension))
        self.register_buffer("scale", torch.ones(()))

    def collector(self, device: torch.device | str) -> FeatureSample:
        """Create an empty sample."""
        return FeatureSample(self.centers.shape[1], device)

    def fit(self, sample: FeatureSample) -> None:
        """Fit the centres with k-means; if there are few features, some centres are equal.

        Raises:
            InvalidInputError: If there are no features, or if some are not finite.
        """
        self.fit_features(sample.features)

    def fit_features(self, features: Tensor) -> None:
        """Fit the centres to features (N, C), as :meth:`fit` does."""
        features = features.float().cpu()
        if not len(features) or not torch.isfinite(features).all():
            msg = "there are no finite features of normal training images: check the images and --model.backbone"
            raise InvalidInputError(msg)
        count = min(CENTERS, -(-len(features) // FEATURES_PER_CENTER))
        first = features[torch.linspace(0, len(features) - 1, count).long()]
        with catch_warnings():
            simplefilter("ignore")  # centres without features keep their places
            centers, _ = kmeans2(features.numpy(), first.numpy(), ITERATIONS, minit="matrix")
        self.centers.copy_(torch.from_numpy(centers)[torch.arange(CENTERS) % count])
        distances = torch.cat([self.distances(part.to(self.centers)) for part in torch.split(features, 4096)])
        self.scale.copy_(distances.square().mean().sqrt().clamp(min=1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """Compute the distances (...) of features (..., C)."""
        return self.distances(features)

    def distances(self, features: Tensor) -> Tensor:
        """Compute the distances (...) of features (..., C) to the nearest centre."""
        of_centers = self.centers.square().sum(1)
        if features.ndim == 4 and torch.compiler.is_compiling():
            # A convolution reads maps of features as OpenVINO stores them.
            maps = features.permute(0, 3, 1, 2)
            relative = functional.conv2d(maps, -2 * self.centers[:, :, None, None], of_centers).amin(1)
            squared = maps.square().sum(1)
        else:
            relative = (of_centers - 2 * features @ self.centers.T).amin(-1)
            squared = features.square().sum(-1)
        return (squared + relative).clamp(min=0).sqrt()


class PositionedSample(FeatureSample):
    """Sample of features whose last column is their position, with the sums of all features at each position.

    Args:
        dimension: Feature dimension C.
        device: Device of the sample and the sums.

    Attributes:
        sums: Sums over the images, shape (h, w, C + 1), the last of ones; of size 0 before the first.
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        super().__init__(dimension + 1, device)
        self.sums = torch.empty(0, dtype=torch.float64, device=device)

    def update(self, features: Tensor, keep: Tensor | None = None) -> None:
        """Add features, shape (B, h, w, C), of those where ``keep``, shape (B, h, w), bool, is true."""
        features = features.float()  # positions have more digits than half precision
        ones = torch.ones_like(features[..., :1])
        kept = torch.cat([features, ones], -1)
        kept = kept if keep is None else torch.where(keep[..., None], kept, 0)
        sums = kept.to(self.sums.device).sum(0, dtype=self.sums.dtype)
        self.sums = self.sums + sums if len(self.sums) else sums
        positions = torch.arange(ones[0].numel()).reshape(ones[0].shape).to(features).expand(ones.shape)
        super().update(torch.cat([features, positions], -1), keep)

    def reduce(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Join the samples and the sums of the processes of a distributed training run; see ``FeatureSample``."""
        super().reduce(gather)
        shape = torch.tensor(self.sums.shape if len(self.sums) else (0, 0, 0), device=self.sums.device)
        largest = gather(shape).amax(0).tolist()  # a process without images knows no shape
        self.sums = gather(self.sums if len(self.sums) else self.sums.new_zeros(largest)).sum(0)


class NearestResidual(NearestCenter):
    """Distance of features, less the mean normal feature at their position, to the nearest centre.

    What aligned parts have at a position is normal there only, as in PaDiM (https://arxiv.org/abs/2011.08785). On
    textures, the means hold what zero padding adds near borders.

    Args:
        dimension: Feature dimension C.

    Attributes:
        mean: Means, shape (h, w, C), (1, 1, C) until fitted; resized bilinearly to maps of another size.
    """

    mean: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self.register_buffer("mean", torch.zeros(1, 1, dimension))

    def collector(self, device: torch.device | str) -> PositionedSample:
        """Create an empty sample."""
        return PositionedSample(self.centers.shape[1], device)

    def fit(self, sample: FeatureSample) -> None:
        """Fit means, and centres to the residuals that each feature has without its own image.

        The mean of all positions counts for one image in each mean, as the image that a position may lack. Residuals to
        means that include the feature itself would be smaller than those of new images, and 0 for a single one.

        Args:
            sample: A sample of :meth:`collector`.

        Raises:
            InvalidInputError: As in :meth:`NearestCenter.fit`.
        """
        features = sample.features[:, :-1]
        if len(features):
            sums = cast(PositionedSample, sample).sums
            overall = sums.sum((0, 1))
            counts = sums[..., -1:]
            self.mean = ((sums[..., :-1] + overall[:-1] / overall[-1]) / (counts + 1)).to(self.centers)
            position = sample.features[:, -1].long()
            others = (1 + 1 / counts).flatten(0, 1).to(features)[position]
            features = others * (features - self.mean.flatten(0, 1).to(features)[position])
        self.fit_features(features)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the distances (B, h, w) of features (B, h, w, C)."""
        mean = self.mean
        if mean.shape[:2] != features.shape[1:3]:
            mean = functional.interpolate(mean.permute(2, 0, 1)[None], features.shape[1:3], mode="bilinear")
            mean = mean[0].permute(1, 2, 0)
        return self.distances(features - mean)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        mean = state_dict.get(prefix + "mean")
        if mean is not None and mean.ndim == 3 and mean.shape[2] == self.mean.shape[2]:
            self.mean = self.mean.new_zeros(mean.shape)  # the size is that of the images
        super()._load_from_state_dict(state_dict, prefix, *args)
