"""Theme of the demo: system fonts, light and dark colour schemes, nothing loaded from another host."""

import gradio as gr

from anomalib_defect_plugins.demo.resources import asset
from anomalib_defect_plugins.report.assets import STYLE as REPORT_STYLE

BLUE = gr.themes.Color(
    *("#eef5fc", "#d9e9f8", "#b5d3f1", "#86b7e6", "#5499d8", "#2b7cc4"),
    *("#0b62ad", "#0b528f", "#0d4676", "#0f3b62", "#0a2742"),
    name="steel",
)

SLATE = gr.themes.Color(
    *("#f7f8f9", "#eff1f3", "#dfe3e8", "#c6ccd3", "#9aa3ad", "#727c87"),
    *("#5c6670", "#3a4048", "#262b31", "#1d2125", "#14171a"),
    name="slate",
)

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

MIN_DESKTOP_WIDTH = 720
"""Page width in CSS pixels from which the desktop layout is used."""

HEAD = f'<link rel="icon" href="data:,"><style>.report {{ {REPORT_STYLE} }}\n{asset("style.css")}</style>'
"""An empty icon, so that browsers do not request one; the report's style, nested in ``.report``; the demo's style."""


def make_theme() -> gr.themes.Base:
    """Build the theme."""
    theme = gr.themes.Base(
        primary_hue=BLUE,
        secondary_hue=BLUE,
        neutral_hue=SLATE,
        radius_size=gr.themes.sizes.radius_md,
        font=SANS,
        font_mono=MONO,
    )
    return theme.set(
        body_background_fill="white",
        body_background_fill_dark="*neutral_950",
        body_text_color="#1c2024",
        body_text_color_dark="#e6e8eb",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_950",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_900",
        block_background_fill="*background_fill_primary",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        block_shadow="none",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_title_text_weight="500",
        input_background_fill="white",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_background_fill_dark="*neutral_900",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        color_accent="*primary_600",
        link_text_color="#0b5cad",
        link_text_color_dark="#7db8f0",
    )
