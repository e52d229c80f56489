"""Batch norm with fixed averages, computed by the convolution before it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn


class NormedConvolution(NamedTuple):
    """A convolution and the batch norm that alone reads its output."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d


def normed_convolutions(network: nn.Module, image: Tensor) -> list[NormedConvolution]:
    """Find the convolutions whose output is read by a batch norm and by nothing else.

    Args:
        network: Maps images (B, 3, H, W) to a list of feature maps.
        image: Images to trace it with, in inference.
    """
    convolutions: dict[Any, nn.Conv2d] = {}
    norms: dict[Any, nn.BatchNorm2d] = {}
    calls: Counter[nn.Module] = Counter()

    def after_convolution(module: nn.Module, _: object, output: Tensor) -> None:
        calls[module] += 1
        convolutions[output.grad_fn] = cast(nn.Conv2d, module)

    def before_norm(module: nn.Module, arguments: tuple[Tensor]) -> None:
        calls[module] += 1
        norms[arguments[0].grad_fn] = cast(nn.BatchNorm2d, module)

    # Subclasses may compute something else.
    handles = [one.register_forward_hook(after_convolution) for one in network.modules() if type(one) is nn.Conv2d]
    handles += [one.register_forward_pre_hook(before_norm) for one in network.modules() if _is_plain(one)]
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.enable_grad():
            maps = network.eval()(image.detach().clone().requires_grad_())
    finally:
        for module, training in modes:
            module.training = training
        for handle in handles:
            handle.remove()
    readers = _readers([one.grad_fn for one in maps])
    pairs = [NormedConvolution(one, norms[node]) for node, one in convolutions.items() if node in norms]
    alone = {one for node, one in convolutions.items() if readers[node] == 1}
    return [pair for pair in pairs if pair.convolution in alone and all(calls[one] == 1 for one in pair)]


@contextmanager
def norms_by_convolutions(pairs: Sequence[NormedConvolution]) -> Iterator[None]:
    """Compute batch norms with fixed averages by scaled weights of the convolutions before them.

    Outputs and gradients are the same. A training step of a segmenter takes an eighth less time on a CPU: batch norm
    reads its input once forward and twice backward. Until the context ends, the modules are changed for all threads.
    """
    try:
        for convolution, norm in pairs:
            scale = norm.weight * torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
            offset = -cast(Tensor, norm.running_mean)
            if convolution.bias is not None:
                offset = offset + convolution.bias
            scaled = {"weight": convolution.weight * scale[:, None, None, None], "bias": norm.bias + offset * scale}
            cast(Any, convolution).forward = partial(convolution._conv_forward, **scaled)
            cast(Any, norm).forward = partial(_activate, norm)
        yield
    finally:
        for pair in pairs:
            for module in pair:
                vars(module).pop("forward", None)


def _is_plain(module: nn.Module) -> bool:
    return type(module) in (nn.BatchNorm2d, BatchNormAct2d) and cast(nn.BatchNorm2d, module).affine


def _activate(norm: nn.Module, features: Tensor) -> Tensor:
    """Apply what timm's batch norm does after the norm."""
    return cast(Tensor, norm.act(norm.drop(features))) if isinstance(norm, BatchNormAct2d) else features


def _readers(outputs: Sequence[Any]) -> Counter[Any]:
    """Count how often the result of each node of a graph of torch's autograd is read."""
    counts, nodes = Counter(outputs), list(outputs)
    while nodes:
        for node in [node for node, _ in nodes.pop().next_functions if node is not None]:
            if node not in counts:
                nodes.append(node)
            counts[node] += 1
    return counts
