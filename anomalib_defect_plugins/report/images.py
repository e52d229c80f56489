"""Images of the page: overlays of anomaly maps, and data URIs."""

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex
from PIL import Image

MAX_OPACITY = 0.8
"""Opacity of the highest value of a map. It falls with the map, so that the image stays visible elsewhere."""


COLOUR_MAP = "inferno"
"""Colours of anomaly maps, from dark to bright."""


def colour_scale() -> str:
    """Return the colours of anomaly maps as a CSS gradient."""
    stops = [to_hex(mpl.colormaps[COLOUR_MAP](place)) for place in np.linspace(0, 1, 9)]
    return f"linear-gradient(90deg, {', '.join(stops)})"


def overlay(
    image: Image.Image | None, anomaly_map: Image.Image, size: tuple[int, int], threshold: float | None = None
) -> Image.Image:
    """Draw an anomaly map over its image.

    Args:
        image: The image, RGB; without it, only the map is drawn.
        anomaly_map: The map, 8-bit grey.
        size: Width and height of the result.
        threshold: Value of the map, scaled to [0, 1] as its pixels are, that gets the colour in the middle of the
            scale; it may be beyond [0, 1]. Without it, colours are proportional to the map.

    Returns:
        The grey image under the colours of the map, whose opacity increases with the map.
    """
    values = np.asarray(anomaly_map.resize(size, Image.Resampling.BILINEAR), np.float64)[..., None] / 255
    values = values if threshold is None else _anchor(values, threshold)
    colours = mpl.colormaps[COLOUR_MAP](values[..., 0])[..., :3]
    if image is None:
        return Image.fromarray((255 * colours).astype(np.uint8))
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.LANCZOS), np.float32)[..., None] / 255
    opacity = MAX_OPACITY * values
    mixed = (1 - opacity) * grey + opacity * colours
    return Image.fromarray((255 * mixed).round().clip(0, 255).astype(np.uint8))


def _anchor(values: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.float64]:
    """Scale values in [0, 1] piecewise, so that the threshold becomes 0.5."""
    points = [min(0.0, threshold), threshold, max(1.0, threshold)]
    return np.interp(values, points, [0, 0.5, 1])


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
