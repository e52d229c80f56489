"""Thresholding and normalisation of scores and anomaly maps, from operators of exported graphs.

OpenVINO drops sums with a constant near 0, and rounds constants that are in the range of half precision. Constants are
therefore kept out of both ranges.
"""

import torch
from torch import Tensor

TAIL = 2**-10
"""Part of [0, 1] at either end for values outside the validated range, which clipping would make equal."""

BELOW_HALF = 0.5 - 2**-25
"""The highest float32 value below a half."""

ROUNDING = 2**-22
"""Relative distance from the threshold up to which a bound is the same number but for the last digits."""

BEYOND_HALF_PRECISION = 2.0**17
"""A power of two that half precision does not represent."""


def reaches(values: Tensor, threshold: Tensor) -> Tensor:
    """Return which values are at or above a threshold, a scalar.

    Both are multiplied by a power of two, which is exact.
    """
    values = values.to(torch.promote_types(values.dtype, threshold.dtype))
    scale = _unit(threshold) * BEYOND_HALF_PRECISION
    return values * scale >= threshold * scale


def _unit(number: Tensor) -> Tensor:
    """Return the power of two that brings a number to 1 or more and below 2, within the range of single precision."""
    exponent = torch.where(number == 0, torch.zeros_like(number), number.abs().log2().floor())
    return torch.exp2(-exponent.clamp(-100, 100))


def _from_origin(values: Tensor, origin: Tensor, end: Tensor) -> Tensor:
    """Return the position of values between an origin, 0, and an end, 1."""
    scale = _unit(end - origin)
    return (values * scale - origin * scale) / ((end - origin) * scale)


def normalize(values: Tensor, low: Tensor, high: Tensor, threshold: Tensor, tail: float = TAIL) -> Tensor:
    """Map values to [0, 1], linearly between the lowest one, the threshold and the highest one.

    The threshold becomes 0.5, and a value is mapped to 0.5 or more exactly if it is at or above the threshold. The
    lowest and the highest value become ``tail`` and ``1 - tail`` to within 0.1 %, the values beyond them approach 0
    and 1.

    Args:
        values: Scores or maps of any shape.
        low: Lowest value of the range, scalar.
        high: Highest value of the range, scalar.
        threshold: Threshold, scalar; without a finite one, the middle of the range becomes 0.5.
        tail: Part of [0, 1] at either end for values outside the range; 0 if there are none.

    Returns:
        Normalised values, in single precision or better.
    """
    values = values.to(torch.promote_types(values.dtype, threshold.dtype))
    middle = torch.where(torch.isfinite(threshold), threshold, low + (high - low) / 2)
    low, high = _distinct_bounds(low, high, middle)
    is_above = reaches(values, middle)
    # Each side starts at its own lower end, so that values far below the threshold keep their relative precision.
    upper, lower = _from_origin(values, middle, high), _from_origin(values, low, middle)
    position = torch.where(is_above, 1 + upper, lower) / 2
    inside = position.clamp(0, 1)
    if tail:
        beyond = position - inside
        inside = (inside + tail + tail * beyond.sign() * (1 - 1 / (1 + beyond.abs()))) / (1 + 2 * tail)
    return torch.where(is_above, inside.clamp(min=0.5), inside.clamp(max=BELOW_HALF))


def _distinct_bounds(low: Tensor, high: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds below and above the middle; a missing one is as far from it as the other one."""
    below, above = middle - low, high - middle
    rounding = ROUNDING * middle.abs()
    has_below = (below > rounding) & torch.isfinite(below)
    has_above = (above > rounding) & torch.isfinite(above)
    # All validated values are equal to the threshold.
    unit = torch.where(middle == 0, torch.ones_like(middle), middle.abs())
    return (
        torch.where(has_below, low, middle - torch.where(has_above, above, unit)),
        torch.where(has_above, high, middle + torch.where(has_below, below, unit)),
    )
