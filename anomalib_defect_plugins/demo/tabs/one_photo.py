"""The tab where HTP-GAN learns a surface from one photo, and then looks at others."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from PIL import Image

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.components.anomaly_viewer import DIRECT, HOURS, QUIET, Updates, Viewer, offer, style
from anomalib_defect_plugins.demo.components.benchmark_figures import TEMPLATES
from anomalib_defect_plugins.demo.services.example_images import brick, defective_brick
from anomalib_defect_plugins.demo.services.one_photo_training import Line, Progress, Recipe, Training
from anomalib_defect_plugins.demo.services.predictions import photo_uri
from anomalib_defect_plugins.demo.services.results_store import Store
from anomalib_defect_plugins.demo.services.uploads import png, read_upload
from anomalib_defect_plugins.demo.user_errors import told

RECIPES = {
    "Quick (128 pixels, some 20 seconds)": Recipe(128, 4, 60),
    "Standard (256 pixels, 2 to 3 minutes)": Recipe(256, 7, 100),
}
"""What can be chosen, and the default last."""

RAISE = "The photo that was learnt from looks more normal than any other: raise the threshold until flawless ones are."

PERIOD = 0.5
"""Seconds between two looks at a training."""


def add_tab(store: Store, tab: gr.Tab) -> None:
    """Add what is in the tab.

    Args:
        store: The results, of which nothing is needed.
        tab: The tab, of which nothing is needed either.
    """
    del store, tab
    OnePhoto()


class OnePhoto:
    """The tab.

    Attributes:
        line: The trainings of all users.
    """

    def __init__(self) -> None:
        self.line = Line()
        self.training = gr.State(None, time_to_live=3600 * HOURS, delete_callback=_stop)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280):
                photo = gr.File(file_types=["image"], label="One photo of the surface without a defect", height=150)
                example = gr.Button("Take an example: bricks", size="sm")
                recipe = gr.Radio(list(RECIPES), value=list(RECIPES)[-1], label="How thoroughly")
                with gr.Row(elem_classes="buttons"):
                    self.train = gr.Button("Train", variant="primary")
                    self.stop = gr.Button("Stop", variant="stop", visible=False)
            with gr.Column(scale=3, min_width=300):
                sheet = style("training")
                self.said = gr.HTML(
                    _write(None), css_template=sheet, js_on_load=None, apply_default_css=False, elem_id="training"
                )
        self.hint = gr.HTML(f"<p>{RAISE}</p>", visible=False, js_on_load=None, apply_default_css=False)
        with gr.Row(equal_height=False, visible=False) as self.after:
            with gr.Column(scale=3, min_width=280):
                self.photos = gr.File(
                    file_count="multiple", file_types=["image"], label="Photos to inspect", height=220
                )
                examples = gr.Button("Take examples with drawn defects", size="sm")
            with gr.Column(scale=8, min_width=300):
                self.viewer = Viewer("photo")
        self.timer = gr.Timer(PERIOD, active=False)
        self.outputs = [self.training, self.said, self.train, self.stop, self.timer, self.hint, self.after]
        self._connect(photo, recipe, {example: (self.take, photo), examples: (self.take_defects, self.photos)})

    def _connect(self, photo: gr.File, recipe: gr.Radio, examples: Updates) -> None:
        outputs = [*self.outputs, self.photos, *self.viewer.outputs]
        self.train.click(self.begin, [photo, recipe, self.training], outputs, **QUIET)
        self.stop.click(self.end, self.training, self.outputs, **QUIET)
        self.timer.tick(self.tick, self.training, self.outputs, **DIRECT)
        for button, (take, files) in examples.items():
            button.click(take, None, files, **QUIET)
        self.photos.change(
            self.look,
            [self.photos, self.training],
            self.viewer.outputs,
            api_visibility="private",
            show_progress_on=[self.viewer.hint, self.viewer.verdict],
            trigger_mode="always_last",
            concurrency_id="models",
            concurrency_limit=2,
        )

    @told
    def begin(self, path: str | None, recipe: str, former: Training | None) -> Updates:
        """Begin to train, or wait in line for it."""
        if not path:
            msg = "there is no photo yet; give one of the surface without a defect, or take the example"
            raise InvalidInputError(msg)
        check_one_of("how thoroughly", recipe, RECIPES)
        training = Training(read_upload(path), RECIPES[recipe])
        self.line.enter(training)
        _stop(former)
        return {**self._show(training), self.photos: None, **self.viewer.hide()}

    @told
    def end(self, training: Training | None) -> Updates:
        """Stop training."""
        _stop(training)
        return self._show(training)

    @told
    def tick(self, training: Training | None) -> Updates:
        """Show how far the training is."""
        return self._show(training)

    def _show(self, training: Training | None) -> Updates:
        progress = training and training.progress()
        busy = progress is not None and not progress.is_over
        return {
            self.training: training,
            self.said: _write(progress, self.line.ahead(training) if training else 0),
            self.train: gr.update(visible=not busy),
            self.stop: gr.update(visible=busy),
            self.timer: gr.update(active=busy),
            self.hint: gr.update(visible=progress is not None and progress.state == "done"),
            self.after: gr.update(visible=progress is not None and progress.state == "done"),
        }

    @told
    def look(self, paths: Sequence[str] | None, training: Training | None) -> Updates:
        """Look at photos with the trained model."""
        if not paths:
            return self.viewer.hide()
        if training is None or training.model is None:
            msg = "there is no trained model any more; train again"
            raise InvalidInputError(msg)
        return self.viewer.look(training.model, f"HTP-GAN on {training.name}", paths)

    def take(self) -> str:
        """Give a photo of bricks."""
        return offer("brick.png", png(brick()))

    def take_defects(self) -> list[str]:
        """Give other photos of these bricks, with drawn defects and without."""
        return [offer(f"brick_{kind}.png", png(pixels)) for kind, pixels in defective_brick().items()]


def _stop(training: Training | None) -> None:
    if training is not None:
        training.stop()


def _write(progress: Progress | None, ahead: int = 0) -> str:
    named: dict[str, Any] = {"progress": progress}
    if progress is not None:
        named |= {"title": TITLES[progress.state], "about": _about(progress, ahead)}
        named |= {"percent": round(100 * progress.share)}
        named |= {"pictures": [photo_uri(Image.fromarray(picture)) for picture in progress.photo]}
    return TEMPLATES.get_template("training.html").render(**named)


TITLES = {
    "waiting": "Waiting",
    "running": "Training",
    "done": "Trained",
    "stopped": "Stopped",
    "failed": "Training failed",
}


def _about(progress: Progress, ahead: int) -> str:
    """Say what a person wants to know besides the state."""
    if progress.state == "waiting":
        return f"{ahead} {'training' if ahead == 1 else 'trainings'} of others before this one"
    if progress.state == "failed":
        return progress.error
    passed = f"{progress.done} of {len(progress.sizes)} scales, {_minutes(progress.seconds)}"
    if progress.state == "running" and progress.share > 0.02:
        return f"{passed}, about {_minutes(progress.seconds * (1 / progress.share - 1))} left"
    return passed


def _minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f} min"
