"""Image pool of CycleGAN: discriminators see fakes of earlier steps too, so that they do not swing with the generators.

Paper: Learning from simulated and unsupervised images through adversarial training, section 2.3,
https://arxiv.org/abs/1612.07828.
"""

import torch
from torch import Tensor


class ImagePool:
    """Keeps fakes.

    Args:
        size: How many; with 0 each image comes back as it is.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Give for each image, by even chance, itself or an earlier one in whose place it is kept.

        Until the pool is full, each image is kept and comes back.

        Args:
            images: (B, C, H, W), which no gradient need flow through.
            rng: Source of the chance, a generator of the CPU.

        Returns:
            (B, C, H, W).
        """
        return torch.stack([self._exchange(image, rng).to(images) for image in images.detach()])

    def _exchange(self, image: Tensor, rng: torch.Generator) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image)
            return image
        if not self.size or torch.rand((), generator=rng) < 0.5:
            return image
        place = int(torch.randint(self.size, (), generator=rng))
        earlier, self.images[place] = self.images[place], image
        return earlier
