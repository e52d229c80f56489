"""Procedural surface defects: six kinds drawn on an image, each with its exact mask.

Each kind is a pure function from an image and a random generator to a layer: the opacity and the colour of the defect
per pixel. :func:`draw_defect` blends the layer into the image, so masks are exact by construction: where the opacity is
zero the image is unchanged, and everywhere else it changes by at least ``MIN_CHANGE``.

Lengths are fractions of the shorter side of the image (line widths are pixels at 256), so a kind looks alike at any
resolution. Tones are relative to the contrast of the texture, because a defect that is visible on smooth metal is
invisible on gravel.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter1d, label, uniform_filter1d
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_kinds
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE, DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.rng import numpy_rng

MIN_CHANGE = 4 / 255
"""Minimum change of a pixel inside the mask, in intensity; exceeds 2/255 after rounding to 8 bits."""

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

Layer = tuple[Floats, Floats]
"""Opacity (H, W) in [0, 1], zero outside the defect, and colour (H, W, C) in [0, 1]."""


def draw_defect(image: Floats, kind: str, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], Mask]:
    """Draw one defect.

    Args:
        image: Image, shape (H, W, C), float in [0, 1], H and W at least ``MIN_SIDE``. It is not modified.
        kind: One of ``KINDS``.
        rng: The only source of randomness: the same state yields the same defect.

    Returns:
        The defective image, shape (H, W, C), float32 in [0, 1], equal to ``image`` outside the mask, and the mask,
        shape (H, W), bool, never empty. Inside, the largest change over the channels is at least ``MIN_CHANGE``.

    Raises:
        InvalidInputError: If the kind is unknown, or the shape or dtype of the image is invalid.
    """
    if kind not in KINDS:
        msg = f"unknown kind of defect {kind!r}; choose one of {', '.join(KINDS)}"
        raise InvalidInputError(msg)
    if image.ndim != 3 or min(image.shape[:2]) < MIN_SIDE or not np.issubdtype(image.dtype, np.floating):
        form = f"{image.dtype} {image.shape}"
        msg = f"defects are drawn on floats (H, W, C) with sides of {MIN_SIDE} or more, not on {form}"
        raise InvalidInputError(msg)
    image = image.astype(np.float32, copy=False)
    opacity, colour = _PAINTERS[kind](image, rng)
    mask = opacity > 0
    before = image[mask]
    result: npt.NDArray[np.float32] = image.copy()
    result[mask] = _make_visible(before, before + opacity[mask][:, None] * (colour[mask] - before))
    return result, mask


def _scratch(image: Floats, rng: np.random.Generator) -> Layer:
    """Draw light or dark hairlines, straight or slightly bent: one, or a few almost parallel ones."""
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
    return opacity, np.full_like(image, _tone(image, rng, _direction(image, rng), min_contrast=2.0))


def _crack(image: Floats, rng: np.random.Generator) -> Layer:
    """Draw a dark, thin, branching random walk across much of the image; its width and darkness vary."""
    size = min(image.shape[:2])
    heading, width, strength = rng.uniform(0, 2 * np.pi), rng.uniform(1.6, 4.0), rng.uniform(0.75, 1.0)
    opacity = np.zeros(image.shape[:2], np.float32)
    # A branch is a shorter and thinner walk. Each entry: start, heading, length, width, position of the start on it.
    walks = [(_position(image, rng), heading, rng.uniform(0.6, 1.4) * size, width, rng.uniform(0.3, 0.7))]
    for generation in range(3):
        children = []
        for start, direction, length, thickness, origin in walks:
            steps = _steps(length)
            bends = [share * _wander(steps, size / part, rng) for share, part in ((0.4, 10), (0.35, 40), (0.35, 130))]
            headings = direction + sum(bends, np.zeros(steps))
            points = _walk(start, headings, origin)
            radii = _width(thickness, size) / 2 * np.clip(1 + 0.35 * _wander(steps, size / 25, rng), 0.4, 1.6)
            darkness = strength * np.clip(0.85 + 0.15 * _wander(steps, size / 15, rng), 0.55, 1.0)
            opacity = np.maximum(opacity, _stroke(opacity.shape, points, np.maximum(radii, 0.6), darkness))
            for _ in range(rng.poisson(1.6 / (generation + 1))):
                turn = rng.choice([-1, 1]) * rng.uniform(0.4, 1.3)
                fork = points[rng.integers(steps)]
                children.append((fork, direction + turn, length * rng.uniform(0.15, 0.5), thickness * 0.75, 0.0))
        walks = children
    return opacity, np.full_like(image, _tone(image, rng, -1, min_contrast=2.0))


def _hole(image: Floats, rng: np.random.Generator) -> Layer:
    """Draw a dark pit with a ragged border: one inner wall is lit, the opposite one is in shadow."""
    depth, (along, across) = _lump(image, rng, radius=rng.uniform(0.03, 0.09), ragged=rng.uniform(0.1, 0.25))
    angle = rng.uniform(0, 2 * np.pi)
    wall = np.clip(np.cos(angle) * along + np.sin(angle) * across, 0, 1) * (1 - np.clip(depth, 0, 1))
    floor = _tone(image, rng, -1) * rng.uniform(0.3, 0.9)
    shade = floor + rng.uniform(0.1, 0.3) * wall * image.mean()
    colour = shade[..., None] * np.ones_like(image) + 0.1 * (_blur(image, 1.0) - image.mean())
    return _edge(depth, 0.1) * rng.uniform(0.85, 1.0), np.clip(colour, 0, 1)


def _stain(image: Floats, rng: np.random.Generator) -> Layer:
    """Draw a translucent darkening with an irregular border, slightly tinted on images with several channels."""
    depth, _ = _lump(image, rng, radius=rng.uniform(0.08, 0.2), ragged=rng.uniform(0.2, 0.35))
    tint = rng.normal(0, 0.03, image.shape[2]) if image.shape[2] > 1 else np.zeros(1)
    dirt = np.clip(rng.uniform(0.05, 0.3) + tint, 0, 1)
    # A liquid dries from its rim, which is why many stains are darker there.
    rim = rng.uniform(0, 0.5) * np.exp(-(((depth - 0.15) / 0.12) ** 2))
    density = rng.uniform(0.3, 0.65) * (1 - 0.15 * _noise(depth.shape, 0.05, rng)) + 0.3 * rim
    return _edge(depth, 0.2) * np.clip(density, 0.2, 0.9), image * dirt


def _blob(image: Floats, rng: np.random.Generator) -> Layer:
    """Draw a lump of foreign matter, brighter or darker than the surface, lit from one side."""
    depth, (along, across) = _lump(image, rng, radius=rng.uniform(0.03, 0.08), ragged=rng.uniform(0.03, 0.15))
    angle = rng.uniform(0, 2 * np.pi)
    lit = np.cos(angle) * along + np.sin(angle) * across
    height = np.sqrt(np.clip(depth, 0, 1))
    shade = _tone(image, rng, _direction(image, rng)) + rng.uniform(0.08, 0.2) * lit + 0.1 * (height - 0.5)
    off_glint = np.hypot(along - 0.4 * np.cos(angle), across - 0.4 * np.sin(angle))
    glint = rng.uniform(0, 0.4) * np.exp(-((off_glint / 0.22) ** 2))
    colour = (shade + glint)[..., None] * np.ones_like(image)
    return _edge(depth, 0.15) * rng.uniform(0.75, 1.0), np.clip(colour, 0, 1)


def _missing_texture(image: Floats, rng: np.random.Generator) -> Layer:
    """Draw a patch with the texture worn away: the local mean remains, and a trace of the structure."""
    depth, _ = _lump(image, rng, radius=rng.uniform(0.07, 0.18), ragged=rng.uniform(0.1, 0.3))
    mean = _blur(image, rng.uniform(0.04, 0.08) * min(image.shape[:2]))
    return _edge(depth, 0.1) * rng.uniform(0.8, 1.0), mean


_PAINTERS: dict[str, Callable[[Floats, np.random.Generator], Layer]] = {
    "scratch": _scratch,
    "crack": _crack,
    "hole": _hole,
    "stain": _stain,
    "blob": _blob,
    "missing_texture": _missing_texture,
}

KINDS = tuple(_PAINTERS)
"""All kinds of defect."""


class ProceduralDefects(DefectGenerator):
    """Draw one of several kinds of surface defect on each image, on the CPU, image by image.

    Args:
        kinds: Subset of ``KINDS``; all are equally likely.

    Raises:
        InvalidInputError: If ``kinds`` is empty or has an unknown kind.
    """

    name: ClassVar[str] = "procedural"
    batched: ClassVar[bool] = False

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        self.kinds = check_kinds("kinds of ProceduralDefects", kinds, KINDS)

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw on each image of (B, C, H, W)."""
        geometry = numpy_rng(rng)
        arrays = images.detach().permute(0, 2, 3, 1).cpu().numpy()
        drawn = [draw_defect(image, str(geometry.choice(self.kinds)), geometry) for image in arrays]
        defective, masks = (torch.from_numpy(np.stack(parts)).to(images.device) for parts in zip(*drawn, strict=True))
        return defective.permute(0, 3, 1, 2), masks[:, None]


def _make_visible(before: Floats, after: Floats) -> Floats:
    """Change pixels (N, C) by at least ``MIN_CHANGE``, towards the side that stays within [0, 1]."""
    after = np.clip(after, 0, 1)
    faint = np.abs(after - before).max(axis=1, keepdims=True) < MIN_CHANGE
    brighter = (after - before).mean(axis=1, keepdims=True) > 0
    brighter |= before.min(axis=1, keepdims=True) < MIN_CHANGE
    brighter &= before.max(axis=1, keepdims=True) <= 1 - MIN_CHANGE
    pushed = np.clip(before + np.where(brighter, MIN_CHANGE, -MIN_CHANGE), 0, 1)
    return np.where(faint, pushed, after)


def _position(image: Floats, rng: np.random.Generator) -> Floats:
    """Draw a point (y, x) away from the border."""
    position: Floats = rng.uniform(0.15, 0.85, 2) * image.shape[:2]
    return position


def _tone(image: Floats, rng: np.random.Generator, direction: int, min_contrast: float = 1.5) -> float:
    """Draw an intensity darker (-1) or brighter (+1) than the mean by at least ``min_contrast`` standard deviations.

    Thin lines need more contrast than patches: a line as dark as the gaps between pebbles is invisible.
    """
    distance = max(rng.uniform(min_contrast, 3.2) * float(image.std()), rng.uniform(0.15, 0.35))
    return float(np.clip(image.mean() + direction * distance, 0.02, 0.98))


def _direction(image: Floats, rng: np.random.Generator) -> int:
    """Draw bright (+1) or dark (-1); on a very dark or bright surface, return the other tone."""
    mean = float(image.mean())
    if not 0.3 < mean < 0.7:
        return 1 if mean < 0.5 else -1
    return int(rng.choice([-1, 1]))


def _width(pixels: float, size: int) -> float:
    return max(1.2, pixels * size / 256)


def _steps(length: float) -> int:
    return max(4, round(2 * length))


def _walk(start: Floats, headings: Floats, origin: float) -> Floats:
    """Return points (N, 2) half a pixel apart, placed with ``start`` at the fraction ``origin`` of the walk."""
    points = np.cumsum(0.5 * np.stack([np.sin(headings), np.cos(headings)], axis=1), axis=0)
    walk: Floats = points - points[int(origin * (len(points) - 1))] + start
    return walk


def _wander(steps: int, scale: float, rng: np.random.Generator) -> Floats:
    """Draw noise (N,) of unit standard deviation, smooth over ``scale`` pixels of a walk."""
    noise: Floats = gaussian_filter1d(rng.standard_normal(steps), 2 * scale, mode="reflect")
    noise *= np.sqrt(2 * np.sqrt(np.pi) * 2 * scale)
    return noise


def _stroke(shape: tuple[int, ...], points: Floats, radii: Floats, opacity: Floats) -> Floats:
    """Return the opacity (H, W) of discs along a walk; pixels covered by less than half are left out."""
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
    image: Floats, rng: np.random.Generator, radius: float, ragged: float
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Draw an ellipse with a noisy border.

    Returns:
        Depth (H, W): 1 at the centre, 0 on the border, negative outside; and the coordinates (H, W) along the two axes,
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
    # Damped towards the centre, so that noise shapes the border only.
    distance = np.hypot(along, across)
    depth = 1 - distance - ragged * border * np.clip(distance, 0, 1)
    return np.where(_component_at(depth > 0, centre), depth, np.minimum(depth, 0)), (along, across)


def _component_at(mask: Mask, point: Floats) -> Mask:
    """Return the connected component of ``mask`` (H, W) at ``point``, without the specks that noise adds."""
    components, _ = label(mask)
    y, x = np.round(point).astype(int)
    component: Mask = components == components[y, x]
    return component


def _noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> Floats:
    """Draw smooth noise (H, W) in [-2, 2] of two octaves; the coarser varies over ``scale`` of the shorter side."""
    total = np.zeros(shape)
    for octave, weight in ((1, 1.0), (2.5, 0.5)):
        cell = max(2.0, scale * min(shape) / octave)
        rows, columns = (_bells(side, cell) for side in shape)
        total += weight * rows @ rng.standard_normal((rows.shape[1], columns.shape[1])) @ columns.T
    return np.clip(total, -2, 2)


def _bells(side: int, cell: float) -> Floats:
    """Return weights (side, nodes) of Gaussians ``cell`` pixels apart that keep the variance of white noise."""
    nodes = np.arange(int(np.ceil(side / cell)) + 2)
    bells = np.exp(-((np.arange(side)[:, None] / cell - nodes + 0.5) ** 2) / 0.8)
    weights: Floats = bells / np.linalg.norm(bells, axis=1, keepdims=True)
    return weights


def _edge(depth: Floats, softness: float) -> Floats:
    """Return opacities: 0 outside, inside rising from 0.5 at the border to 1 at the depth ``softness``."""
    return np.where(depth > 0, np.clip(0.5 + 0.5 * depth / softness, 0, 1), 0).astype(np.float32)


def _blur(image: Floats, sigma: float) -> Floats:
    """Blur with two box filters of the total standard deviation ``sigma``, at a cost independent of it."""
    width = max(2, round(sigma * np.sqrt(6)))
    for axis in (0, 1, 0, 1):
        image = uniform_filter1d(image, width, axis=axis, mode="reflect")
    return image
