"""From the discriminators' judgement to one anomaly map: HTP-GAN's eq. 4 and 5, and what we put in their place."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.core.checks import check_one_of

FUSIONS = ("typicality", "log_odds", "entropy", "paper")


class ScaleAnomalyMap(nn.Module):
    """How anomalous one scale finds each pixel, from the logits of its distinguish map M.

    - ``paper``: M log M, eq. 4 as printed. It is low where the discriminator is unsure, and normal texture ends at M
      near 1, so it ranks backwards.
    - ``entropy``: -m log m with m = max(M, 1/e). The sign is turned, and the value rises steadily as M falls, where
      the entropy itself would fall again on the surest defects. A scale that is surer of itself has smaller values by
      orders of magnitude, so that in eq. 5 the least trained scale outvotes all others.
    - ``log_odds``: log (1 - M) / M. For a good discriminator that is the log of the ratio between the densities of
      generated and of normal texture, so the scales' mean adds up their evidence. Texture that is worn away looks
      *more* normal than normal texture does and is missed.
    - ``typicality``: how far the logit lies from the normal image's median logit, to either side, in units of the
      distance between that median and the 2nd or 98th percentile.

    Args:
        fusion: One of the four.

    Raises:
        InvalidInputError: It is none of them.
    """

    def __init__(self, fusion: str = "typicality") -> None:
        super().__init__()
        check_one_of("fusion", fusion, FUSIONS)
        self.fusion = fusion
        self.register_buffer("percentiles", torch.tensor([-1.0, 0.0, 1.0]))

    def calibrate(self, logits: Tensor) -> None:
        """Take the 2nd, 50th and 98th percentile from the normal image's logits, any shape."""
        levels = torch.tensor([0.02, 0.5, 0.98], device=logits.device)
        self.percentiles.copy_(torch.quantile(logits.float().flatten(), levels))

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits, any shape, to values of that shape; all but ``paper`` are far from 0 where anomalous."""
        if self.fusion == "typicality":
            low, median, high = self.percentiles
            distance = median - logits
            return distance / torch.where(distance > 0, median - low, high - median).clamp(min=1e-6)
        if self.fusion == "log_odds":
            return -logits
        log_prob = functional.logsigmoid(logits)  # exact where M rounds to 1
        if self.fusion == "entropy":
            log_prob = log_prob.clamp(min=-1.0)
            return -log_prob.exp() * log_prob
        return log_prob.exp() * log_prob  # eq. 4


def fuse(maps: Sequence[Tensor], fusion: str) -> Tensor:
    """Fuse the scales: their mean, eq. 5; for ``typicality``, which has either sign, their root mean square.

    Args:
        maps: Maps of all scales at one size, each ``(B, 1, H, W)``.
        fusion: As in ``ScaleAnomalyMap``.

    Returns:
        ``(B, 1, H, W)``.
    """
    stacked = torch.stack(list(maps))
    if fusion == "typicality":
        return stacked.square().mean(0).sqrt()
    return stacked.mean(0)


def image_score(anomaly_map: Tensor) -> Tensor:
    """Give the mean of the highest hundredth of the pixels, which one bright grain does not decide.

    Args:
        anomaly_map: ``(B, 1, H, W)``.

    Returns:
        ``(B,)``.
    """
    count = max(1, anomaly_map.shape[-2] * anomaly_map.shape[-1] // 100)
    return anomaly_map.flatten(1).topk(count, dim=1).values.mean(1)
