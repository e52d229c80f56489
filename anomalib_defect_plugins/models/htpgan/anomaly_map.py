"""From the discriminators' logits to one anomaly map: eq. 4 and 5 of HTP-GAN, and alternatives to them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_one_of

FUSIONS = ("typicality", "maximum", "log_odds", "entropy", "paper")

SIGNED = {"typicality": (0.02, 0.5, 0.98), "maximum": (0.0005, 0.5, 0.9995)}
"""Levels of the quantiles of normal logits that the fusions of both sides measure distances by."""

MAX_VALUES = 2**24
"""Maximum number of values of :func:`torch.quantile`; of more, every second is used, or every third, and so on."""


class ScaleAnomalyMap(nn.Module):
    """Anomaly map of one scale, computed from the logits of its distinguish map M.

    - ``paper``: M log M, eq. 4 as printed. It is low where the discriminator is unsure; normal texture ends at M near
      1, so the ranking is reversed.
    - ``entropy``: -m log m with m = max(M, 1/e). The sign is reversed, and the value increases steadily as M falls,
      where the entropy itself would decrease again for the most certain defects. A scale that is more certain has
      values smaller by orders of magnitude, so that in eq. 5 the least trained scale dominates all others.
    - ``log_odds``: log (1 - M) / M. For a good discriminator this is the log ratio of the densities of generated and
      normal texture, so the mean over scales adds up their evidence. Worn texture looks *more* normal than normal
      texture and is missed.
    - ``typicality``: distance of the logit from the median logit of the normal image, to either side, in units of the
      distance between that median and the 2nd or 98th percentile.
    - ``maximum``: the same, in units of the distance to the quantiles of 0.05 and 99.95 %, of the normal image and of
      views of it that were not trained on. A defect that one scale sees, such as a scratch, is not averaged away.

    Args:
        fusion: ``typicality``, ``maximum``, ``log_odds``, ``entropy`` or ``paper``.

    Raises:
        InvalidInputError: If ``fusion`` is unknown.
    """

    percentiles: Tensor

    def __init__(self, fusion: str = "typicality") -> None:
        super().__init__()
        check_one_of("fusion", fusion, FUSIONS)
        self.fusion = fusion
        self.register_buffer("percentiles", torch.tensor([-1.0, 0.0, 1.0]))

    def calibrate(self, logits: Tensor) -> None:
        """Store quantiles of normal logits, any shape."""
        levels = torch.tensor(SIGNED.get(self.fusion, SIGNED["typicality"]), device=logits.device)
        values = logits.float().flatten()
        every = -(-values.numel() // MAX_VALUES)
        self.percentiles.copy_(torch.quantile(values[::every], levels))

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits, any shape, to values of the same shape; all but ``paper`` are far from 0 where anomalous."""
        if self.fusion in SIGNED:
            low, median, high = self.percentiles
            distance: Tensor = median - logits
            return distance / torch.where(distance > 0, median - low, high - median).clamp(min=1e-6)
        if self.fusion == "log_odds":
            return -logits
        log_prob = functional.logsigmoid(logits)  # exact where M rounds to 1
        if self.fusion == "entropy":
            log_prob = log_prob.clamp(min=-1.0)
            return -log_prob.exp() * log_prob
        return log_prob.exp() * log_prob  # eq. 4


def fuse(maps: Sequence[Tensor], fusion: str) -> Tensor:
    """Fuse the scales by their mean, eq. 5; maps of either sign by their root mean square or ``maximum``.

    Args:
        maps: Maps of all scales at one size, each of shape (B, 1, H, W).
        fusion: As in ``ScaleAnomalyMap``.

    Returns:
        Anomaly map, shape (B, 1, H, W).
    """
    stacked = torch.stack(list(maps))
    if fusion == "typicality":
        return stacked.square().mean(0).sqrt()
    return stacked.abs().amax(0) if fusion == "maximum" else stacked.mean(0)
