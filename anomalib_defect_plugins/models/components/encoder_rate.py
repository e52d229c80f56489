"""Learning rates of a network with a pretrained encoder."""

from typing import Any

from torch import nn


def rates(network: nn.Module, learning_rate: float, encoder_rate: float) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimiser: the weights of ``network.encoder`` learn at a rate of their own.

    Args:
        network: Network, with or without an ``encoder``.
        learning_rate: Learning rate of the other weights.
        encoder_rate: Learning rate of the encoder, as a multiple of ``learning_rate``.
    """
    weights = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    encoder = [weight for name, weight in weights if name.startswith("encoder.")]
    rest = [weight for name, weight in weights if not name.startswith("encoder.")]
    groups: list[dict[str, Any]] = [{"params": rest}]
    return [*groups, {"params": encoder, "lr": encoder_rate * learning_rate}] if encoder else groups
