"""A brush on an image: the value is a PNG as a data URI, transparent where nothing is painted."""

import gradio as gr

from anomalib_defect_plugins.demo.resources import asset
from anomalib_defect_plugins.demo.services.predictions import EMPTY_URI


def mask_painter(element_id: str) -> gr.HTML:
    """Create the component.

    Its properties are the ``photo`` and an earlier painting to ``start`` from, as data URIs, and ``width`` and
    ``height`` in pixels.

    Args:
        element_id: ID of the element.
    """
    return gr.HTML(
        "",
        html_template=asset("mask_painter.html"),
        css_template=asset("mask_painter.css"),
        js_on_load=asset("mask_painter.js"),
        apply_default_css=False,
        elem_id=element_id,
        photo=EMPTY_URI,
        start="",
        width=1,
        height=1,
    )
