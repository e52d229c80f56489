"""Shows predictions on images: thumbnails, the anomaly map over an image, mask, verdict and defects at a threshold."""

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.core.regions import enlarge_mask
from anomalib_defect_plugins.core.value_range import little_range_warning, uses_little_range
from anomalib_defect_plugins.demo.components.calibration_panel import CalibrationPanel
from anomalib_defect_plugins.demo.components.correction_panel import CorrectionPanel
from anomalib_defect_plugins.demo.components.listeners import QUEUED, STATE_TTL_S, UNQUEUED, Updates
from anomalib_defect_plugins.demo.components.prediction_views import (
    COLOURS,
    layer_values,
    render_grid,
    render_prediction,
    render_regions,
)
from anomalib_defect_plugins.demo.components.served_files import download_file
from anomalib_defect_plugins.demo.resources import asset
from anomalib_defect_plugins.demo.services.corrections import CorrectionLog
from anomalib_defect_plugins.demo.services.defect_table import write_table
from anomalib_defect_plugins.demo.services.predictions import (
    EMPTY_URI,
    ORDERS,
    PhotoPrediction,
    PredictionSet,
    collect_predictions,
    predict_photo,
)
from anomalib_defect_plugins.demo.services.take_away import pack_report
from anomalib_defect_plugins.demo.services.uploads import check_count, encode_png, read_painted_region, read_upload
from anomalib_defect_plugins.demo.user_errors import one_line, show_user_errors
from anomalib_defect_plugins.inference.run_model import LoadedModel
from anomalib_defect_plugins.report.images import as_uri

LAYERS = (
    '<figure class="layers" style="--width: ${width}; --height: ${height}"><div class="zoomed">'
    '<img class="photo" src="${photo}" alt="${alt}"><img class="anomaly-map" src="${anomaly_map}" alt="">'
    '<img class="mask" src="${mask}" alt="">${boxes}</div></figure>'
    '<div class="below"><span class="legend">${low}<i style="background: linear-gradient(90deg, '
    + COLOURS
    + ')"></i>${high}<span>threshold ${threshold}</span></span>'
    '<span><button type="button" data-zoom="2" aria-label="Zoom in">+</button> '
    '<button type="button" data-zoom="0.5" aria-label="Zoom out">−</button></span></div>'
)

PLACEHOLDER = "<p>Anomaly map, prediction and defects appear here.</p>"

CHUNK = 8
"""Images between two updates of the page."""

SET_OPACITY = "(value) => { document.getElementById('%s').style.setProperty('--opacity', value); }"

Download = dict[str, str]
"""A file for ``download.js``."""

Marks = dict[str, str]


class AnomalyViewer:
    """Components that show predictions on images.

    Args:
        name: Prefix of the element IDs.
        log: Log of what users call the images.
        user: Token of the user.

    Attributes:
        state: The displayed :class:`PredictionSet`, or ``None``.
        outputs: Components that :meth:`show` updates.
        kept: Components whose values :meth:`predict` needs, so that they stay when images are added.
    """

    def __init__(self, name: str, log: CorrectionLog, user: gr.BrowserState) -> None:
        self.user = user
        self.state = gr.State(None, time_to_live=STATE_TTL_S)
        self.index, self.marks = gr.State(0), gr.State({}, time_to_live=STATE_TTL_S)
        placeholder_style = asset("placeholder.css")
        self.placeholder = gr.HTML(
            PLACEHOLDER, css_template=placeholder_style, js_on_load=None, apply_default_css=False
        )
        with gr.Column(visible=False) as self.body:
            self.order = gr.Radio(list(ORDERS), value=next(iter(ORDERS)), label="Order")
            script = f"{asset('navigation.js')}\n{asset('marks.js')}"
            self.grid = gr.HTML(js_on_load=script, apply_default_css=False, elem_id=f"{name}-grid")
            self.prediction = _text(f"{name}-prediction")
            with gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=300):
                    self.layers = _layers(name)
                with gr.Column(scale=3, min_width=280):
                    buttons = self._add_controls(name)
            self.calibration = CalibrationPanel(name)
            self.correction = CorrectionPanel(name, log, user)
            # gr.DownloadButton would send the file that it held before the click.
            file = gr.HTML(html_template="<span></span>", js_on_load=asset("download.js"), apply_default_css=False)
        self.image_outputs = [self.layers, self.prediction, self.regions]
        self.shown = [self.grid, self.index, *self.image_outputs]
        self.outputs = [self.state, self.placeholder, self.body, self.threshold, *self.shown]
        self.kept = [self.state, self.index, self.threshold, self.order, self.marks]
        self._connect(name)
        self.correction.connect([self.state, self.index, self.threshold], file)
        mask_button, table_button = buttons
        mask_button.click(self.download_mask, [self.state, self.index, self.threshold], file, **QUEUED)
        table_button.click(self.download_table, [self.state, self.threshold], file, **QUEUED)
        self.report_button.click(self.download_report, [self.state, self.threshold], file, **QUEUED)

    def _add_controls(self, name: str) -> tuple[gr.Button, gr.Button]:
        self.threshold = gr.Slider(0, 1, 0.5, step=0.01, label="Threshold")
        self.opacity = gr.Slider(0, 1, 0.7, step=0.05, label="Anomaly map opacity")
        self.regions = _text(f"{name}-regions")
        with gr.Row(elem_classes="buttons"):
            self.good_button = gr.Button("Good (G)", size="sm", min_width=90)
            self.bad_button = gr.Button("Bad (B)", size="sm", min_width=90)
        with gr.Row(elem_classes="buttons"):
            self.report_button = gr.Button("Report (ZIP)", size="sm", min_width=120)
            return gr.Button("Mask (PNG)", size="sm", min_width=120), gr.Button("Table (CSV)", size="sm", min_width=120)

    def _connect(self, name: str) -> None:
        self.opacity.change(None, self.opacity, None, js=SET_OPACITY % f"{name}-layers", **UNQUEUED)
        inputs = [self.state, self.index, self.threshold]
        self.threshold.change(self.move_threshold, inputs, self.image_outputs, trigger_mode="always_last", **UNQUEUED)
        gr.on([self.threshold.release, self.order.input], self.redraw_grid, self.kept, self.grid, **UNQUEUED)
        # The script waits for the answer itself.
        self.grid.navigate(self.select_image, self.kept, self.shown, trigger_mode="multiple", **UNQUEUED)
        marked = [self.marks, self.grid]
        by_user = [self.user, *self.kept]
        self.grid.mark(self.mark_by_key, by_user, marked, **QUEUED)
        self.good_button.click(self.mark_good, by_user, marked, **QUEUED)
        self.bad_button.click(self.mark_bad, by_user, marked, **QUEUED)
        outputs = [self.state, self.threshold, *self.shown]
        whole, region = self.correction.whole_button, self.correction.region_button
        region.click(self.use_region, [self.correction.canvas, *self.kept], outputs, **QUEUED)
        whole.click(self.use_whole_images, self.kept, outputs, **QUEUED)
        outputs = [*outputs, *self.calibration.outputs]
        self.calibration.button.click(self.calibrate, [*self.kept, *self.calibration.inputs], outputs, **QUEUED)

    def predict(
        self,
        model: LoadedModel,
        name: str,
        paths: Sequence[str],
        before: PredictionSet | None,
        index: int,
        threshold: float,
        order: str,
        marks: Marks,
    ) -> Iterator[Updates]:
        """Run a model on uploaded images and show the predictions; images that fail are reported one by one.

        Predictions of the same model on the same files are kept, with threshold and place.

        Args:
            model: The model.
            name: Name of the model.
            paths: Paths of the uploaded images.
            before: Present predictions.
            index: Index of the present image.
            threshold: Present threshold.
            order: Order of the images.
            marks: What the user calls the images.

        Raises:
            InvalidInputError: If there are too many images.
        """
        paths = list(dict.fromkeys(paths))
        check_count(paths)
        same = before if before is not None and before.loaded is model else None
        known = {prediction.source: prediction for prediction in same.predictions} if same else {}
        place = same.get(index).source if same else ""
        predictions: list[PhotoPrediction] = []
        for number, path in enumerate(paths, start=1):
            prediction = known.get(path) or _predict_or_warn(model, path)
            if prediction is not None:
                predictions.append(prediction)
            if predictions and (number == len(paths) or (path not in known and number % CHUNK == 0)):
                shown = collect_predictions(model, name, predictions)
                if same is not None:
                    shown = shown.like(same, threshold)
                sources = [each.source for each in predictions]
                yield self.show(shown, order, marks, sources.index(place) if place in sources else None)
        if not predictions:
            yield self.hide()

    def show(self, predictions: PredictionSet, order: str, marks: Marks, index: int | None = None) -> Updates:
        """Show predictions, starting with the first image in their order."""
        low, high = predictions.limits
        threshold = predictions.threshold
        index = predictions.order(order)[0] if index is None else index
        return {
            self.state: predictions,
            self.placeholder: gr.update(visible=False),
            self.body: gr.update(visible=True),
            self.threshold: gr.update(minimum=low, maximum=high, step=(high - low) / 100, value=threshold),
            **self._draw(predictions, index, threshold, with_image=True),
            **self._grid(predictions, index, threshold, order, marks),
        }

    def hide(self) -> Updates:
        """Hide the viewer and drop its state."""
        return {self.state: None, self.placeholder: gr.update(visible=True), self.body: gr.update(visible=False)}

    @show_user_errors
    def select_image(
        self,
        predictions: PredictionSet | None,
        index: int,
        threshold: float,
        order: str,
        marks: Marks,
        event: gr.EventData,
    ) -> Updates:
        """Show the image at the position that the event requests."""
        predictions = _require(predictions)
        position = event._data.get("position") if isinstance(event._data, dict) else None
        indices = predictions.order(order)
        index = indices[position] if type(position) is int and 0 <= position < len(indices) else index
        drawn = self._draw(predictions, index, threshold, with_image=True)
        return {**drawn, **self._grid(predictions, index, threshold, order, marks)}

    @show_user_errors
    def move_threshold(self, predictions: PredictionSet | None, index: int, threshold: float) -> Updates:
        """Show the image at another threshold, without running the model."""
        if predictions is None:
            return dict.fromkeys(self.image_outputs, gr.skip())
        return self._draw(predictions, index, threshold)

    @show_user_errors
    def redraw_grid(
        self, predictions: PredictionSet | None, index: int, threshold: float, order: str, marks: Marks
    ) -> Any:
        """Update verdicts and order of the thumbnails."""
        if predictions is None:
            return gr.skip()
        return render_grid(predictions, index, _check_number(threshold), order, marks)

    @show_user_errors
    def mark_by_key(self, event: gr.EventData, *kept: Any) -> Updates:
        """Mark the image as the key says that was pressed."""
        label = event._data.get("label") if isinstance(event._data, dict) else None
        return self._mark("bad" if label == "bad" else "good", *kept)

    @show_user_errors
    def mark_good(self, *kept: Any) -> Updates:
        """Mark the image as good."""
        return self._mark("good", *kept)

    @show_user_errors
    def mark_bad(self, *kept: Any) -> Updates:
        """Mark the image as bad."""
        return self._mark("bad", *kept)

    def _mark(
        self,
        label: str,
        user: str,
        predictions: PredictionSet | None,
        index: int,
        threshold: float,
        order: str,
        marks: Marks,
    ) -> Updates:
        predictions = _require(predictions)
        self.correction.mark(predictions, index, threshold, label, user)
        marks = {**marks, predictions.get(index).source: label}
        return {self.marks: marks, self.grid: render_grid(predictions, index, threshold, order, marks)}

    @show_user_errors
    def calibrate(
        self, predictions: PredictionSet | None, index: int, threshold: float, order: str, marks: Marks, *fields: Any
    ) -> Updates:
        """Choose the threshold from photos of good and defective parts, and show the images at it."""
        del threshold
        predictions = _require(predictions)
        choice, shown = self.calibration.choose(predictions, marks, *fields)
        calibrated = predictions.calibrated(choice.point.threshold, choice.min_area)
        updates = self.show(calibrated, order, marks, index)
        del updates[self.placeholder], updates[self.body]
        return {**updates, **shown}

    @show_user_errors
    def use_region(self, painted: str, *kept: Any) -> Updates:
        """Restrict all images to the painted region of interest."""
        predictions, index = _require(kept[0]), kept[1]
        region = read_painted_region(painted, predictions.get(index).photo.display_size)
        if not region.any():
            msg = "nothing is painted yet; choose 'Paint on this image' and paint the region to inspect"
            raise InvalidInputError(msg)
        return self._show_within(region, *kept)

    @show_user_errors
    def use_whole_images(self, *kept: Any) -> Updates:
        """Inspect whole images again."""
        return self._show_within(None, *kept)

    def _show_within(self, region: npt.NDArray[np.bool_] | None, *kept: Any) -> Updates:
        predictions, index, threshold, order, marks = kept
        shown = _require(predictions).at(_check_number(threshold)).within(region)
        updates = self.show(shown, order, marks, index)
        del updates[self.placeholder], updates[self.body]
        return updates

    def _grid(self, predictions: PredictionSet, index: int, threshold: float, order: str, marks: Marks) -> Updates:
        return {self.index: index, self.grid: render_grid(predictions, index, threshold, order, marks)}

    def _draw(self, predictions: PredictionSet, index: int, threshold: float, with_image: bool = False) -> Updates:
        prediction, threshold = predictions.get(index), _check_number(threshold)
        result = prediction.apply_threshold(threshold)
        layers = layer_values(predictions, prediction, result, threshold)
        if with_image:
            height, width = prediction.photo.display_size
            layers |= {"photo": prediction.photo.uri, "width": width, "height": height}
        return {
            self.layers: gr.HTML(**layers),
            self.prediction: render_prediction(predictions, prediction, threshold),
            self.regions: render_regions(result),
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
        table = write_table(_require(predictions), _check_number(threshold))
        return _download("defects.csv", table, "text/csv")

    @show_user_errors
    def download_report(self, predictions: PredictionSet | None, threshold: float) -> Download:
        """Return a report of the worst images, with masks and table."""
        return download_file(pack_report(_require(predictions), _check_number(threshold)))


def _predict_or_warn(model: LoadedModel, path: str) -> PhotoPrediction | None:
    try:
        photo = read_upload(path)
        if uses_little_range(photo.pixels.transpose(2, 0, 1) / np.float32(255)):
            gr.Warning(little_range_warning(photo.name, 1, 1))
        return predict_photo(model, photo, path)
    except UserError as error:
        gr.Warning(one_line(error))
    return None


def _download(name: str, content: bytes, media_type: str) -> Download:
    # The page ignores a value that equals the previous one, so each gets a token.
    return {"name": name, "uri": as_uri(content, media_type), "token": secrets.token_hex(8)}


def _layers(name: str) -> gr.HTML:
    values: dict[str, Any] = dict.fromkeys(("photo", "anomaly_map", "mask"), EMPTY_URI)
    values |= {"alt": "", "boxes": "", "low": "", "high": "", "threshold": "", "width": 1, "height": 1}
    return gr.HTML(
        html_template=LAYERS,
        css_template=asset("image_layers.css"),
        js_on_load=asset("image_layers.js"),
        apply_default_css=False,
        elem_id=f"{name}-layers",
        **values,
    )


def _text(element_id: str) -> gr.HTML:
    style = asset("prediction.css")
    return gr.HTML(css_template=style, js_on_load=None, apply_default_css=False, elem_id=element_id)


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
