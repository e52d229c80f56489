"""Image files of many formats, depths and orientations that all show the same picture, for tests of every reader.

The picture has the values 0, 0.2, ... 1. A file of a depth of n bits holds them rounded to its steps.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

SHAPE = (48, 64)
"""Height and width."""

GREY: npt.NDArray[np.float64] = np.repeat(np.repeat(np.arange(10).reshape(2, 5) % 6 / 5, 24, 0), 13, 1)[:, :64]
"""Grey picture, shape (H, W), in [0, 1], without any symmetry."""

COLOURS = np.stack([GREY, 1 - GREY, GREY / 2], axis=-1)
"""Coloured picture, shape (H, W, 3), in [0, 1]."""

PNG_COLOUR_TYPES = {1: 0, 3: 2, 2: 4, 4: 6}
"""Colour type of the PNG specification by the number of channels."""


@dataclass(frozen=True)
class Sample:
    """A kind of image file.

    Args:
        suffix: Suffix of the file name.
        write: Writes the file.
        picture: What it shows, shape (H, W) or (H, W, 3), in [0, 1].
        tolerance: Largest difference of a value that the format permits.
    """

    suffix: str
    write: Callable[[Path], object]
    picture: npt.NDArray[np.float64]
    tolerance: float

    def expected(self) -> npt.NDArray[np.float64]:
        """Return the image, shape (3, H, W), in [0, 1]."""
        return np.stack([self.picture] * 3) if self.picture.ndim == 2 else self.picture.transpose(2, 0, 1)

    def create(self, folder: Path, name: str = "image") -> Path:
        """Write the file to a folder, which may be a new one."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}{self.suffix}"
        self.write(path)
        return path


def steps(picture: npt.NDArray[np.float64], top: float, kind: str) -> npt.NDArray[Any]:
    """Return a picture in whole steps from 0 to ``top``."""
    return (picture * top).round().astype(kind)


def write_png(path: Path, values: npt.NDArray[Any], *, before: bytes = b"", after: bytes = b"") -> None:
    """Write values, shape (H, W, C), uint16 or uint8, as a PNG file; Pillow writes only grey ones of 16 bits.

    Args:
        path: The file.
        values: Values as they are to be stored.
        before: Further chunks before the pixels.
        after: Further chunks behind the pixels.
    """
    height, width, channels = values.shape
    bits = 8 * values.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, bits, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND", b""))


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def tiff(picture: npt.NDArray[np.float64] = GREY, top: float = 65535, kind: str = "u2", **options: Any) -> Sample:
    """Return a TIFF file with values up to ``top``; the options are those of tifffile."""
    values = steps(picture, top, kind) if np.dtype(kind).kind in "ui" else (picture * top).astype(kind)
    values = np.moveaxis(values, -1, 0) if options.get("planarconfig") == "separate" else values
    values = (top - values).astype(kind) if options.get("photometric") == "miniswhite" else values
    tolerance = 0.51 / top if top > 1 else 1e-6
    return Sample(".tif", lambda path: tifffile.imwrite(path, values, **options), picture, tolerance)


def png(picture: npt.NDArray[np.float64] = GREY, top: int = 65535, shift: int = 0, bits: int | None = None) -> Sample:
    """Return a PNG file of 16 bits with values up to ``top``, shifted to the left, and with a tagged depth."""
    values = np.atleast_3d(steps(picture, top, "u2") << shift)
    before = b"" if bits is None else chunk(b"sBIT", bytes([bits] * values.shape[-1]))
    return Sample(".png", lambda path: write_png(path, values, before=before), picture, 1.01 / top)


def pillow(suffix: str, values: npt.NDArray[Any], tolerance: float = 1e-6, **options: Any) -> Sample:
    """Return a file that Pillow writes."""
    picture = values / (1 if values.dtype == bool else np.iinfo(values.dtype).max)
    return Sample(suffix, lambda path: Image.fromarray(values).save(path, **options), picture, tolerance)


def _grey_alpha(path: Path) -> None:
    values = steps(GREY, 65535, "u2")
    write_png(path, np.dstack([values, values[::-1]]))


def _ome(path: Path) -> None:
    tifffile.imwrite(path, steps(GREY, 4095, "u2"), ome=True, metadata={"axes": "YX", "SignificantBits": 12})


def _deep_jpeg_2000(path: Path) -> None:
    path.write_bytes(imagecodecs.jpeg2k_encode(steps(GREY, 4095, "u2"), bitspersample=12, reversible=True, level=0))


MAX_SAMPLE_VALUE = 281

SAMPLES: dict[str, Sample] = {
    **{f"tiff-{bits}-bits-packed": tiff(top=2**bits - 1, bitspersample=bits) for bits in (9, 10, 11, 12, 14, 15)},
    "tiff-16-bits": tiff(),
    "tiff-16-bits-big-endian": tiff(byteorder=">"),
    "tiff-16-bits-big-tiff": tiff(bigtiff=True),
    "tiff-16-bits-tiles-lzw": tiff(tile=(16, 16), compression="lzw", predictor=True),
    "tiff-16-bits-deflate": tiff(compression="zlib"),
    "tiff-16-bits-min-is-white": tiff(photometric="miniswhite"),
    "tiff-12-bits-min-is-white": tiff(top=4095, bitspersample=12, photometric="miniswhite"),
    "tiff-8-bits-min-is-white": tiff(top=255, kind="u1", photometric="miniswhite"),
    "tiff-16-bits-alpha": Sample(
        ".tif",
        lambda path: tifffile.imwrite(
            path,
            np.dstack([steps(GREY, 65535, "u2"), steps(GREY[::-1], 65535, "u2")]),
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=["unassalpha"],
        ),
        GREY,
        1e-5,
    ),
    "tiff-16-bits-rgb": tiff(COLOURS, photometric="rgb"),
    "tiff-16-bits-rgb-big-endian-lzw": tiff(COLOURS, photometric="rgb", byteorder=">", compression="lzw"),
    "tiff-16-bits-rgba": tiff(np.dstack([COLOURS, GREY]), photometric="rgb", extrasamples=["unassalpha"]),
    "tiff-16-bits-planar": tiff(COLOURS, photometric="rgb", planarconfig="separate"),
    "tiff-16-bits-planar-tiles": tiff(COLOURS, photometric="rgb", planarconfig="separate", tile=(16, 16)),
    "tiff-12-bits-rgb": tiff(COLOURS, top=4095, bitspersample=12, photometric="rgb"),
    "tiff-8-bits-planar": tiff(COLOURS, top=255, kind="u1", photometric="rgb", planarconfig="separate"),
    "tiff-8-bits-rgb-deflate": tiff(COLOURS, top=255, kind="u1", photometric="rgb", compression="zlib"),
    **{f"tiff-{bits}-bits-grey": tiff(top=2**bits - 1, kind="u1", bitspersample=bits) for bits in (2, 3, 4, 6, 7)},
    "tiff-8-bits-signed": tiff(top=127, kind="i1"),
    "tiff-16-bits-signed": tiff(top=32767, kind="i2"),
    "tiff-32-bits-of-16": tiff(kind="u4"),
    "tiff-32-bits-signed-of-16": tiff(kind="i4"),
    "tiff-24-bits-packed": tiff(top=2**24 - 1, kind="u4", bitspersample=24),
    "tiff-32-bits-tagged": tiff(top=2**20 - 1, kind="u4", extratags=[(MAX_SAMPLE_VALUE, 4, 1, 2**20 - 1, True)]),
    "tiff-12-of-16-bits-tagged": tiff(top=4095, extratags=[(MAX_SAMPLE_VALUE, 3, 1, 4095, True)]),
    "tiff-10-of-16-bits-tagged": tiff(top=1023, extratags=[(MAX_SAMPLE_VALUE, 3, 1, 1023, True)]),
    "tiff-highest-value-tagged": tiff(top=65535, extratags=[(MAX_SAMPLE_VALUE, 3, 1, 60000, True)]),
    "tiff-12-of-16-bits-ome": Sample(".tif", _ome, GREY, 0.51 / 4095),
    **{f"tiff-float-{bits}": tiff(top=1, kind=f"f{bits // 8}") for bits in (32, 64)},
    "tiff-float-16": Sample(".tif", lambda path: tifffile.imwrite(path, GREY.astype("f2")), GREY, 5e-4),
    "tiff-float-rgb": tiff(COLOURS, top=1, kind="f4", photometric="rgb"),
    "png-16-bits": png(),
    "png-16-bits-rgb": png(COLOURS),
    "png-16-bits-rgba": png(np.dstack([COLOURS, GREY])),
    "png-16-bits-alpha": Sample(".png", _grey_alpha, GREY, 1e-5),
    "png-12-bits-scaled": png(top=4095, shift=4, bits=12),
    "png-12-bits-unscaled": png(top=4095, bits=12),
    "png-10-bits-unscaled-rgb": png(COLOURS, top=1023, bits=10),
    "png-8-bits-rgb": pillow(".png", steps(COLOURS, 255, "u1")),
    "png-1-bit": pillow(".png", GREY > 0.5),
    "pgm-8-bits": pillow(".pgm", steps(GREY, 255, "u1")),
    "pgm-16-bits": pillow(".pgm", steps(GREY, 65535, "u2")),
    "pgm-12-bits": Sample(
        ".pgm",
        lambda path: path.write_bytes(b"P5\n64 48\n4095\n" + steps(GREY, 4095, ">u2").tobytes()),
        GREY,
        0.51 / 4095,
    ),
    "jpeg-2000-8-bits": pillow(".jp2", steps(COLOURS, 255, "u1")),
    "jpeg-2000-16-bits": pillow(".jp2", steps(GREY, 65535, "u2")),
    "jpeg-2000-12-bits": Sample(".jp2", _deep_jpeg_2000, GREY, 1.01 / 4095),
    "jfif": pillow(".jfif", steps(GREY, 255, "u1"), tolerance=0.04, format="JPEG", quality=100),
    "gif": pillow(".gif", steps(GREY, 255, "u1")),
    "bmp": pillow(".bmp", steps(COLOURS, 255, "u1")),
    "webp": pillow(".webp", steps(COLOURS, 255, "u1"), lossless=True),
    "pbm": pillow(".pbm", GREY > 0.5),
}
"""Every kind of file, by name."""
SAMPLES = {
    name: Sample(sample.suffix, sample.write, sample.picture[..., :3], sample.tolerance)
    if sample.picture.ndim == 3
    else sample
    for name, sample in SAMPLES.items()
}


TURNS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_270,
)
"""How an image is stored that the orientation tags 1 to 8 turn upright again."""

ORIENTATION = 0x0112


def stored(picture: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Turn a picture, shape (H, W) or (H, W, 3), so that the orientation tag turns it upright again."""
    turn = TURNS[orientation - 1]
    return picture if turn is None else np.asarray(Image.fromarray(picture).transpose(turn))


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _turned_by_pillow(suffix: str, tolerance: float = 1e-6, **options: Any) -> Callable[[int], Sample]:
    values = steps(COLOURS, 255, "u1")

    def make(orientation: int) -> Sample:
        image = Image.fromarray(stored(values, orientation))
        return Sample(
            suffix, lambda path: image.save(path, exif=_exif(orientation), **options), values / 255, tolerance
        )

    return make


def _turned_png(before: bool, deep: bool, xmp: bool = False) -> Callable[[int], Sample]:
    """Return PNG files of 16 or 8 bits whose orientation is before or behind the pixels, as EXIF or XMP."""

    def make(orientation: int) -> Sample:
        values = stored(steps(GREY, 255, "u1"), orientation)
        text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
        metadata = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text) if xmp else None
        metadata = metadata or chunk(b"eXIf", _exif(orientation).tobytes().removeprefix(b"Exif\0\0"))
        write: dict[str, Any] = {"before" if before else "after": metadata}
        bits = np.atleast_3d(values.astype(np.uint16) * 257)
        return Sample(
            ".png", lambda path: write_png(path, bits if deep else np.atleast_3d(values), **write), GREY, 1e-5
        )

    return make


def _turned_tiff(orientation: int, picture: npt.NDArray[np.float64] = GREY, top: int = 65535, **options: Any) -> Sample:
    values = np.stack(
        [stored(steps(plane, 255, "u1"), orientation) for plane in np.atleast_3d(picture).transpose(2, 0, 1)], -1
    )
    values = (values * (top / 255)).round().astype("u2" if top > 255 else "u1").squeeze()
    values = np.moveaxis(values, -1, 0) if options.get("planarconfig") == "separate" else values
    tags = [(ORIENTATION, 3, 1, orientation, True)]
    return Sample(
        ".tif", lambda path: tifffile.imwrite(path, values, extratags=tags, **options), picture, 0.51 / min(top, 255)
    )


TURNED: dict[str, Callable[[int], Sample]] = {
    "jpeg": _turned_by_pillow(".jpg", tolerance=0.04, quality=100, subsampling=0),
    "webp": _turned_by_pillow(".webp", lossless=True),
    "png": _turned_by_pillow(".png"),
    "png-behind-the-pixels": _turned_png(before=False, deep=False),
    "png-xmp": _turned_png(before=False, deep=False, xmp=True),
    "png-16-bits": _turned_png(before=True, deep=True),
    "png-16-bits-behind-the-pixels": _turned_png(before=False, deep=True),
    "tiff-8-bits": lambda orientation: _turned_tiff(orientation, top=255),
    "tiff-8-bits-lzw": lambda orientation: _turned_tiff(orientation, top=255, compression="lzw"),
    "tiff-16-bits": _turned_tiff,
    "tiff-12-bits": lambda orientation: _turned_tiff(orientation, top=4095, bitspersample=12),
    "tiff-16-bits-planar": lambda orientation: _turned_tiff(
        orientation, COLOURS, photometric="rgb", planarconfig="separate"
    ),
}
"""Functions that return a file by its orientation, by format."""


def _frames(**options: Any) -> Callable[[Path], object]:
    frames = [Image.fromarray(steps(picture, 255, "u1")) for picture in (GREY, 1 - GREY, GREY[::-1])]
    return lambda path: frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def _pages(**options: Any) -> Callable[[Path], object]:
    return lambda path: tifffile.imwrite(
        path, np.stack([steps(GREY, 255, "u1")] * 3), photometric="minisblack", **options
    )


def _image_j(path: Path) -> None:
    """Write a stack as ImageJ does if it is large: the tags describe the first image only."""
    tifffile.imwrite(path, np.stack([steps(GREY, 65535, "u2")] * 3), imagej=True, truncate=True)


SEVERAL_PAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "tiff": (".tif", _pages()),
    "tiff-16-bits": (
        ".tif",
        lambda path: tifffile.imwrite(path, np.zeros((3, *SHAPE), "u2"), photometric="minisblack"),
    ),
    "tiff-12-bits": (
        ".tif",
        lambda path: tifffile.imwrite(path, np.zeros((3, *SHAPE), "u2"), photometric="minisblack", bitspersample=12),
    ),
    "tiff-volume": (".tif", _pages(volumetric=True, tile=(16, 16, 16))),
    "tiff-image-j": (".tif", _image_j),
    "gif": (".gif", _frames()),
    "webp": (".webp", _frames(lossless=True)),
    "apng": (".png", _frames()),
}
"""Suffix and writer of files with three pages or frames, by format."""
