"""The Train tab: trains a model on a user's parts, in a queue that survives reloads of the page and of the server."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.core.regions import enlarge_mask
from anomalib_defect_plugins.demo.components.listeners import QUEUED, STATE_TTL_S, UNQUEUED, Updates
from anomalib_defect_plugins.demo.components.mask_painter import mask_painter
from anomalib_defect_plugins.demo.resources import asset, render_template
from anomalib_defect_plugins.demo.services.defect_collection import next_name
from anomalib_defect_plugins.demo.services.durations import minutes
from anomalib_defect_plugins.demo.services.parts_folder import PartImages, summarize_parts, write_parts
from anomalib_defect_plugins.demo.services.parts_recipes import (
    best_recipe,
    budget_names,
    check_parts,
    configuration,
    recipe_names,
)
from anomalib_defect_plugins.demo.services.predictions import jpeg_uri, shrink
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.services.training_jobs import JobStatus, TrainingJobs
from anomalib_defect_plugins.demo.services.uploads import encode_png, read_painted_region, read_upload
from anomalib_defect_plugins.demo.user_errors import show_user_errors

POLL_INTERVAL_S = 1.0
"""Interval at which the progress of a training is shown."""

PAINTER_SIDE = 768
"""Longer side of an image to paint on, in pixels; larger images are resized."""

BEST = "Whatever is there (recommended)"
"""Choice of the recipe that makes use of all images."""

Paintings = dict[str, str]
"""Painted defects as data URIs, by the path of the image."""


def add_tab(store: ResultsStore, tab: gr.Tab, user: gr.BrowserState) -> None:
    """Add the contents of the tab.

    Args:
        store: Store of the results, which trained models become a part of.
        tab: The tab; selecting it shows the user's training.
        user: Token of the user.
    """
    TrainTab(store, tab, user)


class TrainTab:
    """Contents of the tab.

    Args:
        store: Store of the results.
        tab: The tab.
        user: Token of the user.

    Attributes:
        jobs: The trainings of all users.
    """

    def __init__(self, store: ResultsStore, tab: gr.Tab, user: gr.BrowserState) -> None:
        self.store = store
        self.jobs = TrainingJobs(store.root)
        self.paintings = gr.State({}, time_to_live=STATE_TTL_S)
        self.job_key = gr.State("")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                self._add_files()
            with gr.Column(scale=5, min_width=300):
                self._add_settings()
                with gr.Column(visible=False) as self.painting:
                    self.subject = gr.Dropdown([], label="Mark the defects of")
                    self.canvas = mask_painter("defect-painter")
        self.timer = gr.Timer(POLL_INTERVAL_S, active=False)
        self.outputs = [self.progress, self.train_button, self.stop_button, self.timer, self.job_key]
        self._connect(tab, user)

    def _add_files(self) -> None:
        images: dict[str, Any] = {"file_count": "multiple", "file_types": ["image"], "height": 150}
        self.good = gr.File(label="Good parts", **images)
        self.bad = gr.File(label="Defective parts (optional)", **images)
        self.masks = gr.File(label="Their masks, named alike (optional; or paint them)", **images)
        self.archive = gr.File(label="Or a folder as ZIP: good, defect types, masks", file_types=[".zip"], height=150)

    def _add_settings(self) -> None:
        self.recipe = gr.Radio([BEST, *recipe_names()], value=BEST, label="What do you have?")
        self.budget = gr.Radio(budget_names(), value=budget_names()[1], label="How much time is there?")
        self.name = gr.Textbox("my-parts", label="Name of the model", max_length=40)
        with gr.Row(elem_classes="buttons"):
            self.train_button = gr.Button("Train on my parts", variant="primary")
            self.stop_button = gr.Button("Stop", variant="stop", visible=False)
        self.progress = gr.HTML(
            _render(None),
            css_template=asset("training_progress.css"),
            js_on_load=None,
            apply_default_css=False,
            elem_id="parts-training",
        )

    def _connect(self, tab: gr.Tab, user: gr.BrowserState) -> None:
        painter = [self.painting, self.subject, self.canvas]
        self.bad.change(self.list_subjects, [self.bad, self.paintings], painter, **UNQUEUED)
        self.subject.input(self.show_subject, [self.subject, self.paintings], self.canvas, **QUEUED)
        self.canvas.change(self.keep_painting, [self.canvas, self.subject, self.paintings], self.paintings, **UNQUEUED)
        inputs = [self.good, self.bad, self.masks, self.archive, self.paintings, self.recipe, self.budget, self.name]
        self.train_button.click(self.start, [*inputs, user], [*self.outputs, self.name], **QUEUED)
        # The timer shows that the training has stopped: two might answer out of order.
        self.stop_button.click(self.jobs.stop, [self.job_key, user], **UNQUEUED)
        gr.on([tab.select, self.timer.tick], self.show, user, self.outputs, **UNQUEUED)

    @show_user_errors
    def list_subjects(self, paths: Sequence[str] | None, paintings: Paintings) -> Updates:
        """Offer the defective images for painting."""
        if not paths:
            return {self.painting: gr.update(visible=False)}
        choices = [(Path(path).name, path) for path in paths]
        return {
            self.painting: gr.update(visible=True),
            self.subject: gr.update(choices=choices, value=paths[0]),
            self.canvas: self.show_subject(paths[0], paintings),
        }

    @show_user_errors
    def show_subject(self, path: str, paintings: Paintings) -> Any:
        """Show a defective image and what has been painted on it."""
        image = shrink(read_upload(path).pixels, PAINTER_SIDE)
        return gr.HTML(photo=jpeg_uri(image), start=paintings.get(path, ""), width=image.width, height=image.height)

    def keep_painting(self, painted: str, path: str | None, paintings: Paintings) -> Paintings:
        """Keep what has been painted on an image."""
        rest = {key: value for key, value in paintings.items() if key != path}
        return {**rest, path: painted} if path and painted else rest

    @show_user_errors
    def start(
        self,
        good: Sequence[str] | None,
        bad: Sequence[str] | None,
        masks: Sequence[str] | None,
        archive: str | None,
        paintings: Paintings,
        recipe: str,
        budget: str,
        name: str,
        user: str,
    ) -> Updates:
        """Write the images to a folder and queue the training."""
        current = self.jobs.latest(user)
        if current is not None and not current.job.is_over:
            msg = f"your training {current.job.name} has not ended; stop it first"
            raise InvalidInputError(msg)
        painted = {path: uri for path, uri in paintings.items() if path in (bad or ())}
        images = PartImages(good or (), bad or (), masks or (), _painted_masks(painted), archive)
        folder = write_parts(self.store.root, name, images)
        try:
            self._submit(folder, recipe, budget, user)
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)  # so that the name stays free
            raise
        return {**self.show(user), self.name: next_name(folder.parent, name)}

    def _submit(self, folder: Path, recipe: str, budget: str, user: str) -> None:
        parts = summarize_parts(folder)
        chosen = best_recipe(parts) if recipe == BEST else recipe
        check_parts(chosen, parts)
        self.jobs.submit(folder.name, user, configuration(folder.name, folder, chosen, budget))

    def show(self, user: str) -> Updates:
        """Show the user's latest training, which a page that is loaded again finds."""
        status = self.jobs.latest(user)
        active = status is not None and not status.job.is_over
        return {
            self.progress: _render(status),
            self.train_button: gr.update(visible=not active),
            self.stop_button: gr.update(visible=active),
            self.timer: gr.update(active=active),
            self.job_key: status.job.key if status else "",
        }


def _painted_masks(paintings: Mapping[str, str]) -> dict[str, bytes]:
    """Return painted defects as PNG files of the size of their images."""
    masks = {}
    for path, uri in paintings.items():
        photo = read_upload(path)
        width, height = shrink(photo.pixels, PAINTER_SIDE).size
        region = read_painted_region(uri, (height, width))
        if region.any():
            masks[path] = encode_png(enlarge_mask(region, photo.size).astype(np.uint8) * 255)
    return masks


def _render(status: JobStatus | None) -> str:
    return render_template("job_progress.html", status=status, minutes=minutes)
