"""Distance of features to the nearest of many centres, which k-means fits to a sample of them.

The centres are to normal features what the coreset is to PatchCore (https://arxiv.org/abs/2106.08265), but averages of
them. They fit textures with several kinds of positions, which one Gaussian does not.
"""

from collections.abc import Callable
from warnings import catch_warnings, simplefilter

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from anomalib_defect_plugins.core.errors import InvalidInputError

CENTERS = 512
ITERATIONS = 5
SAMPLE_SIZE = 20_000
"""Fewest features of a sample, if there are as many; up to twice as many are kept."""


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

    def update(self, features: Tensor) -> None:
        """Add one of ``step`` features, shape (..., C)."""
        x = features.flatten(0, -2)
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
        """Fit the centres with k-means; if there are fewer features than centres, some centres are equal.

        Raises:
            InvalidInputError: If there are no features, or if some are not finite.
        """
        features = sample.features.float().cpu()
        if not len(features) or not torch.isfinite(features).all():
            msg = "there are no finite features of normal training images: check the images and --model.backbone"
            raise InvalidInputError(msg)
        first = features[torch.linspace(0, len(features) - 1, CENTERS).long()]
        with catch_warnings():
            simplefilter("ignore")  # centres without features keep their places
            centers, _ = kmeans2(features.numpy(), first.numpy(), ITERATIONS, minit="matrix")
        self.centers.copy_(torch.from_numpy(centers))
        distances = torch.cat([self(part.to(self.centers)) for part in torch.split(features, 4096)])
        self.scale.copy_(distances.square().mean().sqrt().clamp(min=1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """Compute the distances (...) of features (..., C)."""
        squared = features.square().sum(-1, keepdim=True) - 2 * features @ self.centers.T + self.centers.square().sum(1)
        return squared.amin(-1).clamp(min=0).sqrt()
