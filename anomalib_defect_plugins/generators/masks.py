"""Random masks of defects: many shapes and sizes, from hairlines to blobs, drawn for a whole batch at once.

SIDN asks for random masks ``I_m`` without saying which (IEEE TII 2022, section III-A). Lengths here are fractions of
the shorter side of the image, so masks look alike at any size.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_kinds
from anomalib_defect_plugins.core.rng import numpy_rng
from anomalib_defect_plugins.generators.geometry import Pair, log_uniform

BLOB_SHARE = (0.004, 0.2)
"""Least and greatest share of the image that thresholded noise covers."""

FINEST = 0.025
"""Least distance that smooth noise varies over; the time that it takes grows with the square of the inverse."""

BAND_WIDTH = (0.05, 0.4)
"""Least and greatest width of a band, as a fraction of the shorter side."""

HAIRLINE = 1.0
"""Width of the thinnest stroke, in pixels at any size of the image."""


def random_masks(
    count: int,
    size: Pair,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
    kinds: Sequence[str] | None = None,
) -> Tensor:
    """Draw masks of mixed kinds, each kind as likely as another.

    Args:
        count: How many.
        size: Height and width in pixels, 32 or more each.
        rng: Source of all randomness, a generator of the CPU.
        device: Where the masks are made.
        kinds: Some of ``MASK_KINDS``; by default ``LOCAL_KINDS``. ``blobs`` is smooth noise above a threshold, several
            pieces; ``ellipse`` is one lump with a smooth or ragged border; ``stroke`` is a straight or wavy line, a
            hairline of one pixel at the thinnest; ``band`` is a ragged strip across the whole image.

    Returns:
        Masks (count, 1, H, W), bool. None is empty; none covers more than a third of the image, a band half of it.

    Raises:
        InvalidInputError: A kind is unknown, or there is none.
    """
    kinds = LOCAL_KINDS if kinds is None else check_kinds("kinds of masks", kinds, MASK_KINDS)
    geometry = numpy_rng(rng)
    chosen = geometry.integers(len(kinds), size=count)
    masks = torch.zeros(count, 1, *size, dtype=torch.bool, device=device)
    for index, kind in enumerate(kinds):
        rows = np.flatnonzero(chosen == index)
        if len(rows):
            masks[torch.from_numpy(rows), 0] = _PAINTERS[kind](len(rows), size, geometry, device)
    return masks


def smooth_noise(count: int, size: Pair, cells: np.ndarray, rng: np.random.Generator, device: torch.device) -> Tensor:
    """Noise (count, H, W) of unit variance that varies over ``cells`` (count, 2), heights and widths in pixels."""
    rows, columns = (_bells(side, cells[:, axis], device) for axis, side in enumerate(size))
    nodes = rng.standard_normal((count, rows.shape[2], columns.shape[2]), np.float32)
    return rows @ torch.from_numpy(nodes).to(device) @ columns.mT


def _bells(side: int, cell: np.ndarray, device: torch.device) -> Tensor:
    """Weights (N, side, nodes) of Gaussian bells ``cell`` (N,) pixels apart; white noise keeps its variance."""
    nodes = torch.arange(int(side / cell.min()) + 3, device=device)
    position = torch.arange(side, device=device)[:, None] / _column(cell, device)
    bells = torch.exp(-((position - nodes + 0.5) ** 2) / 0.8)
    return bells / bells.norm(dim=2, keepdim=True)


def _blobs(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> Tensor:
    stretch = log_uniform(rng, (0.6, 1.6), count)
    cells = log_uniform(rng, (0.04, 0.25), (count, 1)) * min(size) * np.stack([stretch, 1 / stretch], axis=1)
    noise = smooth_noise(count, size, cells, rng, device)
    noise += 0.3 * smooth_noise(count, size, np.maximum(cells / 3, FINEST * min(size)), rng, device)
    # Ranks on some of the pixels will do for the threshold, and sorting all of them would cost most of the time.
    step = max(1, min(size) // 64)
    ranked = noise[:, ::step, ::step].flatten(1).sort(dim=1, descending=True).values
    last = torch.from_numpy(log_uniform(rng, BLOB_SHARE, count) * ranked.shape[1]).long().to(device)
    return noise >= ranked.gather(1, last[:, None])[:, None]


def _ellipse(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> Tensor:
    along, across = _axes(count, size, rng, device)
    semi = np.maximum(log_uniform(rng, (0.012, 0.2), count) * min(size), 1.5)
    stretch = log_uniform(rng, (1, 2), count)
    distance = torch.hypot(along / _column(semi * stretch**0.5, device), across / _column(semi / stretch**0.5, device))
    cells = np.repeat(np.maximum(0.5 * semi, FINEST * min(size))[:, None], 2, axis=1)
    border = smooth_noise(count, size, cells, rng, device).clamp(-2, 2)
    # The factor shapes the border and cannot empty the centre, where the distance is zero.
    return distance * (1 + _column(rng.uniform(0, 0.3, count), device) * border) <= 1


def _stroke(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> Tensor:
    along, across = _axes(count, size, rng, device)
    length = log_uniform(rng, (0.1, 1.0), count) * min(size)
    width = log_uniform(rng, (HAIRLINE, max(0.05 * min(size), 2.0)), count)
    wave, phase = 2 * np.pi / (length * rng.uniform(0.5, 2, count)), rng.uniform(0, 2 * np.pi, count)
    # A third of the strokes is nearly straight; none is steeper than 1 to its own axis.
    height = rng.choice([0.1, 0.5, 1.0], count) * rng.uniform(0, 1, count) / wave
    angle = _column(wave, device) * along + _column(phase, device)
    curve = _column(height, device) * (angle.sin() - _column(np.sin(phase), device))
    slope = _column(height * wave, device) * angle.cos()
    inside = along.abs() <= _column(length / 2, device)
    return inside & ((across - curve).abs() <= _column(width / 2, device) * (1 + slope**2).sqrt())


def _band(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> Tensor:
    _, across = _axes(count, size, rng, device)
    cells = np.repeat(log_uniform(rng, (0.05, 0.3), count)[:, None], 2, axis=1) * min(size)
    noise = smooth_noise(count, size, cells, rng, device).clamp(-2, 2)
    ragged = _column(log_uniform(rng, (0.002, 0.04), count) * min(size), device) * noise
    return (across + ragged).abs() <= _column(log_uniform(rng, BAND_WIDTH, count) * min(size) / 2, device)


def _axes(count: int, size: Pair, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Coordinates (count, H, W) in pixels along and across a random direction, from a random pixel near no border."""
    centres = np.floor(rng.uniform(0.1, 0.9, (count, 2)) * size)
    angle = rng.uniform(0, np.pi, count)
    y = torch.arange(size[0], device=device)[:, None] - _column(centres[:, 0], device)
    x = torch.arange(size[1], device=device) - _column(centres[:, 1], device)
    cos, sin = _column(np.cos(angle), device), _column(np.sin(angle), device)
    return cos * x + sin * y, cos * y - sin * x


def _column(values: np.ndarray, device: torch.device) -> Tensor:
    """Numbers (N,) as (N, 1, 1), one for each mask."""
    return torch.from_numpy(values.astype(np.float32)).to(device)[:, None, None]


_PAINTERS: dict[str, Callable[[int, Pair, np.random.Generator, torch.device], Tensor]] = {
    "blobs": _blobs,
    "ellipse": _ellipse,
    "stroke": _stroke,
    "band": _band,
}

MASK_KINDS = tuple(_PAINTERS)
"""The kinds of mask that :func:`random_masks` knows."""

LOCAL_KINDS = ("blobs", "ellipse", "stroke")
"""Those that leave most of an image as it is, which is what :func:`random_masks` draws unless told otherwise."""
