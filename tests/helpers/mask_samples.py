"""Mask files of many encodings that all show the same drawing, and mask files that are refused, for every reader."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageDraw

Marks = npt.NDArray[np.bool_]
Writer = Callable[[Path, Marks], None]

SHAPE = (96, 128)
"""Height and width."""


def drawing(shape: tuple[int, int] = SHAPE) -> Marks:
    """Draw a disc and a line of two pixels, without any symmetry."""
    image = Image.new("1", shape[::-1])
    draw = ImageDraw.Draw(image)
    draw.ellipse((shape[1] // 8, shape[0] // 6, shape[1] // 3, shape[0] // 2), fill=1)
    draw.line((shape[1] // 2, shape[0] - 6, shape[1] - 6, shape[0] // 2), fill=1, width=2)
    return np.array(image)


def colours(marks: Marks, drawn: tuple[int, ...], ground: tuple[int, ...]) -> Image.Image:
    """Return an image with one colour on another."""
    return Image.fromarray(np.where(marks[..., None], drawn, ground).astype(np.uint8))


def values(kind: Any, drawn: float) -> Writer:
    """Write the drawing with a value of a type, and 0 elsewhere."""
    return lambda path, marks: Image.fromarray((marks * np.dtype(kind).type(drawn)).astype(kind)).save(path)


def coloured(drawn: tuple[int, ...], ground: tuple[int, ...], **options: Any) -> Writer:
    """Write the drawing with one colour on another."""
    return lambda path, marks: colours(marks, drawn, ground).save(path, **options)


def palette(entries: list[int], first: int = 0, **options: Any) -> Writer:
    """Write a palette image; the ground has the index ``first``, the drawing the other of 0 and 1."""

    def write(path: Path, marks: Marks) -> None:
        image = Image.fromarray((marks ^ bool(first)).astype(np.uint8)).convert("P")
        image.putpalette(entries)
        image.save(path, **options)

    return write


def photo(shape: tuple[int, ...]) -> Image.Image:
    """Return grey noise without black."""
    return Image.fromarray(np.random.default_rng(0).integers(90, 160, shape, np.uint8))


def saved_before(path: Path, marks: Marks) -> None:
    """Write the drawing as PNG after it has been saved as JPEG."""
    content = io.BytesIO()
    Image.fromarray(marks.astype(np.uint8) * 255).save(content, "JPEG", quality=80)
    Image.open(content).save(path)


def colours_of_16_bits(*drawn: int) -> Writer:
    def write(path: Path, marks: Marks) -> None:
        values = np.where(marks[..., None], drawn, 0).astype(np.uint16)
        path.write_bytes(imagecodecs.png_encode(values))

    return write


def white_is_zero(path: Path, marks: Marks) -> None:
    tifffile.imwrite(path, np.where(marks, 0, 65535).astype(np.uint16), photometric="miniswhite")


def turned(path: Path, marks: Marks) -> None:
    """Write the drawing turned left, and a tag by which it is turned back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(marks).astype(np.uint8) * 255).save(path, exif=exif, quality=90)


def identifiers(path: Path, marks: Marks) -> None:
    """Write the drawing in regions of four columns with values of 1 to 39."""
    Image.fromarray((np.cumsum(marks, 1) // 4 % 39 + 1).astype(np.uint8) * marks).save(path)


def several_pages(path: Path, marks: Marks) -> None:
    page = Image.fromarray(marks.astype(np.uint8) * 255)
    page.save(path, save_all=True, append_images=[page.rotate(180)])


SAMPLES: dict[str, tuple[str, Writer]] = {
    "1 bit": (".png", lambda path, marks: Image.fromarray(marks).save(path)),
    "8 bits": (".png", values(np.uint8, 255)),
    "identifiers": (".png", identifiers),
    "identifier 1": (".bmp", values(np.uint8, 1)),
    "16 bits": (".png", values(np.uint16, 65535)),
    "identifier of 16 bits": (".png", values(np.uint16, 1)),
    "16 bits, TIFF": (".tif", values(np.uint16, 3)),
    "16 bits, white is 0": (".tif", white_is_zero),
    "32 bits": (".tif", values(np.int32, 100_000)),
    "floating point, 1": (".tif", values(np.float32, 1)),
    "floating point, 255": (".tif", values(np.float32, 255)),
    "probabilities": (
        ".tif",
        lambda path, marks: Image.fromarray(np.where(marks, 0.9, 0.05).astype(np.float32)).save(path),
    ),
    "red": (".png", coloured((128, 0, 0), (0, 0, 0))),
    "identifier in blue": (".png", coloured((0, 0, 3), (0, 0, 0))),
    "identifier in blue of 16 bits": (".png", colours_of_16_bits(0, 0, 3)),
    "palette": (".png", palette([0, 0, 0, 128, 0, 0])),
    "palette, black last": (".png", palette([0, 128, 0, 0, 0, 0], first=1)),
    "palette, transparent": (".png", palette([255, 255, 255, 0, 0, 0], transparency=0)),
    "GIF": (".gif", values(np.uint8, 255)),
    "white on transparent": (".png", coloured((255, 255, 255, 255), (255, 255, 255, 0))),
    "black on transparent": (".png", coloured((0, 0, 0, 255), (0, 0, 0, 0))),
    "black on transparent, 16 bits": (".png", colours_of_16_bits(0, 0, 0, 65535)),
    "half transparent": (".png", coloured((255, 0, 0, 90), (0, 0, 0, 0))),
    "grey and alpha": (".png", coloured((0, 255), (0, 0))),
    "opaque": (".png", coloured((200, 0, 0, 255), (0, 0, 0, 255))),
    "JPEG": (".jpg", lambda path, marks: Image.fromarray(marks.astype(np.uint8) * 255).save(path, quality=60)),
    "JPEG of grey 120": (".jpg", lambda path, marks: Image.fromarray(marks.astype(np.uint8) * 120).save(path)),
    "JPEG, CMYK": (".jpg", lambda path, marks: Image.fromarray(marks).convert("L").convert("CMYK").save(path)),
    "JPEG in TIFF": (".tif", coloured((255,) * 3, (0,) * 3, compression="jpeg")),
    "JPEG 2000": (".jp2", values(np.uint8, 255)),
    "WebP, lossy": (".webp", coloured((255,) * 3, (0,) * 3, quality=50)),
    "WebP, lossy with metadata": (".webp", coloured((255,) * 3, (0,) * 3, quality=50, exif=Image.Exif().tobytes())),
    "WebP, lossless identifier": (".webp", coloured((0, 0, 1), (0, 0, 0), lossless=True)),
    "PNG that was a JPEG": (".png", saved_before),
    "turned JPEG": (".jpg", turned),
    "turned PNG": (".png", turned),
}
"""Suffix and writer of each encoding of a drawing."""

LOSSY = {name for name, (suffix, _) in SAMPLES.items() if "JPEG" in name or "lossy" in name}
"""Encodings that may change some pixels at the border of small drawings."""

REFUSED: dict[str, tuple[str, Writer, str]] = {
    "everything": (".png", lambda path, marks: Image.new("L", marks.shape[::-1], 255).save(path), "marks everything; "),
    "white ground": (".png", coloured((0, 0, 0), (255, 255, 255)), "so its background; invert it"),
    "coloured ground": (".png", coloured((255, 0, 0), (0, 0, 40)), "marks everything; invert it, or make the backgr"),
    "white ground, JPEG": (".jpg", coloured((0, 0, 0), (255, 255, 255)), "so its background; invert it"),
    "opaque ground": (".png", coloured((255, 0, 0, 255), (255, 255, 255, 255)), "marks everything; "),
    "palette, ground first": (".png", palette([0, 0, 90, 255, 0, 0]), "marks everything; "),
    "photo": (".png", lambda path, marks: photo(marks.shape).save(path), "marks everything; "),
    "photo, JPEG": (
        ".jpg",
        lambda path, marks: photo(marks.shape).save(path),
        "neither dark nor bright, as in a photo",
    ),
    "identifiers in JPEG": (
        ".jpg",
        lambda path, marks: Image.fromarray(np.where(marks, 255, 90).astype(np.uint8)).save(path),
        "neither dark nor bright",
    ),
    "pages": (".tif", several_pages, "it has 2 pages"),
    "frames": (".gif", several_pages, "it has 2 pages or frames"),
    "animation": (".webp", several_pages, "it has 2 pages or frames"),
    "identifier in JPEG": (
        ".jpg",
        lambda path, marks: Image.fromarray(marks.astype(np.uint8) * 20).save(path, quality=95),
        "which lossy compression does not keep; save it as PNG",
    ),
    "negative": (".tif", values(np.float32, -1), "its values are -1 to -?0"),
    "not a number": (".tif", values(np.float32, np.nan), "its values are nan to nan"),
}
"""Suffix and writer of each mask that is refused, and a part of the message."""
