"""Training defects in feature space: Gaussian noise in a part of a feature map.

Papers: SimpleNet, CVPR 2023, https://arxiv.org/abs/2303.15140, adds it everywhere with one deviation for all channels;
SuperSimpleNet, ICPR 2024, https://arxiv.org/abs/2408.03143, within random masks.
"""

import torch
from torch import Tensor
from torch.nn import functional


def add_feature_noise(features: Tensor, mask: Tensor, normal: Tensor, scale: float) -> Tensor:
    """Add noise, in the scale of each channel, to the features that a mask covers, in proportion to the covered share.

    A position of a coarse map that a mask hardly touches is not labelled as a defect, and so is hardly changed.

    Args:
        features: Features, shape (B, C, h, w).
        mask: Masks, shape (B, 1, H, W), bool.
        normal: Images that show no defect and set the scale, shape (B,), bool; where there are none, all do.
        scale: Standard deviation of the noise at covered positions, as a multiple of that of the channel over all
            positions of these images.

    Returns:
        Features, shape (B, C, h, w), unchanged where the mask is empty.
    """
    reference = features[normal] if normal.any() else features
    deviation = reference.std((0, 2, 3), correction=0, keepdim=True)
    covered = functional.adaptive_avg_pool2d(mask.float(), (features.shape[-2], features.shape[-1]))
    return features + covered * scale * deviation * torch.randn_like(features)
