"""The small model and the images that ship with the demo; ``tools/make_example.py`` makes them."""

import json
from functools import lru_cache

from anomalib_defect_plugins.demo.resources import FOLDER
from anomalib_defect_plugins.demo.services.predictions import collect_predictions, predict_photo
from anomalib_defect_plugins.demo.services.uploads import read_upload
from anomalib_defect_plugins.inference.run_model import NORMALIZED_THRESHOLD, GraphModel, LoadedModel, Thresholds

EXAMPLE = FOLDER / "example"

METRICS = "metrics.json"
"""File with the metrics of the model on the test images that it comes from."""

KEY = "example"
"""Key of the model among those of the results, which contain a slash."""


@lru_cache(maxsize=1)
def load_example() -> LoadedModel:
    """Load the model."""
    return GraphModel(EXAMPLE / "model.xml", Thresholds(NORMALIZED_THRESHOLD, NORMALIZED_THRESHOLD))


def example_title() -> str:
    """Return the name of the model for display."""
    metrics = json.loads((EXAMPLE / METRICS).read_text(encoding="utf-8"))
    return f"Example: bricks, 20 marked defects (image AUROC {metrics['image_AUROC']:.2f})"


def example_images() -> list[str]:
    """Return the paths of the images, defective ones first."""
    return sorted(map(str, EXAMPLE.glob("*.png")))


def warm_up() -> None:
    """Load the model and use it once, so that the first visitor does not wait for imports and compilation."""
    model = load_example()
    photo = predict_photo(model, read_upload(example_images()[0]))
    predictions = collect_predictions(model, example_title(), [photo])
    photo.heat_map_uri(predictions.limits, predictions.threshold)
