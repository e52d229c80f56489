"""The Train tab in a real browser: painted defects, a training that a reload finds again, and its model on Inspect."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_server import VIEWPORTS, open_page, open_tab
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, list[Path]]:
    """Six good parts, and three with a white square that no mask marks."""
    rng = np.random.default_rng(0)
    files: dict[str, list[Path]] = {"good": [], "bad": []}
    for number in range(9):
        kind = "good" if number < 6 else "bad"
        pixels = rng.integers(90, 130, (64, 64, 3), np.uint8)
        if kind == "bad":
            pixels[24:40, 24:40] = 255
        files[kind].append(tmp_path / f"{kind}{number}.png")
        Image.fromarray(pixels).save(files[kind][-1])
    return files


def add(page: Any, label: str, files: list[Path]) -> None:
    page.locator(".tabitem:visible .block", has_text=label).locator("input[type=file]").first.set_input_files(files)
    page.get_by_text(files[-1].stem, exact=True).locator("visible=true").first.wait_for()


def paint_square(page: Any) -> None:
    canvas = page.locator("#defect-painter canvas")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 5, y)
    page.mouse.down()
    page.mouse.move(x + 5, y, steps=4)
    page.mouse.up()


def test_a_model_of_painted_defects_is_found_again_after_a_reload(
    browser: Any, demo: Any, parts: dict[str, list[Path]]
) -> None:
    with open_page(browser, demo.url) as (page, problems):
        open_tab(page, "Train")
        add(page, "Good parts", parts["good"])
        add(page, "Defective parts (optional)", parts["bad"])
        for path in parts["bad"]:
            page.get_by_label("Mark the defects of").click()
            page.get_by_role("option", name=path.name).click()
            page.wait_for_timeout(500)
            paint_square(page)
            page.wait_for_timeout(500)
        page.get_by_label("About a minute").check()
        page.get_by_label("Name of the model").locator("visible=true").fill("squares")
        page.get_by_role("button", name="Train on my parts").click()
        page.locator("#parts-training b", has_text="Training").wait_for()
        page.reload()
        open_tab(page, "Train")
        page.locator("#parts-training", has_text="squares").wait_for()
        page.locator("#parts-training b", has_text="Trained").wait_for(timeout=300_000)
        folder = demo.results / ".parts/squares"
        assert len(list((folder / "masks/defect").iterdir())) == 3
        open_tab(page, "Inspect")
        page.get_by_label("Trained model").click()
        page.get_by_role("option", name="squares").click()
        assert problems == []


def test_a_stranger_does_not_see_the_training_of_another_user(browser: Any, demo: Any) -> None:
    with open_page(browser, demo.url) as (page, _):
        open_tab(page, "Train")
        page.get_by_text("Add photos of good parts").wait_for()


def test_missing_photos_are_reported(browser: Any, demo: Any) -> None:
    with open_page(browser, demo.url) as (page, problems):
        open_tab(page, "Train")
        page.get_by_role("button", name="Train on my parts").click()
        page.locator(".toast-body", has_text="there are no good parts yet").wait_for()
        assert problems == []


@pytest.mark.parametrize(("width", "scheme"), VIEWPORTS)
def test_tab_fits_the_window(browser: Any, demo: Any, width: int, scheme: str) -> None:
    with open_page(browser, demo.url, width, scheme) as (page, problems):
        open_tab(page, "Train")
        page.get_by_role("button", name="Train on my parts").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.get_by_role("tab").count() == 5
        assert problems == []
