"""From the discriminators' judgement to one anomaly map: HTP-GAN's eq. 4 and 5, and what we put in their place."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.errors import InvalidInputError

FUSIONS = ("calibrated", "entropy", "paper")


class ScaleAnomalyMap(nn.Module):
    """How anomalous one scale finds each pixel, from the logits of its distinguish map M.

    - ``paper``: H = M log M, eq. 4 as printed. It is low where the discriminator is unsure, and normal texture ends
      at M near 1, so it ranks backwards.
    - ``entropy``: -m log m with m = max(M, 1/e). The sign is turned, and the value rises steadily as M falls, where
      the entropy itself would fall again on the surest defects.
    - ``calibrated``: by how many standard deviations of the normal image's own logits a pixel is less normal than
      that image's mean, in [0, ``limit``]. A discriminator that is surer of itself has a smaller entropy by orders of
      magnitude, so that in eq. 5 the least trained scale would outvote all others; calibrated scales weigh the same.

    Args:
        fusion: One of the three.
        limit: Most that one scale can say, in standard deviations.
    """

    def __init__(self, fusion: str = "calibrated", limit: float = 5.0) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            msg = f"fusion is {fusion!r}; it must be one of {', '.join(FUSIONS)}"
            raise InvalidInputError(msg)
        self.fusion = fusion
        self.limit = limit
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def calibrate(self, logits: Tensor) -> None:
        """Take mean and standard deviation from the normal image's logits, any shape."""
        self.mean.copy_(logits.mean())
        self.std.copy_(logits.std().clamp(min=1e-6))

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits, any shape, to values that are high where the image is anomalous (but for ``paper``)."""
        if self.fusion == "calibrated":
            return ((self.mean - logits) / self.std).clamp(0.0, self.limit)
        log_prob = functional.logsigmoid(logits)  # exact where M rounds to 1
        if self.fusion == "entropy":
            log_prob = log_prob.clamp(min=-1.0)
            return -log_prob.exp() * log_prob
        return log_prob.exp() * log_prob  # eq. 4
