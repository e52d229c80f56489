"""The tab that trains on one photo, in a real browser: watched, stopped, by two at a time, and by one who leaves."""

import gc
import re
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo_server import LOOKS, open_tab, opened, wait_for_file

pytestmark = pytest.mark.slow


def begin(page: Any, recipe: str = "Quick") -> None:
    """Train on the example."""
    open_tab(page, "One photo")
    page.get_by_role("button", name="Take an example: bricks").click()
    wait_for_file(page, "brick")
    page.get_by_label(re.compile(recipe)).check()
    page.get_by_role("button", name="Train", exact=True).click()


def wait_for(page: Any, title: str) -> str:
    """Wait until the training is so far; gives what is said of it."""
    page.locator("#training .said b", has_text=title).wait_for()
    return page.locator("#training .said").inner_text()


def share(page: Any) -> int:
    return int(page.locator("#training [role=progressbar]").get_attribute("aria-valuenow"))


def test_a_model_learns_from_one_photo_and_finds_defects_on_others(browser: Any, demo: Any):
    with opened(browser, demo.url) as (page, said):
        begin(page)
        wait_for(page, "Training")
        page.locator("#training li.done").first.wait_for()
        assert 0 < share(page) < 100
        assert page.locator("#training li").count() == 4
        assert "4 of 4 scales" in wait_for(page, "Trained")
        assert share(page) == 100
        assert page.locator("#training li.done img").count() == 4
        page.get_by_role("button", name="Take examples with drawn defects").click()
        page.locator("#photo-verdict .verdict").wait_for()
        chooser = page.get_by_label("Image", exact=True).locator("visible=true")
        chooser.click()
        page.get_by_role("option", name="brick_hole.png").click()
        page.locator("#photo-verdict", has_text="brick_hole.png").wait_for()
        assert "Defective" in page.locator("#photo-verdict").inner_text()
        score = float(re.search(r"score ([\d.]+)", page.locator("#photo-verdict").inner_text())[1])
        chooser.click()
        page.get_by_role("option", name="brick_normal.png").click()
        page.locator("#photo-verdict", has_text="brick_normal.png").wait_for()
        assert score > float(re.search(r"score ([\d.]+)", page.locator("#photo-verdict").inner_text())[1])
        assert said == []


def test_a_training_is_stopped(browser: Any, demo: Any):
    with opened(browser, demo.url) as (page, said):
        begin(page, "Standard")
        wait_for(page, "Training")
        page.get_by_role("button", name="Stop", exact=True).locator("visible=true").click()
        wait_for(page, "Stopped")
        page.get_by_role("button", name="Train", exact=True).wait_for()
        assert not page.get_by_text("Photos to inspect").is_visible()
        assert said == []


def test_a_second_user_waits_for_the_first_and_comes_next(browser: Any, demo: Any):
    with opened(browser, demo.url) as (first, _), opened(browser, demo.url) as (second, _):
        begin(first, "Standard")
        wait_for(first, "Training")
        begin(second, "Standard")
        assert "1 training of others before this one" in wait_for(second, "Waiting")
        assert share(second) == 0
        first.get_by_role("button", name="Stop", exact=True).locator("visible=true").click()
        wait_for(first, "Stopped")
        wait_for(second, "Training")
        assert first.locator("#training .said b").inner_text() == "Stopped"


def test_without_a_photo_there_is_one_line(browser: Any, demo: Any):
    with opened(browser, demo.url) as (page, said):
        open_tab(page, "One photo")
        page.get_by_role("button", name="Train", exact=True).click()
        page.locator(".toast-body", has_text="there is no photo yet").wait_for()
        assert said == []


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_tab_fits(browser: Any, demo: Any, width: int, scheme: str):
    with opened(browser, demo.url, width, scheme) as (page, said):
        open_tab(page, "One photo")
        page.get_by_role("button", name="Train", exact=True).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert said == []


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def test_a_closed_tab_stops_its_training_and_frees_its_memory(browser: Any, tmp_path: Path):
    pytest.importorskip("gradio", reason="gradio is not installed")
    from anomalib_defect_plugins.demo.app import build

    page = build(tmp_path)
    _, address, _ = page.queue().launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, server_port=None)
    try:
        with opened(browser, address) as (shown, _):
            begin(shown, "Standard")
            wait_for(shown, "Training")
            training = weakref.ref(trainings(page)[0])
            assert training().progress().state == "running"
        until(lambda: not page.state_holder.session_data)
        until(lambda: gc.collect() >= 0 and training() is None)
        assert "one-photo" not in {thread.name for thread in threading.enumerate()}
    finally:
        page.close()


def trainings(page: Any) -> list[Any]:
    """Give the trainings that a server has in memory for its users."""
    states = [it for session in page.state_holder.session_data.values() for it in session.state_data.values()]
    return [it for it in states if type(it).__name__ == "Training"]
