"""The One photo tab in a real browser: progress, stopping, two users at a time, and a closed tab."""

import gc
import re
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo_server import VIEWPORTS, open_page, open_tab, wait_for_file

pytestmark = pytest.mark.slow


def start_training(page: Any, preset: str = "Quick") -> None:
    """Train on the example photo."""
    open_tab(page, "One photo")
    page.get_by_role("button", name="Use the example photo").click()
    wait_for_file(page, "brick")
    page.get_by_label(re.compile(preset)).check()
    page.get_by_role("button", name="Train", exact=True).click()


def wait_for_status(page: Any, title: str) -> str:
    """Wait for a state of the training and return the status line."""
    status = page.locator("#training .training-status")
    status.locator("b", has_text=title).wait_for()
    return str(status.inner_text())


def percent(page: Any) -> int:
    return int(page.locator("#training [role=progressbar]").get_attribute("aria-valuenow"))


def displayed_score(page: Any) -> float:
    match = re.search(r"score ([\d.]+)", page.locator("#photo-prediction").inner_text())
    assert match is not None
    return float(match[1])


def test_model_trained_on_one_photo_finds_defects_on_others(browser: Any, demo: Any) -> None:
    with open_page(browser, demo.url) as (page, problems):
        start_training(page)
        # Both at once: a moment later, the training may have ended.
        page.wait_for_function(
            """() => {
                const value = document.querySelector("#training [role=progressbar]")?.ariaValueNow
                return document.querySelector("#training li.done") && 0 < value && value < 100
            }"""
        )
        assert page.locator("#training li").count() == 4
        assert "4 of 4 scales" in wait_for_status(page, "Trained")
        assert percent(page) == 100
        assert page.locator("#training li.done img").count() == 4
        page.get_by_role("button", name="Use example photos with defects").click()
        page.locator("#photo-prediction .prediction").wait_for()
        grid = page.locator("#photo-grid")
        grid.get_by_role("button", name="brick_hole.png").click()
        page.locator("#photo-prediction", has_text="brick_hole.png").wait_for()
        score = displayed_score(page)
        grid.get_by_role("button", name="brick_normal.png").click()
        page.locator("#photo-prediction", has_text="brick_normal.png").wait_for()
        assert "Normal" in page.locator("#photo-prediction").inner_text()
        assert score > displayed_score(page)
        assert problems == []


def test_training_is_found_again_after_a_reload_and_can_be_stopped(browser: Any, demo: Any) -> None:
    with open_page(browser, demo.url) as (page, problems):
        start_training(page, "Standard")
        wait_for_status(page, "Training")
        page.reload()
        open_tab(page, "One photo")
        wait_for_status(page, "Training")
        page.get_by_role("button", name="Stop", exact=True).locator("visible=true").click()
        wait_for_status(page, "Stopped")
        page.get_by_role("button", name="Train", exact=True).wait_for()
        assert not page.get_by_text("Photos to inspect").is_visible()
        assert problems == []


def test_second_user_waits_until_the_first_training_ends(browser: Any, demo: Any) -> None:
    with open_page(browser, demo.url) as (first, _), open_page(browser, demo.url) as (second, _):
        start_training(first, "Standard")
        wait_for_status(first, "Training")
        start_training(second, "Standard")
        assert "1 training ahead in the queue" in wait_for_status(second, "Waiting")
        assert percent(second) == 0
        first.get_by_role("button", name="Stop", exact=True).locator("visible=true").click()
        wait_for_status(first, "Stopped")
        wait_for_status(second, "Training")
        assert first.locator("#training .training-status b").inner_text() == "Stopped"


def test_missing_photo_is_reported(browser: Any, demo: Any) -> None:
    with open_page(browser, demo.url) as (page, problems):
        open_tab(page, "One photo")
        page.get_by_role("button", name="Train", exact=True).click()
        page.locator(".toast-body", has_text="there is no photo yet").wait_for()
        assert problems == []


@pytest.mark.parametrize(("width", "scheme"), VIEWPORTS)
def test_tab_fits_the_window(browser: Any, demo: Any, width: int, scheme: str) -> None:
    with open_page(browser, demo.url, width, scheme) as (page, problems):
        open_tab(page, "One photo")
        page.get_by_role("button", name="Train", exact=True).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert problems == []


def wait_until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.05)


def test_closing_the_tab_stops_its_training_and_frees_its_memory(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    from anomalib_defect_plugins.demo.app import build
    from anomalib_defect_plugins.demo.services import one_photo_training

    monkeypatch.setattr(one_photo_training, "GRACE_S", 0.5)

    page = build(tmp_path)
    _, address, _ = page.queue().launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, server_port=None)
    try:
        with open_page(browser, address) as (shown, _):
            start_training(shown, "Standard")
            wait_for_status(shown, "Training")
            training = weakref.ref(trainings(page)[0])
            assert trainings(page)[0].progress().state == "running"
        wait_until(lambda: not page.state_holder.session_data)
        wait_until(lambda: gc.collect() >= 0 and training() is None)
        assert "one-photo" not in {thread.name for thread in threading.enumerate()}
    finally:
        page.close()


def trainings(page: Any) -> list[Any]:
    """Return the trainings in the session state of a server's users."""
    sessions = page.state_holder.session_data.values()
    states = [state for session in sessions for state in session.state_data.values()]
    return [state for state in states if type(state).__name__ == "Training"]
