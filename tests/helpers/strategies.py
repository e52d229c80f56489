"""Hypothesis strategies of bad input: image files, image tensors, configuration values, and damage to valid files."""

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from bad_input import PROFILE
from hypothesis import strategies as st
from PIL import Image

FORMATS = {
    "1": ("png", "tiff", "bmp"),
    "L": ("png", "jpeg", "tiff", "bmp", "webp", "gif"),
    "LA": ("png", "tiff"),
    "P": ("png", "gif", "bmp", "tiff"),
    "RGB": ("png", "jpeg", "tiff", "bmp", "webp"),
    "RGBA": ("png", "tiff", "webp"),
    "CMYK": ("jpeg", "tiff"),
    "YCbCr": ("jpeg", "tiff"),
    "LAB": ("tiff",),
    "I;16": ("png", "tiff"),
    "I": ("png", "tiff"),
    "F": ("tiff",),
}
"""File formats by Pillow mode."""

SIDES = st.one_of(st.sampled_from([1, 2, 3, 7, 31, 32, 33, 64]), st.integers(1, 200))

SIZES = st.one_of(
    st.tuples(SIDES, SIDES),
    st.tuples(SIDES, SIDES),
    st.sampled_from([(1, 4096), (4096, 1), (2048, 2048), *([(4096, 4096)] if PROFILE == "campaign" else [])]),
)
"""Width and height in pixels; a few are large."""

Damage = Callable[[bytes], bytes]


def truncate(fraction: float) -> Damage:
    """Return a damage that keeps only the first ``fraction`` of a file."""
    return lambda content: content[: int(fraction * len(content))]


def flip(positions: list[float], value: int) -> Damage:
    """Return a damage that flips bits of single bytes.

    Args:
        positions: Positions of the bytes, as fractions of the length in [0, 1).
        value: Bits to flip.
    """

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        for position in positions:
            changed[min(len(changed) - 1, int(position * len(changed)))] ^= value
        return bytes(changed)

    return lambda content: change(content) if content else content


FRACTIONS = st.floats(0, 1, exclude_max=True)

DAMAGES: st.SearchStrategy[Damage] = st.one_of(
    st.builds(truncate, FRACTIONS),
    st.builds(flip, st.lists(FRACTIONS, min_size=1, max_size=8), st.integers(1, 255)),
    st.binary(max_size=200).map(lambda content: lambda _: content),
)


@st.composite
def image_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw the suffix and the content of an image file, valid or damaged."""
    mode = draw(st.sampled_from(sorted(FORMATS)))
    kind = draw(st.sampled_from(FORMATS[mode]))
    size = draw(SIZES)
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    content = io.BytesIO()
    _image(mode, size, rng).save(content, kind)
    damage = draw(st.one_of(st.none(), DAMAGES))
    suffix = draw(st.sampled_from([kind, kind, "png", "jpg"]))
    return f".{suffix}", content.getvalue() if damage is None else damage(content.getvalue())


def _image(mode: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    width, height = size
    small = min(width, 64), min(height, 64)
    if mode in {"I", "I;16", "F"}:
        kind = {"I": np.int32, "I;16": np.uint16, "F": np.float32}[mode]
        return Image.fromarray(np.resize(rng.integers(0, 65536, small[::-1]), (height, width)).astype(kind))
    colours = Image.fromarray(rng.integers(0, 256, (*small[::-1], 3), dtype=np.uint8)).resize(size)
    if mode == "LA":
        return colours.convert("L").convert(mode)
    return Image.new("LAB", size, 7) if mode == "LAB" else colours.convert(mode)


ORIENTATIONS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 65535])
"""Values of the orientation tag, valid and invalid ones."""

TIFF_KINDS = {"u1": range(1, 9), "u2": range(9, 17), "u4": (17, 24, 32), "i1": (8,), "i2": (16,), "i4": (32,)}
"""Bits per sample by the type of the values."""


@st.composite
def deep_tiff_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw the content of a TIFF file of any bit depth, layout, orientation and number of pages, valid or damaged."""
    kind = draw(st.sampled_from([*TIFF_KINDS, "f2", "f4", "f8"]))
    bits = draw(st.sampled_from(TIFF_KINDS[kind])) if kind in TIFF_KINDS else None
    planar = draw(st.sampled_from([None, "separate", "contig"]))
    shape = {None: (20, 33), "separate": (3, 20, 33), "contig": (20, 33, draw(st.sampled_from([2, 3, 4, 5])))}[planar]
    highest = 1 if bits is None else 2 ** draw(st.integers(1, bits))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    values = (rng.uniform(draw(st.sampled_from([0, 0, -1])), 1, shape) * (highest - (bits is not None))).astype(kind)
    options: dict[str, Any] = {
        "photometric": "rgb"
        if shape[0] == 3 or shape[-1] in {3, 4}
        else draw(st.sampled_from(["minisblack", "miniswhite"])),
        "planarconfig": planar,
        "bitspersample": bits,
        "compression": draw(st.sampled_from([None, None, "zlib", "lzw"])) if bits in {None, 8, 16, 32} else None,
        "extratags": [
            (274, 3, 1, draw(ORIENTATIONS), True),
            *draw(st.sampled_from([[], [(281, 3, 1, 4095, True)], [(281, 3, 1, 65535, True)], [(281, 3, 1, 7, True)]])),
        ],
    }
    content = io.BytesIO()
    with tifffile.TiffWriter(content, byteorder=draw(st.sampled_from("<>"))) as file:
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            file.write(values, **options)
    damage = draw(st.one_of(st.none(), st.none(), DAMAGES))
    return ".tif", content.getvalue() if damage is None else damage(content.getvalue())


@st.composite
def turned_image_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw the suffix and the content of an image file with an orientation tag, valid or damaged."""
    kind = draw(st.sampled_from(["png", "jpeg", "webp", "tiff"]))
    mode = draw(st.sampled_from([mode for mode, kinds in FORMATS.items() if kind in kinds]))
    exif = Image.Exif()
    exif[274] = draw(ORIENTATIONS)
    content = io.BytesIO()
    _image(mode, (33, 20), np.random.default_rng(0)).save(content, kind, exif=exif)
    damage = draw(st.one_of(st.none(), st.none(), DAMAGES))
    return f".{kind}", content.getvalue() if damage is None else damage(content.getvalue())


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Draw images, shape (B, C, H, W), which may be non-finite, outside [0, 1], too small, or of another type."""
    shape = draw(
        st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 3, 4]), *2 * [st.sampled_from([1, 16, 32, 33, 48])])
    )
    images = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    special = draw(st.sampled_from([None, math.nan, math.inf, -math.inf, 1e30, -3.0]))
    if special is not None and images.numel():
        images.view(-1)[:: draw(st.integers(1, images.numel()))] = special
    return images.to(draw(st.sampled_from([torch.float32, torch.float32, torch.float64, torch.uint8, torch.bfloat16])))


NUMBERS = st.one_of(
    st.integers(-3, 40), st.sampled_from([64, 65, 0.0, 0.5, 1.0, 1.5, -0.5, math.nan, math.inf, -math.inf, 1e-30])
)

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.sampled_from(["all", "group", "procedural", "."])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text("ab_", max_size=4) | st.just("class_path"), inner, max_size=2),
    ),
    max_leaves=4,
)
"""Values for configurations; numbers stay small, because a huge network would exhaust memory."""


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """Draw a copy of nested mappings and lists with one value replaced or one key removed."""
    if isinstance(whole, dict) and whole and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(whole, key=str)))
        rest = {name: value for name, value in whole.items() if name != key}
        return rest if not draw(st.integers(0, 4)) else {**whole, key: draw(changed(whole[key]))}
    if isinstance(whole, list) and whole and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(whole) - 1))
        return [*whole[:at], draw(changed(whole[at])), *whole[at + 1 :]]
    return draw(VALUES)


class Payload:
    """Creates a folder when it is unpickled, as an example of malicious code.

    Args:
        path: Folder to create.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        """Return a function for pickle to call."""
        return os.mkdir, (self.path,)
