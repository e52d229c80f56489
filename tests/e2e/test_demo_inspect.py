"""The Inspect tab in a real browser, from upload to download."""

import csv
import json
import threading
import zipfile
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
        ["1", "1200", "20", "10", "40", "30", "0.800"],
        ["2", "400", "150", "60", "20", "20", "0.600"],
    ]
    move_threshold(page, 0.7, "above 0.700")
    assert region_rows(page) == [["1", "1200", "20", "10", "40", "30", "0.800"]]
    move_threshold(page, 0.9, "Normal")
    assert "No defect" in page.locator("#inspect-regions").inner_text()


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


def test_another_image_can_be_selected_by_thumbnail_and_by_arrow_key(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png", folder / "dark.png")
    grid = page.locator("#inspect-grid")
    assert "1 of 2 defective" in grid.inner_text()
    grid.get_by_role("button", name="dark.png: normal 0.20").click()
    page.locator("#inspect-prediction", has_text="dark.png").wait_for()
    assert "Normal" in page.locator("#inspect-prediction").inner_text()
    page.locator("body").click(position={"x": 1, "y": 1})
    page.keyboard.press("ArrowLeft")
    page.locator("#inspect-prediction", has_text="plate.png").wait_for()


def test_defects_are_numbered_and_light_up_with_their_row(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png")
    boxes = page.locator("#inspect-layers .box")
    assert [box.inner_text() for box in boxes.all()] == ["1", "2"]
    page.locator("#inspect-regions tr[data-region='2']").hover()
    page.locator("#inspect-layers .box.lit", has_text="2").wait_for()
    assert boxes.first.get_attribute("class") is not None
    assert "lit" not in str(boxes.first.get_attribute("class"))


def test_a_held_key_shows_the_bare_photo(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png")
    scale = "getComputedStyle(document.querySelector('#inspect-layers .anomaly-map')).scale"
    page.locator("body").click(position={"x": 1, "y": 1})
    page.keyboard.down("h")
    page.wait_for_function(f"{scale} === '0'")
    page.keyboard.up("h")
    page.wait_for_function(f"{scale} === '1'")


def test_threshold_and_place_stay_when_files_are_added(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png")
    move_threshold(page, 0.7, "above 0.700")
    files = page.locator("input[type=file]:visible, .tabitem:visible input[type=file]").first
    files.set_input_files(folder / "dark.png")  # it is added to the other
    page.locator("#inspect-grid", has_text="of 2 defective").wait_for()
    assert "plate.png" in page.locator("#inspect-prediction").inner_text()
    assert "above 0.700" in page.locator("#inspect-prediction").inner_text()


def test_marks_calibrate_the_threshold_and_are_kept(page: Any, folder: Path, demo: Any) -> None:
    upload(page, folder / "plate.png", folder / "dark.png")
    page.get_by_role("button", name="Bad (B)").locator("visible=true").click()
    page.locator("#inspect-grid", has_text="1 marked by you").wait_for()
    page.locator("#inspect-grid").get_by_role("button", name="dark.png").click()
    page.locator("#inspect-prediction", has_text="dark.png").wait_for()
    page.locator("body").click(position={"x": 1, "y": 1})
    page.keyboard.press("g")
    page.locator("#inspect-grid", has_text="2 marked by you").wait_for()
    page.get_by_role("button", name="Calibrate").locator("visible=true").click()
    page.get_by_role("button", name="Set the threshold", exact=True).locator("visible=true").click()
    result = page.locator("#inspect-calibration .calibration")
    result.wait_for()
    assert "false alarms: 0 of 1" in result.inner_text()
    assert "1 of 2 defective" in page.locator("#inspect-grid").inner_text()
    lines = [json.loads(line) for line in (demo.results / "corrections/log.jsonl").read_text().split("\n") if line]
    assert [(line["name"], line["label"]) for line in lines] == [("plate.png", "bad"), ("dark.png", "good")]


def test_a_painted_region_of_interest_holds_for_all_images(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png", folder / "dark.png")
    page.get_by_role("button", name="Paint: a defect").locator("visible=true").click()
    page.get_by_role("button", name="Paint on this image").locator("visible=true").click()
    canvas = page.locator("#inspect-painter canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    # Right of both defects' left one: only the smaller defect is in the region.
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.6 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.85 * box["height"], steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Use as region of interest").locator("visible=true").click()
    page.locator("#inspect-regions caption", has_text="1 defect").wait_for()
    assert region_rows(page)[0][2] >= "140"
    page.get_by_role("button", name="Inspect whole images").locator("visible=true").click()
    page.locator("#inspect-regions caption", has_text="2 defects").wait_for()


def test_report_has_overlays_masks_and_table(page: Any, folder: Path, tmp_path: Path) -> None:
    upload(page, folder / "plate.png", folder / "dark.png")
    with page.expect_download() as download:
        page.get_by_role("button", name="Report (ZIP)").locator("visible=true").click()
    download.value.save_as(tmp_path / "inspection.zip")
    with zipfile.ZipFile(tmp_path / "inspection.zip") as archive:
        assert sorted(archive.namelist()) == [
            "defects.csv",
            "masks/0001_plate.png",
            "masks/0002_dark.png",
            "report.html",
        ]
        report = archive.read("report.html").decode()
    assert "1 of 2 images are defective" in report
    assert report.count("data:image/jpeg") == 2


def test_unreadable_images_are_reported_and_the_others_are_shown(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png", folder / "broken.png", folder / "drawing.png")
    messages = " ".join(" ".join(page.locator(".toast-body").all_inner_texts()).split())
    assert "broken.png cannot be decoded" in messages
    assert "drawing.png is not a PNG image, or is damaged" in messages
    assert "plate.png" in page.locator("#inspect-prediction").inner_text()


def test_broken_model_is_reported_and_the_example_model_keeps_the_images(page: Any, folder: Path) -> None:
    upload(page, folder / "plate.png")
    page.get_by_label("Trained model").click()
    page.get_by_role("option", name="Broken").click()
    page.locator(".toast-body", has_text="cannot be loaded; repeat the run").wait_for()
    page.get_by_label("Trained model").click()
    page.get_by_role("option", name="Example").click()
    page.locator("#inspect-prediction .prediction", has_not_text="score 0.800").wait_for()
    thumbnails = page.locator("#inspect-grid [data-target]")
    assert [thumbnail.get_attribute("title") for thumbnail in thumbnails.all()] == ["plate.png"]


def test_test_images_of_the_model_serve_as_examples(page: Any) -> None:
    page.get_by_role("button", name="Use test images of this model").click()
    page.locator("#inspect-prediction .prediction").wait_for()
    assert "defective_00001" in page.locator("#inspect-grid [data-target]").all()[0].get_attribute("title")


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
        # Gradio nests the upload button of a field with files in another one; axe: nested-interactive, serious.
        assert page.locator(".upload-container:visible").count() >= 1
        assert page.locator("button:not([role=group]) button").count() == 0
        assert problems == []
