"""The demo as a user meets it: a server in a process of its own, and a browser."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PATIENCE = 300
"""Seconds that anything may take: on a machine that is busy, importing torch alone takes long."""

PAGE_PATIENCE = 120
"""Seconds that the page may take to show something."""

OFFLINE = ROOT / "tests/helpers/offline"
"""In ``PYTHONPATH``, it keeps Python from reaching other machines."""

REACHES = "reaches for "
"""What begins a line that tells of a try."""

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

CLOSED = "Method not implemented."
"""What Gradio says to itself when it closes a stream of events before it is open."""

LOOKS = [(390, "light"), (390, "dark"), (1440, "light"), (1440, "dark")]
"""Widths of a telephone and a desk, and colour schemes."""


@contextlib.contextmanager
def serving(results: Path) -> Iterator[str]:
    """Start the demo without a network, and give its address; it is stopped when the block ends.

    Args:
        results: What it shows.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(ROOT / "demo/app.py"), "--results", str(results), "--port", _free_port()],
        env=offline() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    started = threading.Event()
    reader = threading.Thread(target=_read, args=(process, said, started), daemon=True)
    reader.start()
    try:
        if not started.wait(PATIENCE) or process.poll() is not None:
            pytest.fail("the demo does not start: " + "".join(said[-20:]))
        yield next(line.split()[1] for line in said if line.startswith("demo: "))
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
    reader.join()
    reached = [line for line in said if line.startswith(REACHES)]
    assert not reached, reached


def offline() -> dict[str, str]:
    """Give the variables of a Python process that reaches no other machine, and finds this project."""
    folders = [str(ROOT), str(OFFLINE), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders)}


def _read(process: "subprocess.Popen[str]", said: list[str], started: threading.Event) -> None:
    """Read what the server says, so that it need not wait; it has started when it says where it is."""
    for line in process.stdout:
        if not started.is_set() or line.startswith(REACHES):
            said.append(line)
        if line.startswith("demo: "):
            started.set()
    started.set()


def slowness() -> float:
    """Say how many times as long as on an idle machine computing takes at the moment."""
    began, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < 0.05:
        pass
    return (time.perf_counter() - began) / (time.process_time() - used)


def best(measure: Callable[[], float], limit: float) -> float:
    """Measure seconds until they are within a limit, eight times at most; gives the least, as if the machine was idle.

    Args:
        measure: Does it once.
        limit: The limit in seconds.
    """
    least = float("inf")
    for _ in range(8):
        slow = slowness()
        least = min(least, measure() / max(1.0, slow, slowness()))
        if least < limit:
            break
    return least


def _free_port() -> str:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return str(it.getsockname()[1])


@contextlib.contextmanager
def browsing() -> Iterator[Any]:
    """Give a browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Any, url: str, width: int = 1440, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """Open the demo.

    Args:
        browser: The browser.
        url: The address.
        width: Width of the window in CSS pixels.
        scheme: ``light`` or ``dark``.

    Yields:
        The page; and what must stay empty: requests to other hosts, messages on the console, and errors.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", accept_downloads=True
    )
    context.set_default_timeout(1000 * PAGE_PATIENCE)
    page = context.new_page()
    said: list[str] = []
    own = (url, "data:", "blob:")
    page.on("request", lambda it: None if it.url.startswith(own) else said.append(f"request to {it.url[:80]}"))
    page.on("console", lambda it: None if it.text == CLOSED else said.append(f"{it.type}: {it.text}"))
    page.on("pageerror", lambda it: said.append(f"error: {it}"))
    page.goto(url)
    yield page, said
    context.close()


def open_tab(page: Any, title: str) -> None:
    """Go to a tab of the demo, which is behind a button on a narrow page."""
    page.get_by_role("tab").first.wait_for()
    tab = page.get_by_role("tab", name=title, exact=True)
    if not tab.count():
        page.get_by_role("button", name="More tabs").click()
        tab = page.locator(".overflow-dropdown").get_by_role("button", name=title, exact=True)
    tab.click()


def wait_for_file(page: Any, stem: str) -> None:
    """Wait until a file is in a field, which shows its name in two parts."""
    page.get_by_text(stem, exact=True).locator("visible=true").first.wait_for()


def paint(page: Any) -> None:
    """Paint a stroke across the middle of the image to make defects on."""
    canvas = page.locator("#painted canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y - 20)
    page.mouse.down()
    page.mouse.move(x + 40, y + 20, steps=10)
    page.mouse.up()
