"""Procedural surface defects: six kinds drawn on an image, each with its exact mask.

Every kind is a pure function from an image and a random generator to a layer: the opacity of the defect per pixel and
the colour it tends to. :func:`draw_defect` lays that layer over the image, so exactness is decided in one place: where
the opacity is zero the image is untouched, and everywhere else it changes by at least ``MIN_CHANGE``.

Lengths are fractions of the shorter side of the image (widths of lines are pixels at 256), so one kind looks alike at
any resolution. Tones are relative to the contrast of the texture, because a defect that shows on smooth metal drowns in
gravel.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, label, uniform_filter1d
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_kinds
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.rng import numpy_rng

MIN_CHANGE = 4 / 255
"""Least change of a pixel in the mask, in intensity: it survives rounding to 8 bits as more than 2/255."""

Layer = tuple[np.ndarray, np.ndarray]
"""Opacity (H, W) in [0, 1], zero outside the defect, and colour (H, W, C) in [0, 1]."""


def draw_defect(image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one defect.

    Args:
        image: (H, W, C), float in [0, 1], both sides at least 32. It is not changed.
        kind: One of ``KINDS``.
        rng: Source of all randomness: the same state gives the same defect.

    Returns:
        The defective image (H, W, C), float32 in [0, 1], equal to ``image`` outside the mask, and the mask (H, W),
        bool, never empty, where the largest change over the channels is at least ``MIN_CHANGE``.

    Raises:
        InvalidInputError: The kind is unknown or the image is not such an array.
    """
    if kind not in KINDS:
        msg = f"unknown kind of defect {kind!r}; choose one of {', '.join(KINDS)}"
        raise InvalidInputError(msg)
    if image.ndim != 3 or min(image.shape[:2]) < 32 or not np.issubdtype(image.dtype, np.floating):
        msg = f"a defect is drawn on floats (H, W, C) with sides of 32 or more, not on {image.dtype} {image.shape}"
        raise InvalidInputError(msg)
    image = image.astype(np.float32, copy=False)
    opacity, colour = _PAINTERS[kind](image, rng)
    mask = opacity > 0
    before = image[mask]
    result = image.copy()
    result[mask] = _make_visible(before, before + opacity[mask][:, None] * (colour[mask] - before))
    return result, mask


def _scratch(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """Light or dark hairlines, straight or gently bent: one, or a few almost parallel ones."""
    size = min(image.shape[:2])
    centre, heading = _position(image, rng), rng.uniform(0, 2 * np.pi)
    opacity = np.zeros(image.shape[:2], np.float32)
    bend = rng.normal(0, 0.8)
    strength = rng.uniform(0.7, 1.0)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        steps = _steps(rng.uniform(0.25, 0.8) * size)
        headings = heading + rng.normal(0, 0.06) + bend * np.linspace(-0.5, 0.5, steps)
        points = _walk(centre + rng.normal(0, 0.04 * size, 2), headings, origin=0.5)
        pressure = 0.75 + 0.25 * np.sin(np.pi * np.linspace(0.05, 0.95, steps))
        radii = _width(rng.uniform(1.2, 2.6), size) / 2 * pressure
        opacity = np.maximum(opacity, _stroke(opacity.shape, points, radii, strength * pressure))
    return opacity, np.full_like(image, _tone(image, rng, _direction(image, rng), least=2.0))


def _crack(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A dark, thin, branching random walk over a good part of the image; width and darkness vary along it."""
    size = min(image.shape[:2])
    heading, width, strength = rng.uniform(0, 2 * np.pi), rng.uniform(1.6, 4.0), rng.uniform(0.75, 1.0)
    opacity = np.zeros(image.shape[:2], np.float32)
    # A branch is a walk like its parent, shorter and thinner; (start, heading, length, width, where it starts).
    walks = [(_position(image, rng), heading, rng.uniform(0.6, 1.4) * size, width, rng.uniform(0.3, 0.7))]
    for generation in range(3):
        children = []
        for start, direction, length, thickness, origin in walks:
            steps = _steps(length)
            bends = [share * _wander(steps, size / part, rng) for share, part in ((0.4, 10), (0.35, 40), (0.35, 130))]
            headings = direction + sum(bends)
            points = _walk(start, headings, origin)
            radii = _width(thickness, size) / 2 * np.clip(1 + 0.35 * _wander(steps, size / 25, rng), 0.4, 1.6)
            darkness = strength * np.clip(0.85 + 0.15 * _wander(steps, size / 15, rng), 0.55, 1.0)
            opacity = np.maximum(opacity, _stroke(opacity.shape, points, np.maximum(radii, 0.6), darkness))
            for _ in range(rng.poisson(1.6 / (generation + 1))):
                turn = rng.choice([-1, 1]) * rng.uniform(0.4, 1.3)
                fork = points[rng.integers(steps)]
                children.append((fork, direction + turn, length * rng.uniform(0.15, 0.5), thickness * 0.75, 0.0))
        walks = children
    return opacity, np.full_like(image, _tone(image, rng, -1, least=2.0))


def _hole(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A dark pit with a ragged border: one inner wall catches some light, the other lies in shadow."""
    depth, (along, across) = _lump(image, rng, radius=rng.uniform(0.03, 0.09), ragged=rng.uniform(0.1, 0.25))
    angle = rng.uniform(0, 2 * np.pi)
    wall = np.clip(np.cos(angle) * along + np.sin(angle) * across, 0, 1) * (1 - np.clip(depth, 0, 1))
    floor = _tone(image, rng, -1) * rng.uniform(0.3, 0.9)
    shade = floor + rng.uniform(0.1, 0.3) * wall * image.mean()
    colour = shade[..., None] * np.ones_like(image) + 0.1 * (_blur(image, 1.0) - image.mean())
    return _edge(depth, 0.1) * rng.uniform(0.85, 1.0), np.clip(colour, 0, 1)


def _stain(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A translucent darkening with an irregular border, slightly tinted on images of several channels."""
    depth, _ = _lump(image, rng, radius=rng.uniform(0.08, 0.2), ragged=rng.uniform(0.2, 0.35))
    tint = rng.normal(0, 0.03, image.shape[2]) if image.shape[2] > 1 else np.zeros(1)
    dirt = np.clip(rng.uniform(0.05, 0.3) + tint, 0, 1)
    # Liquid dries from the rim, so many stains are darker there than in their middle.
    rim = rng.uniform(0, 0.5) * np.exp(-(((depth - 0.15) / 0.12) ** 2))
    density = rng.uniform(0.3, 0.65) * (1 - 0.15 * _noise(depth.shape, 0.05, rng)) + 0.3 * rim
    return _edge(depth, 0.2) * np.clip(density, 0.2, 0.9), image * dirt


def _blob(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A lump of foreign matter, brighter or darker than the surface, lit from one side."""
    depth, (along, across) = _lump(image, rng, radius=rng.uniform(0.03, 0.08), ragged=rng.uniform(0.03, 0.15))
    angle = rng.uniform(0, 2 * np.pi)
    lit = np.cos(angle) * along + np.sin(angle) * across
    height = np.sqrt(np.clip(depth, 0, 1))
    shade = _tone(image, rng, _direction(image, rng)) + rng.uniform(0.08, 0.2) * lit + 0.1 * (height - 0.5)
    off_glint = np.hypot(along - 0.4 * np.cos(angle), across - 0.4 * np.sin(angle))
    glint = rng.uniform(0, 0.4) * np.exp(-((off_glint / 0.22) ** 2))
    colour = (shade + glint)[..., None] * np.ones_like(image)
    return _edge(depth, 0.15) * rng.uniform(0.75, 1.0), np.clip(colour, 0, 1)


def _missing_texture(image: np.ndarray, rng: np.random.Generator) -> Layer:
    """A patch whose texture is worn away: the local mean is left, and a trace of the structure."""
    depth, _ = _lump(image, rng, radius=rng.uniform(0.07, 0.18), ragged=rng.uniform(0.1, 0.3))
    mean = _blur(image, rng.uniform(0.04, 0.08) * min(image.shape[:2]))
    return _edge(depth, 0.1) * rng.uniform(0.8, 1.0), mean


_PAINTERS: dict[str, Callable[[np.ndarray, np.random.Generator], Layer]] = {
    "scratch": _scratch,
    "crack": _crack,
    "hole": _hole,
    "stain": _stain,
    "blob": _blob,
    "missing_texture": _missing_texture,
}

KINDS = tuple(_PAINTERS)
"""The kinds of defect that :func:`draw_defect` knows."""


class ProceduralDefects(DefectGenerator):
    """Draw one of several kinds of surface defect on each image, on the CPU, image by image.

    Args:
        kinds: Some of ``KINDS``; each is as likely as another.

    Raises:
        InvalidInputError: A kind is unknown, or there is none.
    """

    name: ClassVar[str] = "procedural"
    batched: ClassVar[bool] = False

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        self.kinds = check_kinds("kinds of ProceduralDefects", kinds, KINDS)

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw on each image of (B, C, H, W) with :func:`draw_defect`."""
        geometry = numpy_rng(rng)
        arrays = images.detach().permute(0, 2, 3, 1).cpu().numpy()
        drawn = [draw_defect(image, str(geometry.choice(self.kinds)), geometry) for image in arrays]
        defective, masks = (torch.from_numpy(np.stack(parts)).to(images.device) for parts in zip(*drawn, strict=True))
        return defective.permute(0, 3, 1, 2), masks[:, None]


def _make_visible(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Push pixels (N, C) that changed by less than ``MIN_CHANGE`` on to it, in the direction that has room."""
    after = np.clip(after, 0, 1)
    faint = np.abs(after - before).max(axis=1, keepdims=True) < MIN_CHANGE
    brighter = (after - before).mean(axis=1, keepdims=True) > 0
    brighter |= before.min(axis=1, keepdims=True) < MIN_CHANGE
    brighter &= before.max(axis=1, keepdims=True) <= 1 - MIN_CHANGE
    pushed = np.clip(before + np.where(brighter, MIN_CHANGE, -MIN_CHANGE), 0, 1)
    return np.where(faint, pushed, after)


def _position(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A point (y, x) that keeps clear of the border."""
    return rng.uniform(0.15, 0.85, 2) * image.shape[:2]


def _tone(image: np.ndarray, rng: np.random.Generator, direction: int, least: float = 1.5) -> float:
    """An intensity on the dark (-1) or bright (+1) side of the texture, ``least`` of its deviations away or more.

    Thin lines need more of it than patches: a line as dark as the gaps between pebbles cannot be seen.
    """
    distance = max(rng.uniform(least, 3.2) * float(image.std()), rng.uniform(0.15, 0.35))
    return float(np.clip(image.mean() + direction * distance, 0.02, 0.98))


def _direction(image: np.ndarray, rng: np.random.Generator) -> int:
    """Bright (+1) or dark (-1): either, unless the surface leaves room on one side only."""
    mean = float(image.mean())
    if not 0.3 < mean < 0.7:
        return 1 if mean < 0.5 else -1
    return int(rng.choice([-1, 1]))


def _width(pixels: float, size: int) -> float:
    return max(1.2, pixels * size / 256)


def _steps(length: float) -> int:
    return max(4, round(2 * length))


def _walk(start: np.ndarray, headings: np.ndarray, origin: float) -> np.ndarray:
    """Points (N, 2) half a pixel apart, the one at the fraction ``origin`` of the way being ``start``."""
    points = np.cumsum(0.5 * np.stack([np.sin(headings), np.cos(headings)], axis=1), axis=0)
    return points - points[int(origin * (len(points) - 1))] + start


def _wander(steps: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (N,) of unit deviation that varies over ``scale`` pixels of a walk."""
    noise = gaussian_filter1d(rng.standard_normal(steps), 2 * scale, mode="reflect")
    return noise * np.sqrt(2 * np.sqrt(np.pi) * 2 * scale)


def _stroke(shape: tuple[int, int], points: np.ndarray, radii: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Opacity (H, W) of discs along a walk, cut where they cover less than half of a pixel."""
    reach = int(np.ceil(radii.max())) + 1
    offsets = np.arange(-reach, reach + 1)
    cell = np.round(points).astype(int)
    ys, xs = np.broadcast_arrays(cell[:, 0, None, None] + offsets[:, None], cell[:, 1, None, None] + offsets)
    distance = np.hypot(ys - points[:, 0, None, None], xs - points[:, 1, None, None])
    cover = np.clip(radii[:, None, None] + 0.5 - distance, 0, 1)
    keep = (cover >= 0.5) & (ys >= 0) & (ys < shape[0]) & (xs >= 0) & (xs < shape[1])
    canvas = np.zeros(shape, np.float32)
    np.maximum.at(canvas, (ys[keep], xs[keep]), (cover * opacity[:, None, None])[keep].astype(np.float32))
    return canvas


def _lump(
    image: np.ndarray,
    rng: np.random.Generator,
    radius: float,
    ragged: float,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """An ellipse with a noisy border.

    Returns:
        Depth (H, W): 1 at the centre, 0 on the border, negative outside; and the two coordinates (H, W) along its axes
        in units of the semi-axes.
    """
    height, width = image.shape[:2]
    semi = max(2.5, radius * min(height, width))
    stretch, angle = rng.uniform(1.0, 1.6), rng.uniform(0, np.pi)
    centre = _position(image, rng)
    y, x = np.mgrid[:height, :width] - centre[:, None, None]
    along = (np.cos(angle) * x + np.sin(angle) * y) / (semi * np.sqrt(stretch))
    across = (np.cos(angle) * y - np.sin(angle) * x) / (semi / np.sqrt(stretch))
    border = _noise((height, width), 0.6 * semi / min(height, width), rng)
    # Damped towards the centre, so that noise shapes the border and never punches through the middle.
    distance = np.hypot(along, across)
    depth = 1 - distance - ragged * border * np.clip(distance, 0, 1)
    return np.where(_same_piece(depth > 0, centre), depth, np.minimum(depth, 0)), (along, across)


def _same_piece(mask: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The connected part of ``mask`` (H, W) that holds ``point``: noise leaves specks beside a lump."""
    parts, _ = label(mask)
    y, x = np.round(point).astype(int)
    return parts == parts[y, x]


def _noise(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (H, W) in [-2, 2] in two octaves, the coarser varying over ``scale`` of the shorter side."""
    total = np.zeros(shape)
    for octave, weight in ((1, 1.0), (2.5, 0.5)):
        cell = max(2.0, scale * min(shape) / octave)
        rows, columns = (_bells(side, cell) for side in shape)
        total += weight * rows @ rng.standard_normal((rows.shape[1], columns.shape[1])) @ columns.T
    return np.clip(total, -2, 2)


def _bells(side: int, cell: float) -> np.ndarray:
    """Weights (side, nodes) of Gaussian bells ``cell`` pixels apart, scaled so that white noise keeps its variance."""
    nodes = np.arange(int(np.ceil(side / cell)) + 2)
    bells = np.exp(-((np.arange(side)[:, None] / cell - nodes + 0.5) ** 2) / 0.8)
    return bells / np.linalg.norm(bells, axis=1, keepdims=True)


def _edge(depth: np.ndarray, softness: float) -> np.ndarray:
    """Opacity in {0} or [0.5, 1]: rises over ``softness`` of the depth, cut on the border."""
    return np.where(depth > 0, np.clip(0.5 + 0.5 * depth / softness, 0, 1), 0).astype(np.float32)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Two passes of a box as wide as makes the deviation ``sigma``: a Gaussian's cost would grow with it."""
    width = max(2, round(sigma * np.sqrt(6)))
    for axis in (0, 1, 0, 1):
        image = uniform_filter1d(image, width, axis=axis, mode="reflect")
    return image
