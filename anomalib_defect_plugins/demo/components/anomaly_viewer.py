"""Shows what a model says of images: the map over the image, and mask, verdict and defects at a threshold."""

import csv
import io
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.demo.components.benchmark_figures import TEMPLATES
from anomalib_defect_plugins.demo.resources import asset
from anomalib_defect_plugins.demo.services.predictions import NOTHING, Found, Look, Looks, gathered, look, mask_picture
from anomalib_defect_plugins.demo.services.regions import COLUMNS, Region, enlarged, table
from anomalib_defect_plugins.demo.services.uploads import check_count, png, read_upload
from anomalib_defect_plugins.demo.user_errors import told
from anomalib_defect_plugins.inference.run_model import LoadedModel
from anomalib_defect_plugins.report.images import as_uri

LAYERS = (
    '<figure class="layers" style="--width: ${width}; --height: ${height}">'
    '<img class="photo" src="${photo}" alt="${alt}"><img class="heat" src="${heat}" alt="">'
    '<img class="mask" src="${mask}" alt=""></figure>'
)

HINT = "The map over the image, the verdict and the defects come here."

LISTED = 20
"""Defects that are listed on the page; the table to download has all."""

HOURS = 2
"""How long results are kept for someone who does nothing."""

DIRECT: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
"""Listeners that answer at once, and have nothing to tell of: the browser takes note of an error by itself."""

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Listeners that may tell of an error."""

FADE = "(value) => { document.getElementById('%s').style.setProperty('--opacity', value); }"

SAVING = asset("saving.js")

HEADER = ("image", "verdict", "score", "threshold", "seconds", "defect", *COLUMNS)

Updates = dict[Any, Any]
"""New values by component."""

File = dict[str, str]
"""A file for the browser to save."""


class Viewer:
    """The components that show images, and what they do.

    Args:
        name: Begins the names of its elements on the page.

    Attributes:
        state: What is shown: :class:`Looks`, or nothing.
        outputs: What :meth:`show` gives new values to.
    """

    def __init__(self, name: str) -> None:
        self.state = gr.State(None, time_to_live=3600 * HOURS)
        self.hint = gr.HTML(f"<p>{HINT}</p>", css_template=style("hint"), js_on_load=None, apply_default_css=False)
        with gr.Column(visible=False) as self.box:
            self.image = gr.Dropdown([], label="Image")
            self.verdict = _text(f"{name}-verdict")
            with gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=300):
                    self.picture = _layers(name)
                with gr.Column(scale=3, min_width=280):
                    self.threshold = gr.Slider(0, 1, 0.5, step=0.01, label="Threshold")
                    self.opacity = gr.Slider(0, 1, 0.7, step=0.05, label="Opacity of the map")
                    self.defects = _text(f"{name}-defects")
                    with gr.Row(elem_classes="buttons"):
                        as_mask = gr.Button("Mask (PNG)", size="sm", min_width=120)
                        as_table = gr.Button("Table (CSV)", size="sm", min_width=120)
            # A button for downloads would hand over what it held before the click.
            file = gr.HTML(html_template="<span></span>", js_on_load=SAVING, apply_default_css=False)
        self.parts = [self.picture, self.verdict, self.defects]
        self.outputs = [self.state, self.hint, self.box, self.image, self.threshold, *self.parts]
        self._connect(name, {as_mask: self.save_mask, as_table: self.save_table}, file)

    def _connect(self, name: str, downloads: Updates, file: gr.HTML) -> None:
        shown = [self.state, self.image, self.threshold]
        self.opacity.change(None, self.opacity, None, js=FADE % f"{name}-picture", **DIRECT)
        self.threshold.change(self.redraw, shown, self.parts, trigger_mode="always_last", **DIRECT)
        self.threshold.release(self.label, [self.state, self.threshold], self.image, **DIRECT)
        self.image.input(self.turn, shown, self.parts, trigger_mode="always_last", **QUIET)
        for button, save in downloads.items():
            button.click(save, shown, file, **QUIET)

    def look(self, model: LoadedModel, name: str, paths: Sequence[str]) -> Updates:
        """Let a model look at uploaded images, and show them; those that cannot be are told of, each in a line.

        Args:
            model: The model.
            name: What it is called.
            paths: Where the server has put the images.

        Raises:
            InvalidInputError: There are too many.
        """
        check_count(paths)
        looks = [it for it in (_look(model, path) for path in paths) if it is not None]
        return self.show(gathered(model, name, looks)) if looks else self.hide()

    def show(self, looks: Looks) -> Updates:
        """Show images, the first of them first."""
        low, high = looks.limits
        slider = gr.update(minimum=low, maximum=high, step=(high - low) / 100, value=looks.threshold)
        return {
            self.state: looks,
            self.hint: gr.update(visible=False),
            self.box: gr.update(visible=True),
            self.image: gr.update(choices=_choices(looks, looks.threshold), value=0, visible=len(looks.looks) > 1),
            self.threshold: slider,
            **self._draw(looks, 0, looks.threshold, whole=True),
        }

    def hide(self) -> Updates:
        """Show nothing, and keep nothing."""
        return {self.state: None, self.hint: gr.update(visible=True), self.box: gr.update(visible=False)}

    @told
    def turn(self, looks: Looks | None, index: int, threshold: float) -> Updates:
        """Show another image."""
        return self._draw(_kept(looks), index, threshold, whole=True)

    @told
    def redraw(self, looks: Looks | None, index: int, threshold: float) -> Updates:
        """Show the image at another threshold; the model is not asked."""
        return self._draw(looks, index, threshold) if looks else dict.fromkeys(self.parts, gr.skip())

    @told
    def label(self, looks: Looks | None, threshold: float) -> Any:
        """Write the verdicts at a threshold into the list of images."""
        return gr.update(choices=_choices(looks, _number(threshold))) if looks else gr.skip()

    def _draw(self, looks: Looks, index: int, threshold: float, whole: bool = False) -> Updates:
        seen, threshold = looks.look(index), _number(threshold)
        found = seen.at(threshold)
        layers: dict[str, Any] = {"mask": mask_picture(found.mask)}
        if whole:
            height, width = seen.photo.shown
            layers |= {"photo": seen.photo.picture, "heat": seen.colours(looks.limits)}
            layers |= {"width": width, "height": height}
        return {
            self.picture: gr.HTML(alt=_describe(seen, found), **layers),
            self.verdict: _write("verdict.html", looks=looks, look=seen, found=found, threshold=threshold),
            self.defects: _write("defects.html", regions=found.regions[:LISTED], count=len(found.regions)),
        }

    @told
    def save_mask(self, looks: Looks | None, index: int, threshold: float) -> File:
        """Write the mask, as large as the image."""
        seen = _kept(looks).look(index)
        mask = enlarged(seen.at(_number(threshold)).mask, seen.photo.size)
        return _file(f"{Path(seen.photo.name).stem}_mask.png", png(mask.astype(np.uint8) * 255), "image/png")

    @told
    def save_table(self, looks: Looks | None, index: int, threshold: float) -> File:
        """Write the defects of all images."""
        del index
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADER)
        for seen in _kept(looks).looks:
            writer.writerows(_rows(seen, _number(threshold)))
        return _file("defects.csv", text.getvalue().encode(), "text/csv")


def offer(name: str, content: bytes) -> str:
    """Put a file where the browser can fetch it; the server deletes it after a while."""
    folder = Path(get_upload_folder(), secrets.token_hex(16))
    folder.mkdir(parents=True)
    path = folder / os.path.basename(name)  # noqa: PTH119 - a name of a user's file is no path here
    path.write_bytes(content)
    return str(path)


def _file(name: str, content: bytes, kind: str) -> File:
    # The page would take no notice of a value that it has already.
    return {"name": name, "uri": as_uri(content, kind), "token": secrets.token_hex(8)}


def _look(model: LoadedModel, path: str) -> Look | None:
    try:
        return look(model, read_upload(path))
    except UserError as error:
        gr.Warning(" ".join(str(error).split()))
    return None


def style(name: str) -> str:
    """Give a style sheet, which a component takes for itself alone."""
    return asset(f"{name}.css")


def _layers(name: str) -> gr.HTML:
    nothing = {"photo": NOTHING, "heat": NOTHING, "mask": NOTHING, "alt": "", "width": 1, "height": 1}
    return gr.HTML(
        html_template=LAYERS,
        css_template=style("layers"),
        js_on_load=None,
        apply_default_css=False,
        elem_id=f"{name}-picture",
        **nothing,
    )


def _text(name: str) -> gr.HTML:
    return gr.HTML(css_template=style("found"), js_on_load=None, apply_default_css=False, elem_id=name)


def _choices(looks: Looks, threshold: float) -> list[tuple[str, int]]:
    verdicts = {True: "defective", False: "normal"}
    called = [verdicts[seen.score > seen.score_threshold(threshold)] for seen in looks.looks]
    return [(f"{n + 1} · {seen.photo.name} · {called[n]}", n) for n, seen in enumerate(looks.looks)]


def _kept(looks: Looks | None) -> Looks:
    """Give what is shown.

    Raises:
        InvalidInputError: It is not kept any more.
    """
    if looks is None:
        msg = "the server has let these images go; give them again"
        raise InvalidInputError(msg)
    return looks


def _number(threshold: object) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not np.isfinite(threshold):
        msg = f"the threshold is {str(threshold)[:20]!r}; give a number"
        raise InvalidInputError(msg)
    return float(threshold)


def _describe(seen: Look, found: Found) -> str:
    """Say what there is to see, for who cannot see it; the page takes it as it is, and so no name is in it."""
    count = len(found.regions)
    verdict = "defective" if found.is_defective else "normal"
    height, width = seen.photo.size
    return f"image of {width} by {height} pixels, {verdict}, {count} regions above the threshold"


def _write(template: str, **values: Any) -> str:
    return TEMPLATES.get_template(template).render(**values)


def _rows(seen: Look, threshold: float) -> list[list[Any]]:
    found = seen.at(threshold)
    verdict = "defective" if found.is_defective else "normal"
    image = [_harmless(seen.photo.name), verdict, f"{seen.score:.6g}", f"{threshold:.6g}", f"{seen.seconds:.4f}"]
    regions: list[Region] = found.regions
    if not regions:
        return [image + [""] * (1 + len(COLUMNS))]
    return [[*image, n, *row] for n, row in enumerate(table(regions), start=1)]


def _harmless(name: str) -> str:
    """Give a name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in "=+-@" else name
