"""The tab where someone's own images are looked at with a model of the results folder."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.components.anomaly_viewer import DIRECT, QUIET, Updates, Viewer, offer
from anomalib_defect_plugins.demo.services.results_store import Store
from anomalib_defect_plugins.demo.services.uploads import png
from anomalib_defect_plugins.demo.user_errors import told

EXAMPLES = 3
"""Test images of each kind that are taken as examples."""

NO_MODEL = (
    "<p>There is no trained model in the results yet. Make the embedded ones on the first tab, run "
    "<code>anomalib-defects benchmark</code>, or train one from a single photo on the next tab.</p>"
)


def add_tab(store: Store, tab: gr.Tab) -> None:
    """Add what is in the tab.

    Args:
        store: The results.
        tab: The tab.
    """
    Inspect(store, tab)


class Inspect:
    """The tab.

    Args:
        store: The results.
        tab: The tab; going to it shows which models there are by then.
    """

    def __init__(self, store: Store, tab: gr.Tab) -> None:
        self.store = store
        self.missing = gr.HTML(NO_MODEL, visible=False, apply_default_css=False)
        # Hidden until it is known which models there are: without one, images could not be looked at.
        self.model = gr.Dropdown([], label="Trained model", visible=False)
        with gr.Row(equal_height=False, visible=False) as self.body:
            with gr.Column(scale=3, min_width=280):
                self.photos = gr.File(
                    file_count="multiple", file_types=["image"], label="Images to inspect", height=220
                )
                examples = gr.Button("Take some of its test images", size="sm")
            with gr.Column(scale=8, min_width=300):
                self.viewer = Viewer("inspect")
        tab.select(self.open, self.model, [self.missing, self.body, self.model], **DIRECT)
        self.model.focus(self.offer, None, self.model, **DIRECT)
        examples.click(self.take, self.model, self.photos, **QUIET)
        gr.on(
            [self.photos.change, self.model.input],
            self.look,
            [self.photos, self.model],
            self.viewer.outputs,
            api_visibility="private",
            show_progress_on=[self.viewer.hint, self.viewer.verdict],
            trigger_mode="always_last",
            concurrency_id="models",
            concurrency_limit=2,
        )

    def _choices(self) -> list[tuple[str, str]]:
        runs = [run for run in self.store.runs() if run.has_model]
        several = len({run.benchmark for run in runs}) > 1
        return [(f"{run.title} · {run.benchmark}" if several else run.title, run.key) for run in runs]

    def open(self, chosen: str | None) -> Updates:
        """Offer the models that there are, for someone who has just come to the tab; what is chosen stays."""
        choices = self._choices()
        keys = [key for _, key in choices]
        value = chosen if chosen in keys else next(iter(keys), None)
        return {
            self.missing: gr.update(visible=not choices),
            self.body: gr.update(visible=bool(choices)),
            self.model: gr.update(choices=choices, value=value, visible=bool(choices)),
        }

    def offer(self) -> Any:
        """Offer the models that have come since; what is chosen stays."""
        return gr.update(choices=self._choices())

    @told
    def take(self, key: str | None) -> list[str]:
        """Give some of the test images of a model's run: defective ones and normal ones."""
        images = self.store.images(_chosen(key))
        rows = [index for label in (True, False) for index in _spread(np.flatnonzero(images.label == label))]
        names = {index: f"{'defective' if images.label[index] else 'normal'}_{index:05}.png" for index in rows}
        return [offer(name, png(self.store.picture(key, index, "image"))) for index, name in names.items()]

    @told
    def look(self, paths: Sequence[str] | None, key: str | None) -> Updates:
        """Look at images; those that cannot be are told of, each in a line."""
        if not paths:
            return self.viewer.hide()
        return self.viewer.look(self.store.model(_chosen(key)), self.store.run(key).title, paths)


def _chosen(key: str | None) -> str:
    if key is None:
        msg = "no model is chosen; choose one of the list"
        raise InvalidInputError(msg)
    return key


def _spread(rows: np.ndarray) -> list[int]:
    """Give some of the rows, evenly spread."""
    if not len(rows):
        return []
    places = np.linspace(0, len(rows) - 1, min(EXAMPLES, len(rows))).round().astype(int)
    return [int(rows[place]) for place in places]
