"""TODO anomalib_defect_plugins/report/images.py."""

import base64
import io

import matplotlib as mpl
import numpy as np
from PIL import Image

OPACITY = 0.8
"""Opacity of the map where it is highest; it falls with the map, so that the image stays visible elsewhere."""


def overlay(image: Image.Image | None, heat: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Lay a map over its image.

    Args:
        image: The image, RGB; without it the map stands alone.
        heat: The map, 8 bit grey.
        size: Width and height of the result.

    Returns:
        The image in grey, under the map's colours, which are the more opaque the higher the map.
    """
    values = np.asarray(heat.resize(size, Image.Resampling.BILINEAR), np.float32)[..., None] / 255
    colours = mpl.colormaps["inferno"](values[..., 0])[..., :3]
    if image is None:
        return Image.fromarray((255 * colours).astype(np.uint8))
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS), np.float32)[..., None] / 255
    opacity = OPACITY * values
    mixed = (1 - opacity) * grey + opacity * colours
    return Image.fromarray((255 * mixed).round().clip(0, 255).astype(np.uint8))


def _data_uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 82} if kind == "JPEG" else {"optimize": True}))
    return as_uri(buffer.getvalue(), f"image/{kind.lower()}")


def as_uri(content: bytes, media_type: str) -> str:
    """Write a file as a data URI, so that the page needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
