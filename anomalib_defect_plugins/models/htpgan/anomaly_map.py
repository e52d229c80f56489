"""From the discriminators' judgement to how anomalous each pixel is: HTP-GAN's eq. 4, and what we put in its place."""

from torch import Tensor, nn
from torch.nn import functional

from anomalib_defect_plugins.errors import InvalidInputError

FUSIONS = ("log_odds", "entropy", "paper")


class ScaleAnomalyMap(nn.Module):
    """How anomalous one scale finds each pixel, from the logits of its distinguish map M.

    - ``paper``: M log M, eq. 4 as printed. It is low where the discriminator is unsure, and normal texture ends at M
      near 1, so it ranks backwards.
    - ``entropy``: -m log m with m = max(M, 1/e). The sign is turned, and the value rises steadily as M falls, where
      the entropy itself would fall again on the surest defects. A scale that is surer of itself has smaller values by
      orders of magnitude, so that in eq. 5 the least trained scale outvotes all others.
    - ``log_odds``: log (1 - M) / M. For a good discriminator that is the log of the ratio between the densities of
      generated and of normal texture, so the scales' mean adds up their evidence.

    Args:
        fusion: One of the three.

    Raises:
        InvalidInputError: It is none of them.
    """

    def __init__(self, fusion: str = "log_odds") -> None:
        super().__init__()
        if fusion not in FUSIONS:
            msg = f"fusion is {fusion!r}; it must be one of {', '.join(FUSIONS)}"
            raise InvalidInputError(msg)
        self.fusion = fusion

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits, any shape, to values of that shape, high where the image is anomalous (but for ``paper``)."""
        if self.fusion == "log_odds":
            return -logits
        log_prob = functional.logsigmoid(logits)  # exact where M rounds to 1
        if self.fusion == "entropy":
            log_prob = log_prob.clamp(min=-1.0)
            return -log_prob.exp() * log_prob
        return log_prob.exp() * log_prob  # eq. 4
