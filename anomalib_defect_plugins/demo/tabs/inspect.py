"""The Inspect tab: runs a trained model of the results on uploaded images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.components.anomaly_viewer import AnomalyViewer
from anomalib_defect_plugins.demo.components.listeners import QUEUED, UNQUEUED, Updates
from anomalib_defect_plugins.demo.components.served_files import download_file, serve_file
from anomalib_defect_plugins.demo.resources import asset
from anomalib_defect_plugins.demo.services.corrections import CorrectionLog
from anomalib_defect_plugins.demo.services.example_model import KEY, example_images, example_title, load_example
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.services.take_away import pack_model
from anomalib_defect_plugins.demo.services.uploads import encode_png
from anomalib_defect_plugins.demo.user_errors import show_user_errors

EXAMPLES_PER_LABEL = 3
"""Maximum number of example images per label."""


def add_tab(store: ResultsStore, tab: gr.Tab, user: gr.BrowserState) -> None:
    """Add the contents of the tab.

    Args:
        store: Store of the results.
        tab: The tab.
        user: Token of the user.
    """
    InspectTab(store, tab, user)


class InspectTab:
    """Contents of the tab.

    Args:
        store: Store of the results.
        tab: The tab; selecting it updates the list of models.
        user: Token of the user.
    """

    def __init__(self, store: ResultsStore, tab: gr.Tab, user: gr.BrowserState) -> None:
        self.store = store
        # Hidden until the models are known, so that no image is uploaded without a model.
        self.model = gr.Dropdown([], label="Trained model", visible=False)
        with gr.Row(equal_height=False, visible=False) as self.body:
            with gr.Column(scale=3, min_width=280):
                self.photos = gr.File(
                    file_count="multiple", file_types=["image"], label="Images to inspect", height=220
                )
                examples = gr.Button("Use test images of this model", size="sm")
                download = gr.Button("Download this model (ZIP)", size="sm")
                file = gr.HTML(html_template="<span></span>", js_on_load=asset("download.js"), apply_default_css=False)
            with gr.Column(scale=8, min_width=300):
                self.viewer = AnomalyViewer("inspect", CorrectionLog(store.root), user)
        opened = [self.body, self.model]
        tab.select(self.open, self.model, opened, **UNQUEUED)
        # Without inputs, because it would otherwise run again whenever the model changes, and replace the images.
        gr.on(None, lambda: self.open(None), None, opened, **UNQUEUED).then(
            self.load_first_examples, self.model, self.photos, **UNQUEUED
        )
        self.model.focus(self.refresh_models, None, self.model, **UNQUEUED)
        download.click(self.download_model, self.model, file, **QUEUED, concurrency_id="exports", concurrency_limit=1)
        examples.click(self.load_examples, self.model, self.photos, **QUEUED)
        gr.on(
            [self.photos.change, self.model.input],
            self.predict,
            [self.photos, self.model, *self.viewer.kept],
            self.viewer.outputs,
            api_visibility="private",
            show_progress_on=[self.viewer.placeholder, self.viewer.prediction],
            trigger_mode="always_last",
            concurrency_id="models",
            concurrency_limit=2,
        )

    def _choices(self) -> list[tuple[str, str]]:
        runs = [run for run in self.store.runs() if run.has_model]
        several = len({run.benchmark for run in runs}) > 1
        own = [(f"{run.title} · {run.benchmark}" if several else run.title, run.key) for run in runs]
        return [*own, (example_title(), KEY)]

    def open(self, selected: str | None) -> Updates:
        """Update the list of models when the tab is selected; the current selection is kept."""
        choices = self._choices()
        keys = [key for _, key in choices]
        value = selected if selected in keys else next(iter(keys), None)
        return {
            self.body: gr.update(visible=True),
            self.model: gr.update(choices=choices, value=value, visible=True),
        }

    def refresh_models(self) -> Any:
        """Update the list of models; the current selection is kept."""
        return gr.update(choices=self._choices())

    def load_first_examples(self, key: str | None) -> Any:
        """Show the images of the example model if there is no other, so that a new user sees a heat map at once."""
        return _example_files() if key == KEY else gr.skip()

    @show_user_errors
    def load_examples(self, key: str | None) -> list[str]:
        """Return some defective and some normal test images of the model's run."""
        key = _require_model(key)
        if key == KEY:
            return _example_files()
        images = self.store.images(key)
        paths = []
        for label, name in ((True, "defective"), (False, "normal")):
            for index in _evenly_spaced(np.flatnonzero(images.label == label)):
                png = encode_png(self.store.picture(key, index, "image"))
                paths.append(serve_file(f"{name}_{index:05}.png", png))
        return paths

    @show_user_errors
    def download_model(self, key: str | None) -> dict[str, str]:
        """Return a bundle of the selected model."""
        key = _require_model(key)
        if key == KEY:
            msg = "the example model is a part of this package; train one of your own to take away"
            raise InvalidInputError(msg)
        gr.Info("Exporting the model and comparing it with PyTorch on its test images takes up to a minute.")
        return download_file(pack_model(self.store.run(key).record))

    @show_user_errors
    def predict(self, paths: Sequence[str] | None, key: str | None, *kept: Any) -> Iterator[Updates]:
        """Run the selected model on images; images that fail are reported one by one."""
        if not paths:
            yield self.viewer.hide()
            return
        key = _require_model(key)
        model, title = (
            (load_example(), example_title()) if key == KEY else (self.store.model(key), self.store.run(key).title)
        )
        yield from self.viewer.predict(model, title, paths, *kept)


def _example_files() -> list[str]:
    return [serve_file(Path(path).name, Path(path).read_bytes()) for path in example_images()]


def _require_model(key: str | None) -> str:
    if key is None:
        msg = "no model is selected; select one from the list"
        raise InvalidInputError(msg)
    return key


def _evenly_spaced(rows: npt.NDArray[np.intp]) -> list[int]:
    """Return at most ``EXAMPLES_PER_LABEL`` of the rows, evenly spaced."""
    if not len(rows):
        return []
    places = np.linspace(0, len(rows) - 1, min(EXAMPLES_PER_LABEL, len(rows))).round().astype(int)
    return [int(rows[place]) for place in places]
