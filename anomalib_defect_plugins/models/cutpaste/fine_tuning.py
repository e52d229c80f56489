"""Fine-tuning of a pretrained backbone: first the head alone, then its last stage too, at a lower rate."""

import math
from collections.abc import Callable

import timm
import torch

from anomalib_defect_plugins.layers import Encoder


def freeze_before_last_stage(encoder: Encoder, backbone: str, trained: bool = True) -> None:
    """Exclude the weights of all stages before the last from training.

    Args:
        encoder: Encoder of the backbone.
        backbone: Name of the timm model.
        trained: Whether the last stage is trained.
    """
    last = last_stage(backbone) if trained else set()
    for name, weight in encoder.backbone.named_parameters():
        weight.requires_grad_(name in last)


def last_stage(backbone: str) -> set[str]:
    """Return the names of the weights that the last feature map of a timm model depends on, and no other map does."""
    # On the meta device, which computes nothing. Names do not suffice: a stage may have several modules.
    with torch.device("meta"), torch.inference_mode(False), torch.enable_grad():
        model = timm.create_model(backbone, features_only=True).eval()
        before = model(torch.zeros(1, 3, 64, 64))[-2]
        weights = dict(model.named_parameters())
        gradients = torch.autograd.grad(before.sum(), list(weights.values()), allow_unused=True)
    return {name for name, gradient in zip(weights, gradients, strict=True) if gradient is None}


def late_cosine(steps: int, start: int = 0) -> Callable[[int], float]:
    """Return the learning rate of a step as a multiple of the initial one.

    Args:
        steps: Number of training steps.
        start: First step with a learning rate above 0.

    Returns:
        Function of the step: 0 before ``start``, then a cosine that falls from 1 in step 0 to 0 after the last step.
    """

    def factor(step: int) -> float:
        return (1 + math.cos(math.pi * step / steps)) / 2 if step >= start else 0.0

    return factor
