"""Random masks of defects in many shapes and sizes, from hairlines to blobs, drawn for a whole batch at once.

Lengths are fractions of the shorter side of the image, so masks look alike at any resolution.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_kinds
from anomalib_defect_plugins.core.rng import numpy_rng
from anomalib_defect_plugins.generators.geometry import Floats, Pair, log_uniform

BLOB_SHARE = (0.004, 0.2)
"""Minimum and maximum fraction of the image that thresholded noise covers."""

MIN_CELL = 0.025
"""Minimum cell size of smooth noise, as a fraction of the shorter side; its cost is proportional to 1 / MIN_CELL²."""

BAND_WIDTH = (0.05, 0.4)
"""Minimum and maximum width of a band, as fractions of the shorter side."""

SIDE_DEPTH = (0.06, 0.4)
"""Minimum and maximum depth of a side, as fractions of the extent of the image in its direction."""

HAIRLINE = 1.0
"""Width of the thinnest stroke in pixels, at any image size."""


def random_masks(
    count: int,
    size: Pair,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
    kinds: Sequence[str] | None = None,
) -> Tensor:
    """Draw masks of mixed kinds, all kinds equally likely.

    Args:
        count: Number of masks.
        size: Height and width in pixels, each at least 32.
        rng: CPU generator, the only source of randomness.
        device: Device of the masks.
        kinds: Subset of ``MASK_KINDS``; defaults to ``LOCAL_KINDS``. ``blobs`` is smooth noise above a threshold, in
            several components; ``ellipse`` is one component with a smooth or ragged border; ``stroke`` is a straight or
            wavy line at least one pixel wide; ``band`` is a ragged strip across the whole image; ``side`` is the part
            of the image between one of its borders and a ragged line nearly parallel to it.

    Returns:
        Masks, shape (count, 1, H, W), bool. No mask is empty. A mask covers at most a third of the image, a band or a
        side at most half.

    Raises:
        InvalidInputError: If ``kinds`` is empty or has an unknown kind.
    """
    kinds = LOCAL_KINDS if kinds is None else check_kinds("kinds of masks", kinds, MASK_KINDS)
    device = torch.device(device)
    geometry = numpy_rng(rng)
    chosen = geometry.integers(len(kinds), size=count)
    masks = torch.zeros(count, 1, *size, dtype=torch.bool, device=device)
    for index, kind in enumerate(kinds):
        rows = np.flatnonzero(chosen == index)
        if len(rows):
            masks[torch.from_numpy(rows), 0] = _PAINTERS[kind](len(rows), size, geometry, device)
    return masks


def _smooth_noise(count: int, size: Pair, cells: Floats, rng: np.random.Generator, device: torch.device) -> Tensor:
    """Draw noise (count, H, W) of unit variance, smooth over ``cells`` (count, 2): heights and widths in pixels."""
    rows, columns = (_bells(side, cells[:, axis], device) for axis, side in enumerate(size))
    nodes = rng.standard_normal((count, rows.shape[2], columns.shape[2]), np.float32)
    noise: Tensor = rows @ torch.from_numpy(nodes).to(device) @ columns.mT
    return noise


def _bells(side: int, cell: Floats, device: torch.device) -> Tensor:
    """Return weights (N, side, nodes) of Gaussians ``cell`` (N,) pixels apart that keep the variance of white noise."""
    nodes = torch.arange(int(side / cell.min()) + 3, device=device)
    position = torch.arange(side, device=device)[:, None] / _column(cell, device)
    bells = torch.exp(-((position - nodes + 0.5) ** 2) / 0.8)
    weights: Tensor = bells / bells.norm(dim=2, keepdim=True)
    return weights


def _blobs(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> Tensor:
    stretch = log_uniform(rng, (0.6, 1.6), count)
    cells = log_uniform(rng, (0.04, 0.25), (count, 1)) * min(size) * np.stack([stretch, 1 / stretch], axis=1)
    noise = _smooth_noise(count, size, cells, rng, device)
    noise += 0.3 * _smooth_noise(count, size, np.maximum(cells / 3, MIN_CELL * min(size)), rng, device)
    # A subset of the pixels suffices for the threshold; sorting all of them would dominate the run time.
    step = max(1, min(size) // 64)
    ranked = noise[:, ::step, ::step].flatten(1).sort(dim=1, descending=True).values
    last = torch.from_numpy(log_uniform(rng, BLOB_SHARE, count) * ranked.shape[1]).long().to(device)
    return noise >= ranked.gather(1, last[:, None])[:, None]


def _ellipse(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> Tensor:
    along, across = _axes(count, size, rng, device)
    semi = np.maximum(log_uniform(rng, (0.012, 0.2), count) * min(size), 1.5)
    stretch = log_uniform(rng, (1, 2), count)
    distance = torch.hypot(along / _column(semi * stretch**0.5, device), across / _column(semi / stretch**0.5, device))
    cells = np.repeat(np.maximum(0.5 * semi, MIN_CELL * min(size))[:, None], 2, axis=1)
    border = _smooth_noise(count, size, cells, rng, device).clamp(-2, 2)
    # The factor shapes the border only: at the centre the distance is zero.
    return distance * (1 + _column(rng.uniform(0, 0.3, count), device) * border) <= 1


def _stroke(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> Tensor:
    along, across = _axes(count, size, rng, device)
    length = log_uniform(rng, (0.1, 1.0), count) * min(size)
    width = log_uniform(rng, (HAIRLINE, max(0.05 * min(size), 2.0)), count)
    wave, phase = 2 * np.pi / (length * rng.uniform(0.5, 2, count)), rng.uniform(0, 2 * np.pi, count)
    # A third of the strokes are nearly straight; no slope to the axis exceeds 1.
    height = rng.choice([0.1, 0.5, 1.0], count) * rng.uniform(0, 1, count) / wave
    angle = _column(wave, device) * along + _column(phase, device)
    curve = _column(height, device) * (angle.sin() - _column(np.sin(phase), device))
    slope = _column(height * wave, device) * angle.cos()
    inside = along.abs() <= _column(length / 2, device)
    return inside & ((across - curve).abs() <= _column(width / 2, device) * (1 + slope**2).sqrt())


def _band(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> Tensor:
    _, across = _axes(count, size, rng, device)
    cells = np.repeat(log_uniform(rng, (0.05, 0.3), count)[:, None], 2, axis=1) * min(size)
    noise = _smooth_noise(count, size, cells, rng, device).clamp(-2, 2)
    ragged = _column(log_uniform(rng, (0.002, 0.04), count) * min(size), device) * noise
    return (across + ragged).abs() <= _column(log_uniform(rng, BAND_WIDTH, count) * min(size) / 2, device)


def _side(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> Tensor:
    y = torch.linspace(0, 1, size[0], device=device)[:, None].expand(*size)
    x = torch.linspace(0, 1, size[1], device=device).expand(*size)
    borders = torch.stack([y, 1 - y, x, 1 - x])
    chosen = rng.integers(len(borders), size=count)
    distance, along = (borders[torch.from_numpy(index)] for index in (chosen, (chosen + 2) % len(borders)))
    tilt = _column(rng.uniform(-0.1, 0.1, count), device) * (along - 0.5)
    cells = np.repeat(log_uniform(rng, (0.05, 0.3), count)[:, None], 2, axis=1) * min(size)
    ragged = _column(log_uniform(rng, (0.001, 0.02), count), device)
    noise = _smooth_noise(count, size, cells, rng, device).clamp(-2, 2)
    return distance + tilt + ragged * noise <= _column(rng.uniform(*SIDE_DEPTH, count), device)


def _axes(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return coordinates (count, H, W) in pixels along and across a random direction, relative to a random centre."""
    centres = np.floor(rng.uniform(0.1, 0.9, (count, 2)) * size)
    angle = rng.uniform(0, np.pi, count)
    y = torch.arange(size[0], device=device)[:, None] - _column(centres[:, 0], device)
    x = torch.arange(size[1], device=device) - _column(centres[:, 1], device)
    cos, sin = _column(np.cos(angle), device), _column(np.sin(angle), device)
    return cos * x + sin * y, cos * y - sin * x


def _column(values: Floats, device: torch.device) -> Tensor:
    """Return numbers (N,), one per mask, as (N, 1, 1)."""
    return torch.from_numpy(values.astype(np.float32)).to(device)[:, None, None]


_PAINTERS: dict[str, Callable[[int, Pair, np.random.Generator, torch.device], Tensor]] = {
    "blobs": _blobs,
    "ellipse": _ellipse,
    "stroke": _stroke,
    "band": _band,
    "side": _side,
}

MASK_KINDS = tuple(_PAINTERS)
"""All kinds of mask."""

LOCAL_KINDS = ("blobs", "ellipse", "stroke")
"""Kinds that cover a small part of the image, the default of :func:`random_masks`."""
