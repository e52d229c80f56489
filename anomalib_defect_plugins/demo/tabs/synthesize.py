"""The Synthesise tab: draws defects in a painted region of a normal image and saves them as training data."""

import io
import secrets
from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.core.regions import ring
from anomalib_defect_plugins.demo.components.listeners import QUEUED, STATE_TTL_S, UNQUEUED, Updates
from anomalib_defect_plugins.demo.components.mask_painter import mask_painter
from anomalib_defect_plugins.demo.components.served_files import serve_file
from anomalib_defect_plugins.demo.resources import asset, render_template
from anomalib_defect_plugins.demo.services.defect_collection import (
    SYNTHETIC_FOLDER,
    CollectedDefect,
    DefectCollection,
    next_name,
    zip_folder,
)
from anomalib_defect_plugins.demo.services.defect_sources import DefectSources
from anomalib_defect_plugins.demo.services.example_images import brick
from anomalib_defect_plugins.demo.services.predictions import OUTLINE_COLOUR, jpeg_uri, shrink
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.services.uploads import encode_png, read_painted_region, read_upload
from anomalib_defect_plugins.demo.user_errors import show_user_errors

MAX_SIDE = 768
"""Longer side of the normal image in pixels; larger images are resized."""

THUMBNAIL_SIDE = 240
"""Longer side of the thumbnails of generated images, in pixels."""

DEFAULT_SOURCE = "procedural"
"""Initial source of defects. It always works; a trained source may have been trained too briefly."""

PLACEHOLDER = "<p>The normal image appears here. Paint on it where the defects should be.</p>"

NormalImage = tuple[str, npt.NDArray[np.uint8]]
"""Name and pixels, shape (H, W, 3)."""


def add_tab(store: ResultsStore, tab: gr.Tab, user: gr.BrowserState) -> None:
    """Add the contents of the tab.

    Args:
        store: Store of the results; it provides trained sources, and defects are saved below its folder.
        tab: The tab.
        user: Token of the user; unused.
    """
    del user
    SynthesizeTab(store, tab)


class SynthesizeTab:
    """Contents of the tab.

    Args:
        store: Store of the results.
        tab: The tab; selecting it updates the list of sources.
    """

    def __init__(self, store: ResultsStore, tab: gr.Tab) -> None:
        self.store = store
        self.sources = DefectSources(store)
        self.normal_image = gr.State(None, time_to_live=STATE_TTL_S)
        self.collection = gr.State(None, time_to_live=STATE_TTL_S)
        with gr.Row():
            self.source = gr.Dropdown(
                self._choices(), value=DEFAULT_SOURCE, label="Defect source", scale=2, min_width=320
            )
            categories = list(self.sources.get(DEFAULT_SOURCE).categories)
            self.category = gr.Dropdown(categories, value=categories[0], label="Defect category", min_width=240)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                photo = gr.File(file_types=["image"], label="Normal image", height=150)
                example = gr.Button("Use an example", size="sm")
                count = gr.Slider(1, 16, 4, step=1, precision=0, label="Number of images")
                seed = gr.Number(0, precision=0, minimum=0, maximum=2**31, label="Seed")
                generate = gr.Button("Generate defects", variant="primary")
            with gr.Column(scale=8, min_width=300):
                self._add_canvas()
                self._add_gallery()
        self._connect(tab, photo, example)
        generate.click(
            self.generate,
            [self.normal_image, self.canvas, self.source, self.category, count, seed, self.collection],
            self.outputs,
            api_visibility="private",
            show_progress_on=self.gallery,
            concurrency_id="models",
            concurrency_limit=2,
        )

    def _add_canvas(self) -> None:
        style = asset("placeholder.css")
        self.placeholder = gr.HTML(PLACEHOLDER, css_template=style, js_on_load=None, apply_default_css=False)
        with gr.Column(visible=False) as self.canvas_column:
            self.canvas = mask_painter("mask-painter")

    def _add_gallery(self) -> None:
        self.gallery = gr.HTML(
            _render_gallery(None),
            css_template=asset("synthetic_images.css"),
            js_on_load=None,
            apply_default_css=False,
            elem_id="synthetic-images",
        )
        with gr.Row(elem_classes="buttons", visible=False) as self.save_row:
            self.name = gr.Textbox("painted", label="Folder name", max_length=60, scale=3, min_width=160)
            save = gr.Button("Save folder", min_width=140)
            clear = gr.Button("Start over", min_width=120)
        self.saved = gr.HTML(apply_default_css=False, js_on_load=None, elem_id="saved-folder")
        self.zip = gr.DownloadButton("Download as ZIP", visible=False)
        self.outputs = [self.collection, self.gallery, self.save_row, self.saved, self.zip]
        save.click(self.save, [self.collection, self.name], [self.saved, self.zip, self.name], api_visibility="private")
        clear.click(self.clear, None, self.outputs, **UNQUEUED)

    def _connect(self, tab: gr.Tab, photo: gr.File, example: gr.Button) -> None:
        gr.on([tab.select, self.source.focus], self.refresh_sources, None, self.source, **UNQUEUED)
        self.source.input(self.select_source, self.source, self.category, **QUEUED)
        shown = [self.normal_image, self.placeholder, self.canvas_column, self.canvas]
        photo.change(self.load_photo, [photo, self.normal_image], shown, **QUEUED)
        example.click(self.load_example, self.source, photo, **QUEUED)

    def _choices(self) -> list[tuple[str, str]]:
        return [(title, name) for name, title in self.sources.titles().items()]

    def refresh_sources(self) -> Any:
        """Update the list of sources; the current selection is kept."""
        return gr.update(choices=self._choices())

    @show_user_errors
    def select_source(self, source: str) -> Any:
        """Update the list of categories for a source."""
        categories = self.sources.get(source).categories
        return gr.update(choices=list(categories), value=categories[0])

    @show_user_errors
    def load_photo(self, path: str | None, previous: NormalImage | None) -> Updates:
        """Show a normal image on the canvas."""
        if path is None:
            return {self.normal_image: previous}
        photo = read_upload(path)
        image = shrink(photo.pixels, MAX_SIDE)
        return {
            self.normal_image: (photo.name, np.asarray(image)),
            self.placeholder: gr.update(visible=False),
            self.canvas_column: gr.update(visible=True),
            self.canvas: gr.HTML(photo=jpeg_uri(image), width=image.width, height=image.height),
        }

    @show_user_errors
    def load_example(self, source: str | None) -> str:
        """Return a normal test image of the run that trained the source, else of any run, else a photo of bricks."""
        runs = [run for run in self.store.runs() if run.key == source] or self.store.runs()
        for run in runs:
            try:
                images = self.store.images(run.key)
                normal = np.flatnonzero(~images.label)
                pixels = self.store.picture(run.key, int(normal[secrets.randbelow(len(normal))]), "image")
            except (UserError, ValueError):
                continue
            return serve_file("normal.png", encode_png(pixels))
        return serve_file("brick.png", encode_png(brick()))

    @show_user_errors
    def generate(
        self,
        normal_image: NormalImage | None,
        painted: str,
        source_name: str,
        category: str,
        count: int,
        seed: int,
        collection: DefectCollection | None,
    ) -> Updates:
        """Draw defects and add them to the collection."""
        if normal_image is None:
            msg = "there is no normal image yet; upload one, or use an example"
            raise InvalidInputError(msg)
        collection = collection or DefectCollection()
        collection.check_room(count)
        name, pixels = normal_image
        region = read_painted_region(painted, pixels.shape[:2])
        source = self.sources.get(source_name)
        for number in range(len(collection.defects), len(collection.defects) + count):
            defect = source.draw(pixels, region, category, (seed, number))
            collection.add(name, pixels, defect, category, source.title, seed)
        return self._show(collection)

    def _show(self, collection: DefectCollection | None) -> Updates:
        return {
            self.collection: collection,
            self.gallery: _render_gallery(collection),
            self.save_row: gr.update(visible=collection is not None),
            self.saved: "",
            self.zip: gr.update(visible=False, value=None),
        }

    @show_user_errors
    def save(self, collection: DefectCollection | None, name: str) -> Updates:
        """Save the collection to a folder and offer it as a ZIP file."""
        collection = collection or DefectCollection()
        folder = collection.save(self.store.root, name)
        relative = f"{self.store.root.name}/{SYNTHETIC_FOLDER}/{folder.name}"
        text = render_template("saved_folder.html", folder=relative, count=len(collection.defects))
        archive = zip_folder(folder, secrets.token_hex(16))
        free = next_name(folder.parent, folder.name)
        return {self.saved: text, self.zip: gr.update(visible=True, value=archive), self.name: free}

    def clear(self) -> Updates:
        """Clear the collection; saved folders are kept."""
        return self._show(None)


def _render_gallery(collection: DefectCollection | None) -> str:
    defects = collection.defects if collection else []
    return render_template("synthetic_images.html", defects=[(defect, _thumbnail_uri(defect)) for defect in defects])


def _thumbnail_uri(defect: CollectedDefect) -> str:
    """Draw a thumbnail with the outline of its mask, as a data URI."""
    image, mask = (Image.open(io.BytesIO(file)) for file in (defect.image, defect.mask))
    scale = THUMBNAIL_SIDE / max(image.size)
    size = round(scale * image.width), round(scale * image.height)
    pixels = np.array(image.resize(size, Image.Resampling.LANCZOS))
    # Each pixel of the thumbnail that the defect touches, so that a thin one is not lost.
    resized_mask = np.asarray(mask.resize(size, Image.Resampling.BOX)) > 0
    pixels[ring(resized_mask)] = OUTLINE_COLOUR
    return jpeg_uri(Image.fromarray(pixels))
