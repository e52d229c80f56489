"""What a model says of images, kept so that a threshold can be moved without asking it again."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.services.regions import Region, find_regions, outline
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.inference.run_model import LoadedModel, Thresholds
from anomalib_defect_plugins.report.images import as_uri

SIDE = 768
"""Longer side of what is shown, and of the maps that thresholds are applied to, in pixels."""

OUTLINE = 0, 200, 255
"""Colour of the border of a mask, which is not among those of the map."""

CLEAR = 0.25
"""Share of the range of a map up to which nothing of the image is hidden: that high is normal."""

NOTHING = "data:,"
"""A picture of nothing."""


class Found(NamedTuple):
    """An image at a threshold.

    Args:
        mask: (h, w), bool.
        regions: Its regions, the largest first.
        is_defective: Whether the score is above the threshold.
    """

    mask: np.ndarray
    regions: list[Region]
    is_defective: bool


class Limits(NamedTuple):
    """Least and greatest threshold that makes a difference."""

    low: float
    high: float


class Shown(NamedTuple):
    """An image as it is shown.

    Args:
        name: Name of its file.
        size: Height and width of the file.
        shown: Height and width of the picture.
        picture: As a data URI.
    """

    name: str
    size: tuple[int, int]
    shown: tuple[int, int]
    picture: str


@dataclass(frozen=True)
class Look:
    """What a model says of an image.

    Args:
        photo: The image.
        score: Its score.
        heat: Its map, (h, w), float32.
        seconds: What the model took.
        thresholds: Those of the model.
    """

    photo: Shown
    score: float
    heat: np.ndarray
    seconds: float
    thresholds: Thresholds

    def at(self, threshold: float) -> Found:
        """Apply a threshold of pixels; that of images moves by as much.

        Args:
            threshold: In the units of the map.
        """
        wide = Image.fromarray(self.heat).resize(self.photo.shown[::-1], Image.Resampling.BILINEAR)
        mask, regions = find_regions(np.asarray(wide), threshold, self.photo.size)
        return Found(mask, regions, self.score > self.score_threshold(threshold))

    def score_threshold(self, threshold: float) -> float:
        """Give the threshold of images that goes with one of pixels."""
        return self.thresholds.image + threshold - self.thresholds.pixel

    def colours(self, limits: Limits) -> str:
        """Give the map as a picture, the more opaque the higher it is; as a data URI."""
        values = np.clip((self.heat - limits.low) / (limits.high - limits.low), 0, 1)
        picture = mpl.colormaps["inferno"](values, bytes=True)
        picture[..., 3] = np.round(255 * np.clip((values - CLEAR) / (1 - CLEAR), 0, 1) ** 1.5)
        return _uri(Image.fromarray(picture), "PNG", compress_level=1)


@dataclass(frozen=True)
class Looks:
    """What a model says of several images.

    Args:
        model: What the model is called.
        engine: What runs it.
        looks: The images, in the order in which they came.
        threshold: The model's own.
        limits: Between which it can be moved.
    """

    model: str
    engine: str
    looks: Sequence[Look]
    threshold: float
    limits: Limits

    def look(self, index: object) -> Look:
        """Give an image.

        Raises:
            InvalidInputError: There is none of that number.
        """
        if type(index) is not int or not 0 <= index < len(self.looks):
            msg = f"there is no image {str(index)[:20]!r}; choose one of the list"
            raise InvalidInputError(msg)
        return self.looks[index]


def look(model: LoadedModel, photo: Photo) -> Look:
    """Let a model look at an image.

    Raises:
        InvalidInputError: It fails, or gives no map.
    """
    prediction = model(photo.pixels)
    if prediction.anomaly_map is None:
        msg = "this model gives no map of the defects; choose another model"
        raise InvalidInputError(msg)
    if not np.isfinite(prediction.anomaly_map).all():
        msg = f"the model's map of {photo.name} is not finite; train it again with a lower learning rate"
        raise InvalidInputError(msg)
    return Look(_shown(photo), prediction.score, prediction.anomaly_map, prediction.seconds, model.thresholds)


def gathered(model: LoadedModel, name: str, looks: Sequence[Look]) -> Looks:
    """Put images together, so that one threshold serves all of them.

    Args:
        model: What has looked at them.
        name: What it is called.
        looks: At least one.
    """
    own = model.thresholds.pixel
    low, high = (extreme([extreme(each.heat) for each in looks] + [own]) for extreme in (np.min, np.max))
    # anomalib's post-processor scales to these, and they are the same for every image then.
    limits = Limits(0.0, 1.0) if low >= 0 and high <= 1 else Limits(float(low), float(max(high, low + 1e-6)))
    return Looks(name, model.engine, looks, own, limits)


def mask_picture(mask: np.ndarray) -> str:
    """Give the border of a mask as a picture to lay over its image, as a data URI."""
    border = outline(mask, max(1, round(max(mask.shape) / 400)))
    picture = Image.fromarray(border.astype(np.uint8))
    picture.putpalette([0, 0, 0, 0, *OUTLINE, 255], "RGBA")
    return _uri(picture, "PNG", compress_level=1)


def shrunk(pixels: np.ndarray, side: int) -> Image.Image:
    """Make an image (H, W, 3), uint8, smaller if its longer side is greater than ``side``."""
    picture = Image.fromarray(pixels)
    scale = min(1, side / max(picture.size))
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def photo_uri(picture: Image.Image) -> str:
    """Give a photo as a data URI."""
    return _uri(picture, "JPEG", quality=85)


def _shown(photo: Photo) -> Shown:
    picture = shrunk(photo.pixels, SIDE)
    return Shown(photo.name, photo.size, picture.size[::-1], photo_uri(picture))


def _uri(picture: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return as_uri(buffer.getvalue(), f"image/{kind.lower()}")
