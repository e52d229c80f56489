"""Predictions on photos, kept so that the threshold can be changed without running the model again."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.regions import Region, outline, region_score
from anomalib_defect_plugins.core.value_range import uses_little_range
from anomalib_defect_plugins.demo.services.defects import find_defects
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.inference.run_model import LoadedModel, Thresholds
from anomalib_defect_plugins.report.images import data_uri

DISPLAY_SIDE = 768
"""Maximum longer side of displayed photos, and of the anomaly maps that thresholds are applied to, in pixels."""

OUTLINE_COLOUR = 0, 200, 255
"""Colour of the outline of a mask; it does not occur in the colour map."""

THUMBNAIL_SIDE = 112
"""Longer side of thumbnails, in pixels."""

CLEAR_SHARE = 0.25
"""Part of the colour scale, from its low end, that is drawn fully transparent; the threshold is at its middle."""

EMPTY_URI = "data:,"
"""Data URI of an empty picture."""


class ThresholdResult(NamedTuple):
    """A prediction at a threshold.

    Args:
        mask: Pixels of the defects, shape (h, w), bool.
        regions: The defects, largest first; see :func:`~anomalib_defect_plugins.demo.services.defects.find_defects`.
        is_defective: The verdict; ``None`` if the model has no threshold.
    """

    mask: npt.NDArray[np.bool_]
    regions: list[Region]
    is_defective: bool | None


class ThresholdRange(NamedTuple):
    """Lowest and highest threshold that makes a difference."""

    low: float
    high: float


class DisplayedPhoto(NamedTuple):
    """A photo for display.

    Args:
        name: File name.
        size: Size of the file.
        display_size: Size of the displayed picture.
        uri: The picture as a data URI.
        thumbnail: A small picture as a data URI.
    """

    name: str
    size: Size
    display_size: Size
    uri: str
    thumbnail: str = EMPTY_URI


@dataclass(frozen=True)
class PhotoPrediction:
    """Prediction on one photo.

    Args:
        photo: The photo.
        score: Anomaly score.
        anomaly_map: Anomaly map, shape (h, w), float32.
        seconds: Inference time.
        thresholds: Thresholds of the model.
        source: The file.
        min_area: Minimum area of a defect in pixels of the image.
        whole_map: The anomaly map without a region of interest, if there is one.
    """

    photo: DisplayedPhoto
    score: float
    anomaly_map: npt.NDArray[np.float32]
    seconds: float
    thresholds: Thresholds
    source: str = ""
    min_area: int = 1
    whole_map: npt.NDArray[np.float32] | None = None

    def within(self, region: npt.NDArray[np.bool_] | None) -> "PhotoPrediction":
        """Return the prediction with the lowest value of the map outside a region of interest.

        Args:
            region: The region, shape (h, w), bool, of any size; ``None`` for the whole image.
        """
        whole = self.anomaly_map if self.whole_map is None else self.whole_map
        if region is None:
            return replace(self, anomaly_map=whole, whole_map=None)
        height, width = whole.shape
        inside = np.asarray(Image.fromarray(region).resize((width, height), Image.Resampling.NEAREST))
        return replace(self, anomaly_map=np.where(inside, whole, whole.min()), whole_map=whole)

    @property
    def displayed_map(self) -> npt.NDArray[np.float32]:
        """The anomaly map at the size of the displayed picture."""
        height, width = self.photo.display_size
        return np.asarray(Image.fromarray(self.anomaly_map).resize((width, height), Image.Resampling.BILINEAR))

    def by_regions(self, threshold: float, min_area: int) -> "PhotoPrediction":
        """Return the prediction with a verdict that follows from the defects in the map, instead of the score.

        Its score is the highest threshold at which it has a defect.

        Args:
            threshold: Threshold for score and map.
            min_area: Minimum area of a defect in pixels of the image.

        Raises:
            InvalidInputError: If the image is smaller than the minimum area.
        """
        score = region_score(self.displayed_map, self.photo.size, min_area)
        return replace(self, score=score, thresholds=Thresholds(threshold, threshold), min_area=min_area)

    def apply_threshold(self, threshold: float) -> ThresholdResult:
        """Apply a threshold to the anomaly map, and to the score; see :meth:`score_threshold`.

        Args:
            threshold: Threshold in the units of the anomaly map.
        """
        is_defective = self.is_defective(threshold)
        mask, regions = find_defects(self.displayed_map, threshold, self.photo.size, is_defective, self.min_area)
        return ThresholdResult(mask, regions, is_defective)

    def is_defective(self, threshold: float) -> bool | None:
        """Whether the image is defective at a threshold for maps; ``None`` if the model has no thresholds."""
        score_threshold = self.score_threshold(threshold)
        return None if math.isnan(score_threshold) else bool(np.float32(self.score) >= np.float32(score_threshold))

    def score_threshold(self, threshold: float) -> float:
        """Return the threshold for scores, shifted from the model's own by as much as ``threshold`` is for maps."""
        return self.thresholds.image + (threshold - self.thresholds.pixel)

    def heat_map_uri(self, limits: ThresholdRange, threshold: float) -> str:
        """Return the anomaly map as a data URI, more opaque where it is higher; the threshold has the middle colour."""
        values = np.interp(self.anomaly_map, *colour_scale(limits, threshold))
        picture = mpl.colormaps["inferno"](values, bytes=True)
        picture[..., 3] = np.round(255 * np.clip((values - CLEAR_SHARE) / (1 - CLEAR_SHARE), 0, 1) ** 1.5)
        return data_uri(Image.fromarray(picture), "PNG", compress_level=1)


def colour_scale(limits: ThresholdRange, threshold: float) -> tuple[Sequence[float], Sequence[float]]:
    """Return three values of a map in ascending order, and their places on the colour scale in [0, 1]."""
    low, high = min(limits.low, threshold), max(limits.high, threshold)
    margin = 1e-6 * max(abs(low), abs(high), 1e-6)
    return (low - margin, threshold, high + margin), (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class PredictionSet:
    """Predictions of one model on several photos, which share a threshold.

    Args:
        model: Name of the model.
        engine: Inference engine.
        predictions: Predictions in the order of the photos.
        threshold: The model's own threshold for anomaly maps, or the middle of their range if it has none.
        limits: Range of useful thresholds.
        loaded: The model itself.
        min_area: Minimum area of a defect in pixels of the image, if the verdict follows from the map; else ``None``.
        region: Region of interest, shape (h, w), bool; ``None`` for whole images.
    """

    model: str
    engine: str
    predictions: Sequence[PhotoPrediction]
    threshold: float
    limits: ThresholdRange
    loaded: LoadedModel | None = None
    min_area: int | None = None
    region: npt.NDArray[np.bool_] | None = None

    def within(self, region: npt.NDArray[np.bool_] | None) -> "PredictionSet":
        """Return the predictions with verdicts that follow from what is in a region of interest.

        Args:
            region: The region, shape (h, w), bool, of any size; ``None`` for whole images.
        """
        predictions = [prediction.within(region) for prediction in self.predictions]
        return replace(self, predictions=predictions, region=region).calibrated(self.threshold, self.min_area or 1)

    def like(self, other: "PredictionSet", threshold: float) -> "PredictionSet":
        """Return the predictions with the region and the rule of others, at a threshold."""
        same = self.at(threshold)
        same = same if other.region is None else same.within(other.region)
        return same.calibrated(threshold, other.min_area) if other.min_area else same

    def order(self, name: str) -> list[int]:
        """Return the indices of the photos in an order, one of ``ORDERS``.

        Raises:
            InvalidInputError: If the order is unknown.
        """
        check_one_of("order", name, ORDERS)
        return sorted(range(len(self.predictions)), key=lambda index: ORDERS[name](self.predictions[index]))

    def at(self, threshold: float) -> "PredictionSet":
        """Return the predictions with another threshold."""
        low, high = min(self.limits.low, threshold), max(self.limits.high, threshold)
        return replace(self, threshold=threshold, limits=ThresholdRange(low, high))

    def count_defective(self, threshold: float) -> int:
        """Return the number of defective photos at a threshold."""
        return sum(bool(prediction.is_defective(threshold)) for prediction in self.predictions)

    def calibrated(self, threshold: float, min_area: int) -> "PredictionSet":
        """Return the predictions with verdicts that follow from the defects in the maps."""
        predictions = [prediction.by_regions(threshold, min_area) for prediction in self.predictions]
        return replace(self.at(threshold), predictions=predictions, min_area=min_area)

    def get(self, index: object) -> PhotoPrediction:
        """Return the prediction on a photo.

        Raises:
            InvalidInputError: If there is no photo of that index.
        """
        if type(index) is not int or not 0 <= index < len(self.predictions):
            msg = f"there is no image {str(index)[:20]!r}; choose one of the list"
            raise InvalidInputError(msg)
        return self.predictions[index]


ORDERS: dict[str, Callable[[PhotoPrediction], Any]] = {
    "Most anomalous first": lambda prediction: -prediction.score,
    "As uploaded": lambda _: 0,
    "By name": lambda prediction: prediction.photo.name,
}
"""Orders of photos, and the sort key of each."""


def predict_photo(model: LoadedModel, photo: Photo, source: str = "") -> PhotoPrediction:
    """Run a model on a photo.

    Args:
        model: The model.
        photo: The photo.
        source: Its file.

    Raises:
        InvalidInputError: If the model fails, or its output has no finite anomaly map.
    """
    prediction = model(photo.pixels)
    if prediction.anomaly_map is None:
        msg = "this model gives no map of the defects; choose another model"
        raise InvalidInputError(msg)
    if not np.isfinite(prediction.anomaly_map).all():
        msg = f"the model's map of {photo.name} is not finite; train it again with a lower learning rate"
        raise InvalidInputError(msg)
    return PhotoPrediction(
        _displayed(photo), prediction.score, prediction.anomaly_map, prediction.seconds, model.thresholds, source
    )


def collect_predictions(model: LoadedModel, name: str, predictions: Sequence[PhotoPrediction]) -> PredictionSet:
    """Combine predictions into a set with one range of thresholds.

    Args:
        model: The model.
        name: Name of the model.
        predictions: Its predictions, at least one.
    """
    values = [float(value) for each in predictions for value in (each.anomaly_map.min(), each.anomaly_map.max())]
    own = model.thresholds.pixel
    threshold = (min(values) + max(values)) / 2 if math.isnan(own) else own
    low, high = min(threshold, *values), max(threshold, *values)
    # anomalib's post-processor scales to [0, 1]; with that range, the slider is the same for all images.
    limits = ThresholdRange(0.0, 1.0) if low >= 0 and high <= 1 else ThresholdRange(low, max(high, low + 1e-6))
    return PredictionSet(name, model.engine, predictions, threshold, limits, model)


def mask_outline_uri(mask: npt.NDArray[np.bool_]) -> str:
    """Return the outline of a mask as a data URI of a transparent picture."""
    border = outline(mask, max(1, round(max(mask.shape) / 400)))
    picture = Image.fromarray(border.astype(np.uint8))
    picture.putpalette([0, 0, 0, 0, *OUTLINE_COLOUR, 255], "RGBA")
    return data_uri(picture, "PNG", compress_level=1)


def shrink(pixels: npt.NDArray[np.uint8], side: int) -> Image.Image:
    """Resize an image, shape (H, W, 3), uint8, if its longer side is greater than ``side``."""
    picture = Image.fromarray(pixels)
    scale = min(1, side / max(picture.size))
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def jpeg_uri(picture: Image.Image) -> str:
    """Return a picture as a data URI, JPEG."""
    return data_uri(picture, "JPEG", quality=85)


def _displayed(photo: Photo) -> DisplayedPhoto:
    picture = shrink(_visible(photo.pixels), DISPLAY_SIDE)
    width, height = picture.size
    thumbnail = picture.copy()
    thumbnail.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return DisplayedPhoto(photo.name, photo.size, (height, width), jpeg_uri(picture), jpeg_uri(thumbnail))


def _visible(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a photo that uses little of its range, such as one of 12 bits, stretched to its full range for display."""
    if not uses_little_range(pixels.transpose(2, 0, 1) / np.float32(255)):
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    stretched: npt.NDArray[np.uint8] = ((pixels - float(low)) * (255 / max(1, high - low))).round().astype(np.uint8)
    return stretched
