"""Corrections of what a model says: a brush for defects, the log, and its export as data to train on."""

import secrets
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.regions import enlarge_mask
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.demo.components.listeners import QUEUED, Updates
from anomalib_defect_plugins.demo.components.mask_painter import mask_painter
from anomalib_defect_plugins.demo.components.served_files import download_file
from anomalib_defect_plugins.demo.services.corrections import CorrectionLog
from anomalib_defect_plugins.demo.services.defect_collection import zip_folder
from anomalib_defect_plugins.demo.services.predictions import PredictionSet
from anomalib_defect_plugins.demo.services.uploads import encode_png, read_painted_region
from anomalib_defect_plugins.demo.user_errors import show_user_errors

HELP = (
    "<p>Images that you call good or bad, and defects that you paint, are kept in <code>corrections/log.jsonl</code> "
    "of the results. Exported, they are a folder to train on: <code>anomalib-defects retrain RUN --corrections FOLDER "
    "--frozen FOLDER --out NEW</code></p>"
)


class CorrectionPanel:
    """A brush on the displayed image and the export, in an accordion.

    Args:
        name: Prefix of the element IDs.
        log: The log.
        user: Token of the user.
    """

    def __init__(self, name: str, log: CorrectionLog, user: gr.BrowserState) -> None:
        self.log, self.user = log, user
        with gr.Accordion("Paint: a defect, or the region of interest; export corrections", open=False):
            gr.HTML(HELP, apply_default_css=False, js_on_load=None)
            with gr.Row(elem_classes="buttons"):
                self.paint_button = gr.Button("Paint on this image", size="sm")
                self.keep_button = gr.Button("Keep as a defect", size="sm", visible=False)
                self.region_button = gr.Button("Use as region of interest for all images", size="sm", visible=False)
                self.whole_button = gr.Button("Inspect whole images", size="sm", visible=False)
                self.export_button = gr.Button("Export corrections (ZIP)", size="sm")
            with gr.Column(visible=False) as self.column:
                self.canvas = mask_painter(f"{name}-painter")
            self.message = gr.HTML(apply_default_css=False, js_on_load=None, elem_id=f"{name}-correction")

    def connect(self, shown: list[Any], file: gr.HTML) -> None:
        """Connect the buttons.

        Args:
            shown: State with the predictions, index of the displayed image, and threshold.
            file: Component that downloads a file.
        """
        predictions, index, threshold = shown
        painter = [self.canvas, self.column, self.keep_button, self.region_button, self.whole_button]
        self.paint_button.click(self.paint, [predictions, index], painter, **QUEUED)
        inputs = [predictions, index, threshold, self.canvas, self.user]
        self.keep_button.click(self.keep, inputs, self.message, **QUEUED)
        self.export_button.click(self.export, None, file, **QUEUED)

    @show_user_errors
    def paint(self, predictions: PredictionSet | None, index: int) -> Updates:
        """Show the displayed image on the canvas."""
        photo = _require(predictions).get(index).photo
        height, width = photo.display_size
        return {
            self.canvas: gr.HTML(photo=photo.uri, start="", width=width, height=height),
            **dict.fromkeys(
                (self.column, self.keep_button, self.region_button, self.whole_button), gr.update(visible=True)
            ),
        }

    @show_user_errors
    def keep(self, predictions: PredictionSet | None, index: int, threshold: float, painted: str, user: str) -> str:
        """Add the painted defect to the log."""
        prediction = _require(predictions).get(index)
        region = read_painted_region(painted, prediction.photo.display_size)
        if not region.any():
            msg = "nothing is painted yet; paint the defect on the image"
            raise InvalidInputError(msg)
        mask = encode_png(enlarge_mask(region, prediction.photo.size).astype(np.uint8) * 255)
        self.mark(_require(predictions), index, threshold, "bad", user, mask)
        corrected = counted(len(self.log.latest()), "corrected image")
        return f"<p role='status'>Kept: {corrected}.</p>"

    def mark(
        self,
        predictions: PredictionSet,
        index: int,
        threshold: float,
        label: str,
        user: str,
        mask: bytes | None = None,
    ) -> None:
        """Add what a user calls an image to the log."""
        prediction = predictions.get(index)
        self.log.add(
            Path(prediction.source),
            label,
            mask=mask,
            model=predictions.model,
            score=prediction.score,
            threshold=prediction.score_threshold(threshold),
            user=user,
        )

    @show_user_errors
    def export(self) -> dict[str, str]:
        """Return all corrections as a folder to train on."""
        token = secrets.token_hex(16)
        folder = self.log.export(self.log.folder / "exports" / token / "corrections")
        return download_file(zip_folder(folder, token))


def _require(predictions: PredictionSet | None) -> PredictionSet:
    if predictions is None:
        msg = "the server has deleted these images; upload them again"
        raise InvalidInputError(msg)
    return predictions
