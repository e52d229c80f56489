"""Images of the page: overlays of anomaly maps, and data URIs."""

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

MAX_OPACITY = 0.8
"""Opacity of the highest value of a map. It falls with the map, so that the image stays visible elsewhere."""


def overlay(image: Image.Image | None, anomaly_map: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Draw an anomaly map over its image.

    Args:
        image: The image, RGB; without it, only the map is drawn.
        anomaly_map: The map, 8-bit grey.
        size: Width and height of the result.

    Returns:
        The grey image under the colours of the map, whose opacity increases with the map.
    """
    values = np.asarray(anomaly_map.resize(size, Image.Resampling.BILINEAR), np.float32)[..., None] / 255
    colours = mpl.colormaps["inferno"](values[..., 0])[..., :3]
    if image is None:
        return Image.fromarray((255 * colours).astype(np.uint8))
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS), np.float32)[..., None] / 255
    opacity = MAX_OPACITY * values
    mixed = (1 - opacity) * grey + opacity * colours
    return Image.fromarray((255 * mixed).round().clip(0, 255).astype(np.uint8))


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """Encode an image as a data URI.

    Args:
        image: The image.
        kind: ``JPEG`` or ``PNG``.
        options: Options of Pillow's encoder.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return as_uri(buffer.getvalue(), f"image/{kind.lower()}")


def as_uri(content: bytes, media_type: str) -> str:
    """Encode a file as a data URI, so that a page needs no other files."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
