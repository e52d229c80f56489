"""Shows predictions on images: the anomaly map over the image, and mask, label and regions at a threshold."""

import csv
import io
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.core.value_range import little_range_warning, uses_little_range
from anomalib_defect_plugins.demo.components.listeners import QUEUED, STATE_TTL_S, UNQUEUED, Updates
from anomalib_defect_plugins.demo.resources import asset, render_template
from anomalib_defect_plugins.demo.services.predictions import (
    EMPTY_URI,
    PhotoPrediction,
    PredictionSet,
    ThresholdResult,
    collect_predictions,
    mask_outline_uri,
    predict_photo,
)
from anomalib_defect_plugins.demo.services.regions import REGION_COLUMNS, enlarge_mask, region_rows
from anomalib_defect_plugins.demo.services.uploads import check_count, encode_png, read_upload
from anomalib_defect_plugins.demo.user_errors import one_line, show_user_errors
from anomalib_defect_plugins.inference.run_model import LoadedModel
from anomalib_defect_plugins.report.images import as_uri

LAYERS = (
    '<figure class="layers" style="--width: ${width}; --height: ${height}">'
    '<img class="photo" src="${photo}" alt="${alt}"><img class="anomaly-map" src="${anomaly_map}" alt="">'
    '<img class="mask" src="${mask}" alt=""></figure>'
)

PLACEHOLDER = "<p>Anomaly map, prediction and defects appear here.</p>"

MAX_LISTED_REGIONS = 20
"""Regions listed on the page; the table to download has all of them."""

SET_OPACITY = "(value) => { document.getElementById('%s').style.setProperty('--opacity', value); }"

TABLE_COLUMNS = ("image", "pred_label", "score", "threshold", "seconds", "defect", *REGION_COLUMNS)

Download = dict[str, str]
"""A file for ``download.js``."""


class AnomalyViewer:
    """Components that show predictions on images.

    Args:
        name: Prefix of the element IDs.

    Attributes:
        state: The displayed :class:`PredictionSet`, or ``None``.
        outputs: Components that :meth:`show` updates.
    """

    def __init__(self, name: str) -> None:
        self.state = gr.State(None, time_to_live=STATE_TTL_S)
        placeholder_style = asset("placeholder.css")
        self.placeholder = gr.HTML(
            PLACEHOLDER, css_template=placeholder_style, js_on_load=None, apply_default_css=False
        )
        with gr.Column(visible=False) as self.body:
            self.image = gr.Dropdown([], label="Image")
            self.prediction = _text(f"{name}-prediction")
            with gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=300):
                    self.layers = _layers(name)
                with gr.Column(scale=3, min_width=280):
                    self.threshold = gr.Slider(0, 1, 0.5, step=0.01, label="Threshold")
                    self.opacity = gr.Slider(0, 1, 0.7, step=0.05, label="Anomaly map opacity")
                    self.regions = _text(f"{name}-regions")
                    with gr.Row(elem_classes="buttons"):
                        mask_button = gr.Button("Mask (PNG)", size="sm", min_width=120)
                        table_button = gr.Button("Table (CSV)", size="sm", min_width=120)
            # gr.DownloadButton would send the file that it held before the click.
            file = gr.HTML(html_template="<span></span>", js_on_load=asset("download.js"), apply_default_css=False)
        self.image_outputs = [self.layers, self.prediction, self.regions]
        self.outputs = [self.state, self.placeholder, self.body, self.image, self.threshold, *self.image_outputs]
        self._connect(name)
        inputs = [self.state, self.image, self.threshold]
        mask_button.click(self.download_mask, inputs, file, **QUEUED)
        table_button.click(self.download_table, [self.state, self.threshold], file, **QUEUED)

    def _connect(self, name: str) -> None:
        inputs = [self.state, self.image, self.threshold]
        outputs = self.image_outputs
        self.opacity.change(None, self.opacity, None, js=SET_OPACITY % f"{name}-layers", **UNQUEUED)
        self.threshold.change(self.move_threshold, inputs, outputs, trigger_mode="always_last", **UNQUEUED)
        self.threshold.release(self.update_choices, [self.state, self.threshold], self.image, **UNQUEUED)
        self.image.input(self.select_image, inputs, outputs, trigger_mode="always_last", **QUEUED)

    def predict(self, model: LoadedModel, name: str, paths: Sequence[str]) -> Updates:
        """Run a model on uploaded images and show the predictions; images that fail are reported one by one.

        Args:
            model: The model.
            name: Name of the model.
            paths: Paths of the uploaded images.

        Raises:
            InvalidInputError: If there are too many images.
        """
        check_count(paths)
        predictions = [prediction for path in paths if (prediction := _predict_or_warn(model, path)) is not None]
        return self.show(collect_predictions(model, name, predictions)) if predictions else self.hide()

    def show(self, predictions: PredictionSet) -> Updates:
        """Show predictions, starting with the first image."""
        low, high = predictions.limits
        threshold = predictions.threshold
        several = len(predictions.predictions) > 1
        return {
            self.state: predictions,
            self.placeholder: gr.update(visible=False),
            self.body: gr.update(visible=True),
            self.image: gr.update(choices=_choices(predictions, threshold), value=0, visible=several),
            self.threshold: gr.update(minimum=low, maximum=high, step=(high - low) / 100, value=threshold),
            **self._draw(predictions, 0, threshold, with_image=True),
        }

    def hide(self) -> Updates:
        """Hide the viewer and drop its state."""
        return {self.state: None, self.placeholder: gr.update(visible=True), self.body: gr.update(visible=False)}

    @show_user_errors
    def select_image(self, predictions: PredictionSet | None, index: int, threshold: float) -> Updates:
        """Show another image."""
        return self._draw(_require(predictions), index, threshold, with_image=True)

    @show_user_errors
    def move_threshold(self, predictions: PredictionSet | None, index: int, threshold: float) -> Updates:
        """Show the image at another threshold, without running the model."""
        if predictions is None:
            return dict.fromkeys(self.image_outputs, gr.skip())
        return self._draw(predictions, index, threshold)

    @show_user_errors
    def update_choices(self, predictions: PredictionSet | None, threshold: float) -> Any:
        """Update the labels in the list of images."""
        return gr.update(choices=_choices(predictions, _check_number(threshold))) if predictions else gr.skip()

    def _draw(self, predictions: PredictionSet, index: int, threshold: float, with_image: bool = False) -> Updates:
        prediction, threshold = predictions.get(index), _check_number(threshold)
        result = prediction.apply_threshold(threshold)
        layers: dict[str, Any] = {"mask": mask_outline_uri(result.mask)}
        if with_image:
            height, width = prediction.photo.display_size
            layers |= {"photo": prediction.photo.uri, "anomaly_map": prediction.heat_map_uri(predictions.limits)}
            layers |= {"width": width, "height": height}
        listed = result.regions[:MAX_LISTED_REGIONS]
        return {
            self.layers: gr.HTML(alt=_alt_text(prediction, result), **layers),
            self.prediction: render_template(
                "prediction.html",
                prediction=prediction,
                pred_label=_pred_label(result.is_defective),
                score_threshold=prediction.score_threshold(threshold),
                engine=predictions.engine,
            ),
            self.regions: render_template("regions.html", regions=listed, count=len(result.regions)),
        }

    @show_user_errors
    def download_mask(self, predictions: PredictionSet | None, index: int, threshold: float) -> Download:
        """Return the mask of an image at its original size."""
        prediction = _require(predictions).get(index)
        mask = prediction.apply_threshold(_check_number(threshold)).mask
        png = encode_png(enlarge_mask(mask, prediction.photo.size).astype(np.uint8) * 255)
        return _download(f"{Path(prediction.photo.name).stem}_mask.png", png, "image/png")

    @show_user_errors
    def download_table(self, predictions: PredictionSet | None, threshold: float) -> Download:
        """Return the regions of all images as CSV."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(TABLE_COLUMNS)
        for prediction in _require(predictions).predictions:
            writer.writerows(_table_rows(prediction, _check_number(threshold)))
        return _download("defects.csv", text.getvalue().encode(), "text/csv")


def _predict_or_warn(model: LoadedModel, path: str) -> PhotoPrediction | None:
    try:
        photo = read_upload(path)
        if uses_little_range(photo.pixels.transpose(2, 0, 1) / np.float32(255)):
            gr.Warning(little_range_warning(photo.name, 1, 1))
        return predict_photo(model, photo)
    except UserError as error:
        gr.Warning(one_line(error))
    return None


def _download(name: str, content: bytes, media_type: str) -> Download:
    # The page ignores a value that equals the previous one, so each gets a token.
    return {"name": name, "uri": as_uri(content, media_type), "token": secrets.token_hex(8)}


def _layers(name: str) -> gr.HTML:
    return gr.HTML(
        html_template=LAYERS,
        css_template=asset("image_layers.css"),
        js_on_load=None,
        apply_default_css=False,
        elem_id=f"{name}-layers",
        photo=EMPTY_URI,
        anomaly_map=EMPTY_URI,
        mask=EMPTY_URI,
        alt="",
        width=1,
        height=1,
    )


def _text(element_id: str) -> gr.HTML:
    style = asset("prediction.css")
    return gr.HTML(css_template=style, js_on_load=None, apply_default_css=False, elem_id=element_id)


def _pred_label(is_defective: bool | None) -> str:
    if is_defective is None:
        return "no threshold"
    return "defective" if is_defective else "normal"


def _choices(predictions: PredictionSet, threshold: float) -> list[tuple[str, int]]:
    choices = []
    for index, prediction in enumerate(predictions.predictions):
        label = _pred_label(prediction.is_defective(threshold))
        choices.append((f"{index + 1} · {prediction.photo.name} · {label}", index))
    return choices


def _require(predictions: PredictionSet | None) -> PredictionSet:
    """Return the predictions.

    Raises:
        InvalidInputError: If the server has deleted them.
    """
    if predictions is None:
        msg = "the server has deleted these images; upload them again"
        raise InvalidInputError(msg)
    return predictions


def _check_number(threshold: object) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not np.isfinite(threshold):
        msg = f"the threshold {str(threshold)[:20]!r} is invalid; use a number"
        raise InvalidInputError(msg)
    return float(threshold)


def _alt_text(prediction: PhotoPrediction, result: ThresholdResult) -> str:
    """Describe an image. The page does not escape the text, so it must not contain the file name."""
    height, width = prediction.photo.size
    label = _pred_label(result.is_defective)
    return f"image of {width} by {height} pixels, {label}, {len(result.regions)} regions at or above the threshold"


def _table_rows(prediction: PhotoPrediction, threshold: float) -> list[list[Any]]:
    result = prediction.apply_threshold(threshold)
    name, label = _escape_formula(prediction.photo.name), _pred_label(result.is_defective)
    image = [name, label, f"{prediction.score:.6g}", f"{threshold:.6g}", f"{prediction.seconds:.4f}"]
    if not result.regions:
        return [image + [""] * (1 + len(REGION_COLUMNS))]
    return [[*image, number, *row] for number, row in enumerate(region_rows(result.regions), start=1)]


def _escape_formula(name: str) -> str:
    """Return a name that spreadsheets do not interpret as a formula."""
    return f"'{name}" if name[:1] in "=+-@" else name
