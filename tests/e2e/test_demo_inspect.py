"""The tab where images are inspected, in a real browser: from the drop of a file to the files that come back."""

import csv
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_results import write_demo
from demo_server import LOOKS, best, open_tab, opened, serving
from PIL import Image
from results_folder import Layout

pytestmark = pytest.mark.slow

MEASURE = """(value) => new Promise((done) => {
    const mask = document.querySelector("#inspect-picture img.mask"), start = performance.now();
    const observer = new MutationObserver(() => { observer.disconnect(); done(performance.now() - start); });
    observer.observe(mask, { attributes: true, attributeFilter: ["src"] });
    const slider = [...document.querySelectorAll("input[type=range]")].find((it) => it.offsetParent);
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
})"""
"""Moves the first slider in sight, and gives the milliseconds until another mask is shown."""

ASKED = "**/gradio_api/run/predict"
"""Where the page asks the server what there is."""

UNNAMED = """() => [...document.querySelectorAll("input, select, textarea, button")]
    .filter((it) => it.offsetParent && !it.disabled)
    .filter((it) => !(it.ariaLabel || it.labels?.length || it.innerText?.trim() || it.title
        || it.getAttribute("aria-labelledby")))
    .map((it) => it.outerHTML.slice(0, 120))"""
"""Controls in sight that no one can tell the purpose of."""


@pytest.fixture
def folder(demo: Any) -> Path:
    """Where the images to hand in are."""
    return demo.folder


@pytest.fixture
def page(browser: Any, demo: Any) -> Iterator[Any]:
    """The tab on a desk; it must have stayed quiet."""
    with opened(browser, demo.url) as (page, said):
        open_tab(page, "Inspect")
        yield page
        assert said == []


def drop(page: Any, *paths: Path) -> None:
    """Hand in images."""
    page.locator("input[type=file]:visible, .tabitem:visible input[type=file]").first.set_input_files(list(paths))
    page.locator("#inspect-verdict .verdict").wait_for()


def rows(page: Any) -> list[list[str]]:
    return [it.inner_text().split("\t") for it in page.locator("#inspect-defects tbody tr").all()]


def move(page: Any, value: float, expected: str) -> None:
    """Move the threshold until the page tells of it."""
    page.evaluate(MEASURE, value)
    page.locator("#inspect-verdict", has_text=expected).wait_for()


def test_an_image_is_dropped_and_the_threshold_moves_mask_verdict_and_list(page: Any, folder: Path):
    drop(page, folder / "plate.png")
    verdict = page.locator("#inspect-verdict").inner_text()
    assert "Defective" in verdict
    assert "score 0.800, above 0.500" in verdict
    assert "OpenVINO FP32" in verdict
    assert "plate.png, 200×100 pixels" in verdict
    assert " ms" in verdict
    assert rows(page) == [
        ["1200", "20", "10", "40", "30", "0.800"],
        ["400", "150", "60", "20", "20", "0.600"],
    ]
    move(page, 0.7, "above 0.700")
    assert rows(page) == [["1200", "20", "10", "40", "30", "0.800"]]
    move(page, 0.9, "Normal")
    assert "No pixel is above the threshold" in page.locator("#inspect-defects").inner_text()


def test_a_moved_threshold_is_drawn_within_200_milliseconds(page: Any, folder: Path):
    drop(page, folder / "plate.png")
    values = itertools.cycle((0.7, 0.5))
    assert best(lambda: page.evaluate(MEASURE, next(values)) / 1000, 0.2) < 0.2


def test_the_map_lies_over_the_image_as_opaque_as_wanted(page: Any, folder: Path):
    drop(page, folder / "plate.png")
    layers = page.locator("#inspect-picture img")
    assert [it.get_attribute("class") for it in layers.all()] == ["photo", "heat", "mask"]
    assert page.evaluate("[...document.querySelectorAll('#inspect-picture img')].every((it) => it.naturalWidth > 0)")
    assert "2 regions above the threshold" in layers.first.get_attribute("alt")
    slider = page.get_by_label("range slider for Opacity of the map").locator("visible=true")
    for value in ("0.25", "0"):
        slider.fill(value)
        page.wait_for_function(
            "(wanted) => getComputedStyle(document.querySelector('#inspect-picture .heat')).opacity === wanted",
            arg=value,
        )


def test_mask_and_table_are_downloaded_as_they_are_shown(page: Any, folder: Path, tmp_path: Path):
    drop(page, folder / "plate.png", folder / "dark.png")
    move(page, 0.7, "above 0.700")
    files = {}
    for button in ("Mask (PNG)", "Table (CSV)"):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).locator("visible=true").click()
        files[download.value.suggested_filename] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[download.value.suggested_filename])
    plate = np.asarray(Image.open(folder / "plate.png"))[..., 0]
    with Image.open(files["plate_mask.png"]) as mask:
        np.testing.assert_array_equal(np.asarray(mask) > 0, plate > 200)
    with files["defects.csv"].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(it["image"], it["verdict"], it["area"]) for it in table] == [
        ("plate.png", "defective", "1200"),
        ("dark.png", "normal", ""),
    ]
    assert {it["threshold"] for it in table} == {"0.7"}


def test_one_image_after_another_is_looked_at(page: Any, folder: Path):
    drop(page, folder / "plate.png", folder / "dark.png")
    chooser = page.get_by_label("Image", exact=True).locator("visible=true")
    assert chooser.input_value() == "1 · plate.png · defective"
    chooser.click()
    page.get_by_role("option", name="2 · dark.png · normal").click()
    page.locator("#inspect-verdict", has_text="dark.png").wait_for()
    assert "Normal" in page.locator("#inspect-verdict").inner_text()


def test_what_cannot_be_read_gets_a_line_and_the_others_are_shown(page: Any, folder: Path):
    drop(page, folder / "plate.png", folder / "broken.png", folder / "drawing.png")
    said = " ".join(" ".join(page.locator(".toast-body").all_inner_texts()).split())
    assert "broken.png cannot be decoded" in said
    assert "drawing.png is no PNG image, or is damaged" in said
    assert "plate.png" in page.locator("#inspect-verdict").inner_text()


def test_a_model_that_cannot_be_loaded_gets_a_line(page: Any, folder: Path):
    drop(page, folder / "plate.png")
    page.get_by_label("Trained model").click()
    page.get_by_role("option", name="Broken").click()
    page.locator(".toast-body", has_text="cannot be loaded; make the run again").wait_for()


def test_test_images_of_the_model_are_there_for_who_has_none(page: Any):
    page.get_by_role("button", name="Take some of its test images").click()
    page.locator("#inspect-verdict .verdict").wait_for()
    assert (
        page.get_by_label("Image", exact=True).locator("visible=true").input_value().startswith("1 · defective_00001")
    )


def test_nothing_can_be_handed_in_before_the_models_are_known(page: Any):
    late: list[Any] = []
    known = threading.Event()
    page.route(ASKED, lambda route: route.continue_() if known.is_set() else late.append(route))
    page.reload()
    with page.expect_request(ASKED):
        open_tab(page, "Inspect")
    taking = page.get_by_role("button", name="Take some of its test images")
    page.wait_for_timeout(1000)
    assert late
    assert not taking.is_visible()
    known.set()
    for route in late:
        route.continue_()
    taking.click()
    page.locator("#inspect-verdict .verdict").wait_for()


def test_models_that_have_come_since_are_there_when_the_tab_is_chosen_again(browser: Any, tmp_path: Path):
    with serving(tmp_path / "results") as url, opened(browser, url) as (page, said):
        open_tab(page, "Inspect")
        page.get_by_text("There is no trained model in the results yet").wait_for()
        open_tab(page, "Results")
        write_demo(tmp_path, Layout(images=2))
        open_tab(page, "Inspect")
        page.get_by_role("button", name="Take some of its test images").wait_for()
        assert not page.get_by_text("There is no trained model in the results yet").is_visible()
        page.get_by_label("Trained model").click()
        page.get_by_role("option", name="Broken").click()
        open_tab(page, "Results")
        open_tab(page, "Inspect")
        page.wait_for_timeout(1000)
        assert "Broken" in page.get_by_label("Trained model").input_value()
        assert said == []


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_tab_fits_and_every_control_has_a_name(browser: Any, demo: Any, width: int, scheme: str):
    with opened(browser, demo.url, width, scheme) as (page, said):
        open_tab(page, "Inspect")
        drop(page, demo.folder / "plate.png", demo.folder / "dark.png")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate(UNNAMED) == []
        assert said == []
