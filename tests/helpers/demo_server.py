"""The demo as a user meets it: a server in its own process, and a browser."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

START_TIMEOUT_S = 300
"""Timeout for start and stop of the server: on a busy machine, importing torch alone takes long."""

PAGE_TIMEOUT_S = 120
"""Timeout for the page to show something."""

OFFLINE = ROOT / "tests/helpers/offline"
"""Folder which, in ``PYTHONPATH``, keeps Python from reaching other machines."""

NETWORK_ACCESS = "network access: "
"""Prefix of the lines that report attempts to reach other machines."""

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

CLOSED_STREAM = "Method not implemented."
"""Console message of Gradio when it closes a stream of events that is not open yet."""

VIEWPORTS = [(390, "light"), (1440, "dark")]
"""Widths of a phone and a desktop in CSS pixels, and colour schemes."""


@contextlib.contextmanager
def serve_demo(results: Path) -> Iterator[str]:
    """Start the demo without network access and stop it at the end of the block.

    Args:
        results: Results folder.

    Yields:
        URL of the demo.
    """
    program = str(ROOT / "tests/helpers/quick_demo.py")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", program, "--results", str(results), "--port", _free_port()],
        env=offline_environment() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output: list[str] = []
    started = threading.Event()
    reader = threading.Thread(target=_read_output, args=(process, output, started), daemon=True)
    reader.start()
    try:
        if not started.wait(START_TIMEOUT_S) or process.poll() is not None:
            pytest.fail("the demo does not start: " + "".join(output[-20:]))
        yield next(line.split()[1] for line in output if line.startswith("demo: "))
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
    reader.join()
    attempts = [line for line in output if line.startswith(NETWORK_ACCESS)]
    assert not attempts, attempts


def offline_environment() -> dict[str, str]:
    """Return environment variables of a Python process without network access that can import this project."""
    folders = [str(ROOT), str(OFFLINE), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)}


def _read_output(process: "subprocess.Popen[str]", output: list[str], started: threading.Event) -> None:
    """Print the server's output, which pytest shows if a test fails; the server has started when it prints its URL."""
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="")
        if not started.is_set() or line.startswith(NETWORK_ACCESS):
            output.append(line)
        if line.startswith("demo: "):
            started.set()
    started.set()


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@contextlib.contextmanager
def launch_browser() -> Iterator[Any]:
    """Start a browser; skip the test if none is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def open_page(browser: Any, url: str, width: int = 1440, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """Open the demo in a new browser context.

    Args:
        browser: The browser.
        url: URL of the demo.
        width: Width of the window in CSS pixels.
        scheme: ``light`` or ``dark``.

    Yields:
        The page, and a list of problems that must stay empty: requests to other hosts, console messages and errors.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", accept_downloads=True
    )
    context.set_default_timeout(1000 * PAGE_TIMEOUT_S)
    page = context.new_page()
    problems: list[str] = []
    local = (url, "data:", "blob:")

    def check_request(request: Any) -> None:
        if not request.url.startswith(local):
            problems.append(f"request to {request.url[:80]}")

    def check_console(message: Any) -> None:
        if message.text != CLOSED_STREAM:
            problems.append(f"{message.type}: {message.text} {message.location['url']}")

    page.on("request", check_request)
    page.on("console", check_console)
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.goto(url)
    yield page, problems
    context.close()


def open_tab(page: Any, title: str) -> None:
    """Select a tab of the demo, which is in an overflow menu on a narrow page."""
    page.get_by_role("tab").first.wait_for()
    tab = page.get_by_role("tab", name=title, exact=True)
    if not tab.count():
        page.get_by_role("button", name="More tabs").click()
        tab = page.locator(".overflow-dropdown").get_by_role("button", name=title, exact=True)
    tab.click()


def wait_for_file(page: Any, stem: str) -> None:
    """Wait until a file field shows a file; it shows stem and suffix of the name separately."""
    page.get_by_text(stem, exact=True).locator("visible=true").first.wait_for()


def paint_stroke(page: Any) -> None:
    """Paint a stroke across the middle of the image on the Synthesise tab."""
    canvas = page.locator("#mask-painter canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y - 20)
    page.mouse.down()
    page.mouse.move(x + 40, y + 20, steps=10)
    page.mouse.up()
