"""The page of the demo as it is sent: nothing in it comes from another host, and it says what it is."""

import re
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

from anomalib_defect_plugins.demo import app, theme
from anomalib_defect_plugins.demo.server.request_guard import LONGEST, refuse
from anomalib_defect_plugins.demo.services.uploads import MOST_BYTES, MOST_FILES


def test_the_theme_and_the_styles_load_nothing() -> None:
    made = theme.make_theme()
    assert made._stylesheets == []
    for css in (made._get_theme_css(), theme.HEAD):
        assert re.search(r"@import|url\((?!['\"]?data:)|https?:(?!//www.w3.org/)|<script", css) is None


@pytest.mark.parametrize("name", ["body_text_color", "body_text_color_subdued", "block_label_text_color"])
@pytest.mark.parametrize("dark", ["", "_dark"])
def test_text_of_the_theme_stands_out_from_its_page(name: str, dark: str) -> None:
    made = theme.make_theme()
    colours = [made._get_computed_value(f"{it}{dark}") for it in (name, "body_background_fill")]
    text, page = (_luminance({"white": "#ffffff"}.get(it, it)) for it in colours)
    # WCAG 2.1: 4.5 is its level AA.
    assert (max(text, page) + 0.05) / (min(text, page) + 0.05) >= 4.5


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [it / 12.92 if it <= 0.04045 else ((it + 0.055) / 1.055) ** 2.4 for it in parts]
    return sum(weight * it for weight, it in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_page_has_a_tab_for_each_task_in_order(tmp_path: Path) -> None:
    page = app.build(tmp_path / "results")
    tabs = [it["props"]["label"] for it in page.get_config_file()["components"] if it["type"] == "tabitem"]
    assert tabs[: len(app.TABS)] == list(app.TABS)
    assert not page.analytics_enabled


def test_listeners_of_the_results_are_no_public_endpoints(tmp_path: Path) -> None:
    listeners = [fn for fn in app.build(tmp_path / "results").fns.values() if fn.fn is not None]
    own = [fn for fn in listeners if fn.fn.__module__.endswith("tabs.results")]
    assert len(own) > 5
    assert {fn.api_visibility for fn in own} == {"private"}


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/proxy=http://x.hf.space/", "/gradio_api/file=http://x/", "/gradio_api/file=file:///etc/passwd",
     "/gradio_api/vibe-code/", "/monitoring", "/gradio_api/runs", "/gradio_api/deep_link", "/gradio_api/mcp/sse",
     "/gradio_api/process_recording", "/gradio_api/openapi.json", "/gradio_api/component_server", "//gradio_api//runs"],
)  # fmt: skip
def test_endpoints_that_the_demo_does_not_use_are_refused(path: str) -> None:
    assert refuse(request(path))[0] == 403


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/gradio_api/info", "/gradio_api/queue/join", "/gradio_api/run/predict", "/assets/index.js",
     "/gradio_api/upload", "/gradio_api/file=/tmp/x/a.png", "/gradio_api/file=C:/x/a.png", "/theme.css",
     "/static/fonts/x.woff2"],
)  # fmt: skip
def test_endpoints_that_it_uses_are_not(path: str) -> None:
    assert refuse(request(path)) is None


def request(path: str, length: object = None) -> dict[str, object]:
    """Describe a request as ASGI does; one of some length hands something in."""
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return {"path": path, "method": "POST" if headers else "GET", "headers": headers}


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [("/gradio_api/run/predict", LONGEST, None), ("/gradio_api/run/predict", LONGEST + 1, 413),
     ("/gradio_api/run/upload", LONGEST + 1, 413), ("/gradio_api/upload", MOST_FILES * MOST_BYTES, None),
     ("/gradio_api/upload", MOST_FILES * MOST_BYTES + 1, 413), ("/gradio_api/upload", "", 411),
     ("/gradio_api/queue/join", "-1", 411)],
)  # fmt: skip
def test_requests_have_a_length_and_it_is_limited(path: str, length: object, status: int | None) -> None:
    assert (refuse(request(path, length)) or (None,))[0] == status
