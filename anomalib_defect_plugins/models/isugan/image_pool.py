"""Image pool of CycleGAN: discriminators also see fakes of earlier steps, which damps oscillation.

Paper: Learning from simulated and unsupervised images through adversarial training, section 2.3,
https://arxiv.org/abs/1612.07828.
"""

import torch
from torch import Tensor


class ImagePool:
    """History of fake images.

    Args:
        size: Capacity in images; with 0, images pass through unchanged.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def exchange(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return, for each image with probability 1/2, the image itself or a stored one that it replaces.

        Until the pool is full, each image is stored and returned.

        Args:
            images: Fake images, shape (B, C, H, W); gradients are cut.
            rng: CPU generator.

        Returns:
            Images, shape (B, C, H, W).
        """
        return torch.stack([self._exchange(image, rng).to(images) for image in images.detach()])

    def _exchange(self, image: Tensor, rng: torch.Generator) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image)
            return image
        if not self.size or torch.rand((), generator=rng) < 0.5:
            return image
        index = int(torch.randint(self.size, (), generator=rng))
        stored, self.images[index] = self.images[index], image
        return stored
