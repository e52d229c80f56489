"""The Inspect tab in a real browser, from upload to download."""

import csv
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_server import VIEWPORTS, open_page, open_tab
from PIL import Image

pytestmark = pytest.mark.slow

SET_THRESHOLD = """(value) => {
    const slider = [...document.querySelectorAll("input[type=range]")].find((range) => range.offsetParent);
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
}"""
"""Moves the first visible slider."""

LISTENER_URL = "**/gradio_api/run/predict"
"""URL of the requests of unqueued listeners."""

UNLABELLED = """() => [...document.querySelectorAll("input, select, textarea, button")]
    .filter((control) => control.offsetParent && !control.disabled)
    .filter((control) => !(control.ariaLabel || control.labels?.length || control.innerText?.trim() || control.title
        || control.getAttribute("aria-labelledby")))
    .map((control) => control.outerHTML.slice(0, 120))"""
"""Returns visible controls without an accessible name."""


@pytest.fixture
def folder(demo: Any) -> Path:
    """Folder with images to upload."""
    return Path(demo.folder)


@pytest.fixture
def page(browser: Any, demo: Any) -> Iterator[Any]:
    """The tab on a desktop; the test must cause no problem on the page."""
    with open_page(browser, demo.url) as (page, problems):
        open_tab(page, "Inspect")
        yield page
        assert problems == []


def upload(page: Any, *paths: Path) -> None:
    """Upload images and wait for the predictions."""
    page.locator("input[type=file]:visible, .tabitem:visible input[type=file]").first.set_input_files(list(paths))
    page.locator("#inspect-prediction .prediction").wait_for()


def region_rows(page: Any) -> list[list[str]]:
    return [row.inner_text().split("\t") for row in page.locator("#inspect-regions tbody tr").all()]


def move_threshold(page: Any, value: float, expected: str) -> None:
    """Move the threshold and wait until the prediction contains a text."""
    page.evaluate(SET_THRESHOLD, value)
    page.locator("#inspect-prediction", has_text=expected).wait_for()


def test_threshold_updates_mask_label_and_regions_of_an_uploaded_image(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png")
    prediction = page.locator("#inspect-prediction").inner_text()
    assert "Defective" in prediction
    assert "score 0.800, at or above 0.500" in prediction
    assert "OpenVINO FP32" in prediction
    assert "plate.png, 200×100 pixels" in prediction
    assert " ms" in prediction
    assert region_rows(page) == [
        ["1200", "20", "10", "40", "30", "0.800"],
        ["400", "150", "60", "20", "20", "0.600"],
    ]
    move_threshold(page, 0.7, "above 0.700")
    assert region_rows(page) == [["1200", "20", "10", "40", "30", "0.800"]]
    move_threshold(page, 0.9, "Normal")
    assert "No pixel reaches the threshold" in page.locator("#inspect-regions").inner_text()


def test_a_moved_threshold_takes_one_request_that_does_not_wait_and_returns_no_photo(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png")
    photo = page.locator("#inspect-layers img.photo").get_attribute("src")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    with page.expect_response(LISTENER_URL) as response:
        move_threshold(page, 0.7, "above 0.700")
    sent = [url for url in requests if not url.startswith("data:")]
    assert len(sent) == 1, sent
    assert photo not in response.value.text()


def test_anomaly_map_lies_over_the_image_with_the_chosen_opacity(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png")
    layers = page.locator("#inspect-layers img")
    assert [layer.get_attribute("class") for layer in layers.all()] == ["photo", "anomaly-map", "mask"]
    assert page.evaluate(
        "[...document.querySelectorAll('#inspect-layers img')].every((image) => image.naturalWidth > 0)"
    )
    assert "2 regions at or above the threshold" in layers.first.get_attribute("alt")
    slider = page.get_by_label("range slider for Anomaly map opacity").locator("visible=true")
    for value in ("0.25", "0"):
        slider.fill(value)
        page.wait_for_function(
            "(value) => getComputedStyle(document.querySelector('#inspect-layers .anomaly-map')).opacity === value",
            arg=value,
        )


def test_downloads_of_mask_and_table_match_the_threshold(page: Any, folder: Path, tmp_path: Path) -> None:
    upload(page, folder / "plate.png", folder / "dark.png")
    move_threshold(page, 0.7, "above 0.700")
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
    assert [(row["image"], row["pred_label"], row["area"]) for row in table] == [
        ("plate.png", "defective", "1200"),
        ("dark.png", "normal", ""),
    ]
    assert {row["threshold"] for row in table} == {"0.7"}


def test_another_image_can_be_selected(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png", folder / "dark.png")
    chooser = page.get_by_label("Image", exact=True).locator("visible=true")
    assert chooser.input_value() == "1 · plate.png · defective"
    chooser.click()
    page.get_by_role("option", name="2 · dark.png · normal").click()
    page.locator("#inspect-prediction", has_text="dark.png").wait_for()
    assert "Normal" in page.locator("#inspect-prediction").inner_text()


def test_unreadable_images_are_reported_and_the_others_are_shown(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png", folder / "broken.png", folder / "drawing.png")
    messages = " ".join(" ".join(page.locator(".toast-body").all_inner_texts()).split())
    assert "broken.png cannot be decoded" in messages
    assert "drawing.png is not a PNG image, or is damaged" in messages
    assert "plate.png" in page.locator("#inspect-prediction").inner_text()


def test_broken_model_is_reported(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png")
    page.get_by_label("Trained model").click()
    page.get_by_role("option", name="Broken").click()
    page.locator(".toast-body", has_text="cannot be loaded; repeat the run").wait_for()


def test_test_images_of_the_model_serve_as_examples(page: Any) -> None:
    page.get_by_role("button", name="Use test images of this model").click()
    page.locator("#inspect-prediction .prediction").wait_for()
    chooser = page.get_by_label("Image", exact=True).locator("visible=true")
    assert chooser.input_value().startswith("1 · defective_00001")


def test_images_cannot_be_uploaded_before_the_models_are_known(page: Any) -> None:
    held_back: list[Any] = []
    released = threading.Event()
    page.route(LISTENER_URL, lambda route: route.continue_() if released.is_set() else held_back.append(route))
    page.reload()
    with page.expect_request(LISTENER_URL):
        open_tab(page, "Inspect")
    examples = page.get_by_role("button", name="Use test images of this model")
    page.wait_for_timeout(1000)
    assert held_back
    assert not examples.is_visible()
    released.set()
    for route in held_back:
        route.continue_()
    examples.click()
    page.locator("#inspect-prediction .prediction").wait_for()


@pytest.mark.parametrize(("width", "scheme"), VIEWPORTS)
def test_tab_fits_the_window_and_every_control_has_a_label(browser: Any, demo: Any, width: int, scheme: str) -> None:
    with open_page(browser, demo.url, width, scheme) as (page, problems):
        open_tab(page, "Inspect")
        upload(page, demo.folder / "plate.png", demo.folder / "dark.png")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate(UNLABELLED) == []
        assert problems == []
