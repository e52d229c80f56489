"""Theme, page and request guard of the demo."""

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

from anomalib_defect_plugins.demo import app, theme
from anomalib_defect_plugins.demo.server.request_guard import MAX_REQUEST_BYTES, MAX_UPLOAD_BYTES, check_request


def test_theme_and_styles_load_nothing_from_other_hosts() -> None:
    demo_theme = theme.make_theme()
    assert demo_theme._stylesheets == []
    for css in (demo_theme._get_theme_css(), theme.HEAD):  # type: ignore[no-untyped-call]
        assert re.search(r"@import|url\((?!['\"]?data:)|https?:(?!//www.w3.org/)|<script", css) is None


@pytest.mark.parametrize("name", ["body_text_color", "body_text_color_subdued", "block_label_text_color"])
@pytest.mark.parametrize("dark", ["", "_dark"])
def test_text_contrast_of_the_theme_is_sufficient(name: str, dark: str) -> None:
    demo_theme = theme.make_theme()
    colours = [demo_theme._get_computed_value(f"{variable}{dark}") for variable in (name, "body_background_fill")]
    text, page = (_luminance({"white": "#ffffff"}.get(colour, colour)) for colour in colours)
    # WCAG 2.1, level AA, requires 4.5.
    assert (max(text, page) + 0.05) / (min(text, page) + 0.05) >= 4.5


def _luminance(colour: str) -> float:
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    linear = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_page_has_a_tab_for_each_task_in_order(tmp_path: Path) -> None:
    page = app.build(tmp_path / "results")
    components: list[dict[str, Any]] = page.get_config_file()["components"]
    tabs = [component["props"]["label"] for component in components if component["type"] == "tabitem"]
    assert tabs[: len(app.TABS)] == list(app.TABS)
    assert not page.analytics_enabled


def test_listeners_of_the_results_tab_are_not_public_endpoints(tmp_path: Path) -> None:
    listeners = [listener for listener in app.build(tmp_path / "results").fns.values() if listener.fn is not None]
    of_tab = [listener for listener in listeners if listener.fn.__module__.endswith("tabs.results")]
    assert len(of_tab) > 5
    assert {listener.api_visibility for listener in of_tab} == {"private"}


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/proxy=http://x.hf.space/", "/gradio_api/file=http://x/", "/gradio_api/file=file:///etc/passwd",
     "/gradio_api/vibe-code/", "/monitoring", "/gradio_api/runs", "/gradio_api/deep_link", "/gradio_api/mcp/sse",
     "/gradio_api/process_recording", "/gradio_api/openapi.json", "/gradio_api/component_server", "//gradio_api//runs"],
)  # fmt: skip
def test_unused_endpoints_are_refused(path: str) -> None:
    assert status_of(path) == 403


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/gradio_api/info", "/gradio_api/queue/join", "/gradio_api/run/predict", "/assets/index.js",
     "/gradio_api/upload", "/gradio_api/file=/tmp/x/a.png", "/gradio_api/file=C:/x/a.png", "/theme.css",
     "/static/fonts/x.woff2"],
)  # fmt: skip
def test_used_endpoints_are_allowed(path: str) -> None:
    assert status_of(path) is None


def status_of(path: str, length: object = None) -> int | None:
    """Return the status of the refusal of a request, or ``None``; with a length, the request is a POST."""
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    refusal = check_request({"path": path, "method": "POST" if headers else "GET", "headers": headers})
    return refusal and refusal[0]


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [("/gradio_api/run/predict", MAX_REQUEST_BYTES, None), ("/gradio_api/run/predict", MAX_REQUEST_BYTES + 1, 413),
     ("/gradio_api/run/upload", MAX_REQUEST_BYTES + 1, 413), ("/gradio_api/upload", MAX_UPLOAD_BYTES, None),
     ("/gradio_api/upload", MAX_UPLOAD_BYTES + 1, 413), ("/gradio_api/upload", "", 411),
     ("/gradio_api/queue/join", "-1", 411)],
)  # fmt: skip
def test_length_of_requests_is_required_and_limited(path: str, length: object, status: int | None) -> None:
    assert status_of(path, length) == status
