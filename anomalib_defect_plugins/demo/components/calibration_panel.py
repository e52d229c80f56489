"""Fields that set the threshold from photos of good and defective parts, and what follows from it."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from anomalib_defect_plugins.demo.components.listeners import UNQUEUED, Updates
from anomalib_defect_plugins.demo.resources import render_template
from anomalib_defect_plugins.demo.services.calibration import COST, FALSE_ALARMS, RULES, RuleFields, calibrate
from anomalib_defect_plugins.demo.services.predictions import PhotoPrediction, PredictionSet, predict_photo
from anomalib_defect_plugins.demo.services.uploads import read_upload
from anomalib_defect_plugins.inference.choose_threshold import Choice, describe, shortfall, split
from anomalib_defect_plugins.report.images import as_uri
from anomalib_defect_plugins.report.operating_point import draw_histogram, render_png


class CalibrationPanel:
    """The fields, in an accordion.

    Args:
        name: Prefix of the element IDs.

    Attributes:
        inputs: Components whose values :meth:`choose` needs.
        outputs: Components that it updates.
        button: Button that sets the threshold.
    """

    def __init__(self, name: str) -> None:
        photos: dict[str, Any] = {"file_count": "multiple", "file_types": ["image"], "height": 150}
        with gr.Accordion("Calibrate with photos of good and bad parts", open=False):
            with gr.Row(equal_height=False):
                self.good = gr.File(label="Photos of good parts", **photos)
                self.bad = gr.File(label="Photos of bad parts (optional)", **photos)
            self.rule = gr.Radio(list(RULES), value=FALSE_ALARMS, label="Rule")
            with gr.Row(elem_classes="filters"):
                self.percent = gr.Number(5, label="Highest share of errors, %", minimum=0.01, maximum=99)
                self.cost_miss = gr.Number(50, label="Cost of a miss", visible=False)
                self.cost_false_alarm = gr.Number(1, label="Cost of a false alarm", visible=False)
                self.defect_percent = gr.Number(1, label="Bad parts in production, %", visible=False)
                self.min_area = gr.Number(1, label="Minimum area of a defect, pixels", precision=0, minimum=1)
            self.button = gr.Button("Set the threshold", variant="primary", min_width=160)
            self.result = gr.HTML(apply_default_css=False, js_on_load=None, elem_id=f"{name}-calibration")
        numbers = [self.percent, self.cost_miss, self.cost_false_alarm, self.defect_percent]
        self.inputs = [self.good, self.bad, self.rule, *numbers, self.min_area]
        self.outputs = [self.result]
        self.rule.change(_visible_fields, self.rule, numbers, **UNQUEUED)

    def choose(
        self,
        predictions: PredictionSet,
        marks: Mapping[str, str],
        good: Sequence[str] | None,
        bad: Sequence[str] | None,
        *fields: Any,
    ) -> tuple[Choice, Updates]:
        """Choose the threshold.

        Args:
            predictions: Predictions whose marked images belong to the good and bad parts.
            marks: What the user calls the images, ``good`` or ``bad``, by their source.
            good: Files of photos of good parts.
            bad: Files of photos of bad parts.
            fields: Values of the other fields.

        Raises:
            InvalidInputError: If a field or a photo is invalid, or the rule needs photos that there are none of.
        """
        photos = {"good": list(good or ()), "bad": list(bad or ())}
        labelled = {
            label: [*_marked(predictions, marks, label), *(_predict(predictions, path) for path in paths)]
            for label, paths in photos.items()
        }
        choice = calibrate(RuleFields(*fields), labelled["good"], labelled["bad"])
        return choice, {self.result: _render(choice)}


def _visible_fields(rule: str) -> list[Any]:
    by_cost = rule == COST
    return [gr.update(visible=not by_cost), *[gr.update(visible=by_cost)] * 3]


def _marked(predictions: PredictionSet, marks: Mapping[str, str], label: str) -> list[PhotoPrediction]:
    return [each for each in predictions.predictions if marks.get(each.source) == label]


def _predict(predictions: PredictionSet, path: str) -> PhotoPrediction:
    known = {each.source: each for each in predictions.predictions}
    if path in known or predictions.loaded is None:
        return known[path]
    return predict_photo(predictions.loaded, read_upload(path), path)


def _render(choice: Choice) -> str:
    point = choice.point
    good, bad = split(choice.images, choice.scores)
    histogram = render_png(draw_histogram(good, bad, point, choice.units, choice.rule.costs))
    return render_template(
        "calibration.html",
        choice=choice,
        misses=describe(point.misses, point.confidence),
        false_alarms=describe(point.false_alarms, point.confidence),
        note=shortfall(choice),
        histogram=as_uri(histogram, "image/png"),
    )
