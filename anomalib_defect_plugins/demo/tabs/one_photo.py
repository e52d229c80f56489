"""The One photo tab: trains a model on one photo of a surface and inspects other photos with it."""

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from PIL import Image

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.components.anomaly_viewer import AnomalyViewer
from anomalib_defect_plugins.demo.components.listeners import QUEUED, STATE_TTL_S, UNQUEUED, Updates
from anomalib_defect_plugins.demo.components.served_files import serve_file
from anomalib_defect_plugins.demo.resources import asset, render_template
from anomalib_defect_plugins.demo.services.corrections import CorrectionLog
from anomalib_defect_plugins.demo.services.durations import minutes
from anomalib_defect_plugins.demo.services.example_images import brick, defective_brick
from anomalib_defect_plugins.demo.services.one_photo_training import (
    Training,
    TrainingProgress,
    TrainingQueue,
    TrainingSettings,
)
from anomalib_defect_plugins.demo.services.predictions import jpeg_uri
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.services.take_away import keep_model
from anomalib_defect_plugins.demo.services.uploads import encode_png, read_upload
from anomalib_defect_plugins.demo.user_errors import show_user_errors

PRESETS = {
    "Quick (128 pixels, about a minute)": TrainingSettings(128, 4, 60),
    "Standard (256 pixels, 3 to 6 minutes)": TrainingSettings(256, 7, 100),
}
"""Training settings to choose from; the last is the default."""

THRESHOLD_HINT = (
    "<p>The threshold comes from enlarged, mirrored and rotated views of the photo. Calibrate it with a few photos of "
    "good parts as soon as there are some.</p>"
)

POLL_INTERVAL_S = 0.5
"""Interval at which the progress of a training is shown."""

TITLES = {
    "waiting": "Waiting",
    "running": "Training",
    "done": "Trained",
    "stopped": "Stopped",
    "failed": "Training failed",
}
"""Title of each state of a training."""


def add_tab(store: ResultsStore, tab: gr.Tab, user: gr.BrowserState) -> None:
    """Add the contents of the tab.

    Args:
        store: Store of the results, which a kept model becomes a part of.
        tab: The tab; selecting it shows the user's training.
        user: Token of the user.
    """
    OnePhotoTab(store, tab, user)


class OnePhotoTab:
    """Contents of the tab.

    Args:
        store: Store of the results.
        tab: The tab.
        user: Token of the user.

    Attributes:
        queue: The trainings of all users.
    """

    def __init__(self, store: ResultsStore, tab: gr.Tab, user: gr.BrowserState) -> None:
        self.store = store
        self.queue = TrainingQueue()
        self.training = gr.State(None, time_to_live=STATE_TTL_S, delete_callback=self._leave)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280):
                photo = gr.File(file_types=["image"], label="Photo of the defect-free surface", height=150)
                example = gr.Button("Use the example photo", size="sm")
                preset = gr.Radio(list(PRESETS), value=list(PRESETS)[-1], label="Training preset")
                with gr.Row(elem_classes="buttons"):
                    self.train_button = gr.Button("Train", variant="primary")
                    self.stop_button = gr.Button("Stop", variant="stop", visible=False)
            with gr.Column(scale=3, min_width=300):
                self.progress = gr.HTML(
                    _render_progress(None),
                    css_template=asset("training_progress.css"),
                    js_on_load=None,
                    apply_default_css=False,
                    elem_id="training",
                )
        self.hint = gr.HTML(THRESHOLD_HINT, visible=False, js_on_load=None, apply_default_css=False)
        with gr.Row(equal_height=False, visible=False) as self.inspection:
            with gr.Column(scale=3, min_width=280):
                self.photos = gr.File(
                    file_count="multiple", file_types=["image"], label="Photos to inspect", height=220
                )
                defective_examples = gr.Button("Use example photos with defects", size="sm")
                self.name = gr.Textbox("one-photo", label="Name of the model", max_length=40)
                keep = gr.Button("Keep this model", size="sm")
                self.kept = gr.HTML(apply_default_css=False, js_on_load=None, elem_id="kept-model")
            with gr.Column(scale=8, min_width=300):
                self.viewer = AnomalyViewer("photo", CorrectionLog(store.root), user)
        self.timer = gr.Timer(POLL_INTERVAL_S, active=False)
        self.outputs = [
            *(self.training, self.progress, self.train_button, self.stop_button),
            *(self.timer, self.hint, self.inspection),
        ]
        example.click(self.load_example, None, photo, **QUEUED)
        defective_examples.click(self.load_defective_examples, None, self.photos, **QUEUED)
        keep.click(self.keep, [self.training, self.name], self.kept, **QUEUED)
        self._connect(photo, preset, user)
        tab.select(self.open, [self.training, user], self.outputs, **UNQUEUED)

    def _connect(self, photo: gr.File, preset: gr.Radio, user: gr.BrowserState) -> None:
        outputs = [*self.outputs, self.photos, *self.viewer.outputs]
        self.train_button.click(self.start, [photo, preset, self.training, user], outputs, **QUEUED)
        self.stop_button.click(_stop, self.training, **UNQUEUED)  # the timer shows it: two might answer out of order
        self.timer.tick(self.poll, self.training, self.outputs[1:], **UNQUEUED)
        self.photos.change(
            self.predict,
            [self.photos, self.training, *self.viewer.kept],
            self.viewer.outputs,
            api_visibility="private",
            show_progress_on=[self.viewer.placeholder, self.viewer.prediction],
            trigger_mode="always_last",
            concurrency_id="models",
            concurrency_limit=2,
        )

    def open(self, training: Training | None, user: str) -> Updates:
        """Show the user's training, which a page that is loaded again finds."""
        training = training or self.queue.find(_token(user))
        return {self.training: training, **self.poll(training)}

    def _leave(self, training: Training | None) -> None:
        if training is not None:
            self.queue.leave(training)

    @show_user_errors
    def start(self, path: str | None, preset: str, previous: Training | None, user: str) -> Updates:
        """Queue a training, and stop the user's previous one."""
        if not path:
            msg = "there is no photo yet; upload one of the defect-free surface, or use the example photo"
            raise InvalidInputError(msg)
        check_one_of("training preset", preset, PRESETS)
        training = Training(read_upload(path), PRESETS[preset])
        self.queue.submit(training, _token(user))
        _stop(previous)
        self._leave(previous)
        return {self.training: training, **self.poll(training), self.photos: None, **self.viewer.hide()}

    def poll(self, training: Training | None) -> Updates:
        """Show the progress of the training."""
        progress = None if training is None else training.progress()
        active = progress is not None and not progress.is_over
        done = progress is not None and progress.state == "done"
        return {
            self.progress: _render_progress(progress, self.queue.count_ahead(training) if training else 0),
            self.train_button: gr.update(visible=not active),
            self.stop_button: gr.update(visible=active),
            self.timer: gr.update(active=active),
            self.hint: gr.update(visible=done),
            self.inspection: gr.update(visible=done),
        }

    @show_user_errors
    def predict(self, paths: Sequence[str] | None, training: Training | None, *kept: Any) -> Iterator[Updates]:
        """Run the trained model on photos."""
        if not paths:
            yield self.viewer.hide()
            return
        if training is None or training.model is None:
            msg = "the trained model is no longer available; train again"
            raise InvalidInputError(msg)
        yield from self.viewer.predict(training.model, f"{training.model_name} on {training.name}", paths, *kept)

    @show_user_errors
    def keep(self, training: Training | None, name: str) -> str:
        """Keep the trained model as a run of the results, where the Inspect tab finds it."""
        folder = keep_model(self.store.root, name, training)
        return f"<p role='status'>Kept in the results as {folder.name}; select it on the tab Inspect.</p>"

    def load_example(self) -> str:
        """Return the example photo."""
        return serve_file("brick.png", encode_png(brick()))

    def load_defective_examples(self) -> list[str]:
        """Return photos of the example's surface with and without drawn defects."""
        return [serve_file(f"brick_{kind}.png", encode_png(pixels)) for kind, pixels in defective_brick().items()]


def _token(user: object) -> str:
    """Return the token of a user, or an empty one for what a crafted request may hold."""
    return user if isinstance(user, str) else ""


def _stop(training: Training | None) -> None:
    if training is not None:
        training.stop()


def _render_progress(progress: TrainingProgress | None, ahead: int = 0) -> str:
    if progress is None:
        return render_template("training_progress.html", progress=None)
    return render_template(
        "training_progress.html",
        progress=progress,
        title=TITLES[progress.state],
        details=_details(progress, ahead),
        percent=round(100 * progress.share),
        scale_uris=[jpeg_uri(Image.fromarray(pixels)) for pixels in progress.previews],
    )


def _details(progress: TrainingProgress, ahead: int) -> str:
    """Describe queue position, error or progress.

    Args:
        progress: TrainingProgress of the training.
        ahead: Number of trainings ahead in the queue.
    """
    if progress.state == "waiting":
        return f"{ahead} {'training' if ahead == 1 else 'trainings'} ahead in the queue"
    if progress.state == "failed":
        return progress.error
    elapsed = f"{progress.done} of {len(progress.sizes)} scales, {minutes(progress.seconds)}"
    if progress.state == "running" and progress.share > 0.02:
        return f"{elapsed}, about {minutes(progress.seconds * (1 / progress.share - 1))} left"
    return elapsed
