"""The tab where someone paints a region on a normal image, has defects made in it, and saves them for a training."""

import io
import secrets
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.demo.components.anomaly_viewer import DIRECT, HOURS, QUIET, Updates, offer, style
from anomalib_defect_plugins.demo.components.benchmark_figures import TEMPLATES
from anomalib_defect_plugins.demo.resources import asset
from anomalib_defect_plugins.demo.services.defect_collection import FOLDER, Collection, Piece, zipped
from anomalib_defect_plugins.demo.services.defect_sources import Sources
from anomalib_defect_plugins.demo.services.example_images import brick
from anomalib_defect_plugins.demo.services.predictions import NOTHING, OUTLINE, photo_uri, shrunk
from anomalib_defect_plugins.demo.services.regions import ring
from anomalib_defect_plugins.demo.services.results_store import Store
from anomalib_defect_plugins.demo.services.uploads import png, read_paint, read_upload
from anomalib_defect_plugins.demo.user_errors import told

SIDE = 768
"""Longer side that normal images are brought to, in pixels."""

SMALL = 240
"""Longer side of the pictures of what was made, in pixels."""

FIRST = "procedural"
"""What makes defects at first: it always can, where a Defect-GAN may have been trained for too short a time."""

HINT = "<p>Paint on a normal image here, and defects are made where the paint is.</p>"

Work = tuple[str, np.ndarray]
"""Name and pixels, (H, W, 3), uint8, of the normal image."""


def add_tab(store: Store, tab: gr.Tab) -> None:
    """Add what is in the tab.

    Args:
        store: The results, whose trained Defect-GANs are offered, and below which is saved.
        tab: The tab.
    """
    Synthesis(store, tab)


class Synthesis:
    """The tab.

    Args:
        store: The results.
        tab: The tab; going to it shows what can make defects by then.
    """

    def __init__(self, store: Store, tab: gr.Tab) -> None:
        self.store = store
        self.sources = Sources(store)
        self.work = gr.State(None, time_to_live=3600 * HOURS)
        self.made = gr.State(None, time_to_live=3600 * HOURS)
        with gr.Row():
            self.source = gr.Dropdown(self._choices(), value=FIRST, label="Made by", scale=2, min_width=320)
            known = list(self.sources.get(FIRST).categories)
            self.category = gr.Dropdown(known, value=known[0], label="Category of the defects", min_width=240)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                photo = gr.File(file_types=["image"], label="Normal image", height=150)
                example = gr.Button("Take an example", size="sm")
                count = gr.Slider(1, 16, 4, step=1, precision=0, label="Images to make")
                seed = gr.Number(0, precision=0, minimum=0, maximum=2**31, label="Seed")
                make = gr.Button("Make defects", variant="primary")
            with gr.Column(scale=8, min_width=300):
                self.hint = gr.HTML(HINT, css_template=style("hint"), js_on_load=None, apply_default_css=False)
                with gr.Column(visible=False) as self.board:
                    self.canvas = _canvas()
                self.shown = gr.HTML(
                    _write(None),
                    css_template=style("made"),
                    js_on_load=None,
                    apply_default_css=False,
                    elem_id="made",
                )
                with gr.Row(elem_classes="buttons", visible=False) as self.saving:
                    name = gr.Textbox("painted", label="Name of the folder", max_length=60, scale=3, min_width=160)
                    save = gr.Button("Save as a folder", min_width=140)
                    again = gr.Button("Start over", min_width=120)
                self.saved = gr.HTML(apply_default_css=False, js_on_load=None, elem_id="saved")
                self.zip = gr.DownloadButton("Download as ZIP", visible=False)
        self._connect(tab, photo, example)
        outputs = [self.made, self.shown, self.saving, self.saved, self.zip]
        make.click(
            self.make,
            [self.work, self.canvas, self.source, self.category, count, seed, self.made],
            outputs,
            api_visibility="private",
            show_progress_on=self.shown,
            concurrency_id="models",
            concurrency_limit=2,
        )
        save.click(self.save, [self.made, name], [self.saved, self.zip], api_visibility="private")
        again.click(self.start_over, None, outputs, **DIRECT)

    def _connect(self, tab: gr.Tab, photo: gr.File, example: gr.Button) -> None:
        gr.on([tab.select, self.source.focus], self.offer, None, self.source, **DIRECT)
        self.source.input(self.turn, self.source, self.category, **QUIET)
        photo.change(self.take, [photo, self.work], [self.work, self.hint, self.board, self.canvas], **QUIET)
        example.click(self.take_example, self.source, photo, **QUIET)

    def _choices(self) -> list[tuple[str, str]]:
        return [(title, name) for name, title in self.sources.titles().items()]

    def offer(self) -> Any:
        """Offer what has come since; what is chosen stays."""
        return gr.update(choices=self._choices())

    @told
    def turn(self, source: str) -> Any:
        """Offer what a source can make."""
        known = self.sources.get(source).categories
        return gr.update(choices=list(known), value=known[0])

    @told
    def take(self, path: str | None, former: Work | None) -> Updates:
        """Show a normal image to paint on."""
        if path is None:
            return {self.work: former}
        photo = read_upload(path)
        picture = shrunk(photo.pixels, SIDE)
        return {
            self.work: (photo.name, np.asarray(picture)),
            self.hint: gr.update(visible=False),
            self.board: gr.update(visible=True),
            self.canvas: gr.HTML(photo=photo_uri(picture), width=picture.width, height=picture.height),
        }

    @told
    def take_example(self, source: str | None) -> str:
        """Give a normal test image of the data that a Defect-GAN was trained with, or a photo of bricks."""
        runs = [run for run in self.store.runs() if run.key == source] or self.store.runs()
        for run in runs:
            try:
                images = self.store.images(run.key)
                normal = np.flatnonzero(~images.label)
                pixels = self.store.picture(run.key, int(normal[secrets.randbelow(len(normal))]), "image")
            except (UserError, ValueError):
                continue
            return offer("normal.png", png(pixels))
        return offer("brick.png", png(brick()))

    @told
    def make(
        self,
        work: Work | None,
        painted: str,
        source: str,
        category: str,
        count: int,
        seed: int,
        made: Collection | None,
    ) -> Updates:
        """Make defects, and add them to what was made before."""
        if work is None:
            msg = "there is no normal image yet; give one, or take an example"
            raise InvalidInputError(msg)
        made = made or Collection()
        made.check_room(count)
        name, pixels = work
        region = read_paint(painted, pixels.shape[:2])
        maker = self.sources.get(source)
        for number in range(len(made.pieces), len(made.pieces) + count):
            made.add(name, pixels, maker.make(pixels, region, category, (seed, number)), category, maker.title, seed)
        return self._show(made)

    def _show(self, made: Collection | None) -> Updates:
        return {
            self.made: made,
            self.shown: _write(made),
            self.saving: gr.update(visible=made is not None),
            self.saved: "",
            self.zip: gr.update(visible=False, value=None),
        }

    @told
    def save(self, made: Collection | None, name: str) -> Updates:
        """Save what was made as a folder, and offer it as one file."""
        folder = (made or Collection()).save(self.store.root, name)
        place = f"{self.store.root.name}/{FOLDER}/{folder.name}"
        text = TEMPLATES.get_template("saved.html").render(place=place, count=len(made.pieces))
        return {self.saved: text, self.zip: gr.update(visible=True, value=zipped(folder, secrets.token_hex(16)))}

    def start_over(self) -> Updates:
        """Let go of what was made; what was saved stays."""
        return self._show(None)


def _canvas() -> gr.HTML:
    return gr.HTML(
        "",
        html_template=asset("paint.html"),
        css_template=style("paint"),
        js_on_load=asset("paint.js"),
        apply_default_css=False,
        elem_id="painted",
        photo=NOTHING,
        width=1,
        height=1,
    )


def _write(made: Collection | None) -> str:
    pieces = made.pieces if made else []
    pictures = [_picture(piece) for piece in pieces]
    return TEMPLATES.get_template("made.html").render(pieces=list(zip(pieces, pictures, strict=True)))


def _picture(piece: Piece) -> str:
    """Draw an image of the collection with the border of its mask, as a data URI."""
    image, mask = (Image.open(io.BytesIO(file)) for file in (piece.image, piece.mask))
    size = [round(SMALL / max(image.size) * length) for length in image.size]
    pixels = np.array(image.resize(size, Image.Resampling.LANCZOS))
    covered = np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > 0
    pixels[ring(covered)] = OUTLINE
    return photo_uri(Image.fromarray(pixels))
