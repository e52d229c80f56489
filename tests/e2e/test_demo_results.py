"""The Results tab in a real browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from demo_server import VIEWPORTS, open_page

pytestmark = pytest.mark.slow

ROWS = "#figures tbody tr"


@pytest.fixture
def page(browser: Any, demo: Any) -> Iterator[Any]:
    """The tab on a desktop, with its first image; the test must cause no problem on the page."""
    with open_page(browser, demo.url) as (page, problems):
        page.wait_for_selector(".comparison figure img")
        yield page
        assert problems == []


def image_tables(results: Path, **labels: str) -> list[pd.DataFrame]:
    """Read the image tables of the runs with the given labels of model, data and supervision."""
    tables = []
    for path in sorted((results / "made/runs").glob("*/run.json")):
        run = json.loads(path.read_text())["run"]
        if all(run[part]["name"] == label for part, label in labels.items()):
            tables.append(pd.read_csv(path.parent / "images.csv"))
    return tables


def select(page: Any, label: str, *names: str) -> None:
    """Select entries of a list."""
    for name in names:
        field = page.get_by_label(label, exact=True).first
        field.click()
        page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")


def column(page: Any, title: str) -> list[str]:
    """Return the cells of a column of the table."""
    headers = [text.strip() for text in page.locator("#figures thead th").all_inner_texts()]
    number = [re.sub(r"\s*[↕↑↓]$", "", text).replace("\n", " ") for text in headers].index(title) + 1
    return [text.strip() for text in page.locator(f"{ROWS} > :nth-child({number})").all_inner_texts()]


def image_number(page: Any) -> int:
    """Return the number of the displayed image, starting from 1."""
    return int(page.locator(".comparison").get_attribute("data-position")) + 1


def test_first_page_of_50_runs_with_200_images_takes_few_requests_and_little_data(browser: Any, demo: Any) -> None:
    with open_page(browser, "about:blank") as (page, _):
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(demo.url)
        page.wait_for_selector(".comparison figure img")
        assert page.locator(ROWS).count() == 50
        calls = [url for url in requests if "/gradio_api/" in url and "/heartbeat/" not in url]
        assert len(calls) < 10, calls
        assert len(page.content()) < 2_000_000


@pytest.mark.parametrize(("width", "scheme"), VIEWPORTS, ids=str)
def test_tab_causes_no_problems_and_fits_the_window_at_every_width(
    browser: Any, demo: Any, width: int, scheme: str
) -> None:
    with open_page(browser, demo.url, width, scheme) as (page, problems):
        page.wait_for_selector(".comparison figure img")
        for view in ("Accuracy and latency", "Categories", "Table"):
            page.get_by_label(view, exact=True).check()
            contents = {"Table": ROWS, "Categories": "#figures .heat"}
            page.wait_for_selector(contents.get(view, "#figures picture >> visible=true"))
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.outerHTML.match(/googleapis|gstatic|cdn[.]|jsdelivr/)") is None
        assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast_is_sufficient(browser: Any, demo: Any, scheme: str) -> None:
    with open_page(browser, demo.url, scheme=scheme) as (page, _):
        page.wait_for_selector(".comparison figure img")
        # Relative luminance and contrast of WCAG 2.1; level AA requires 4.5.
        contrast = page.evaluate(
            """(() => {
            const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const luminance = (rgb) => rgb.slice(0, 3).map(value => value / 255)
                .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
                .reduce((sum, value, channel) => sum + value * [0.2126, 0.7152, 0.0722][channel], 0);
            const background = (element) => {
                for (; element; element = element.parentElement) {
                    const colour = channels(getComputedStyle(element).backgroundColor);
                    if (colour.length === 3 || colour[3] > 0.99) return colour;
                }
                return [255, 255, 255];
            };
            const texts = document.querySelectorAll(
                "h1, h2, h4, p, label > span, [role=tab], .report td:not([style]), .report th, .chip, .muted, "
                + ".outcomes *"
            );
            return [...texts].filter(text => text.offsetParent && text.innerText.trim()).map(text => {
                const pair = [luminance(channels(getComputedStyle(text).color)), luminance(background(text))];
                const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
                return [contrast, text.className + " " + text.innerText.slice(0, 30)];
            }).sort((a, b) => a[0] - b[0]);
            })()"""
        )
        assert len(contrast) > 50
        assert contrast[0][0] >= 4.5, contrast[:5]


def test_every_control_has_a_label(page: Any) -> None:
    unlabelled = page.evaluate(
        """[...document.querySelectorAll("input, textarea, select, button")].filter(control => control.offsetParent
        && !(control.getAttribute("aria-label") || control.labels?.length || control.innerText.trim() || control.title))
        .map(control => control.outerHTML.slice(0, 120))"""
    )
    assert unlabelled == []


def test_filters_select_rows_and_metrics(page: Any) -> None:
    select(page, "Models (none: all)", "PaDiM", "Sidn")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length === 20")
    assert set(column(page, "model")) == {"PaDiM", "Sidn"}
    select(page, "Supervision (none: all)", "masks")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length === 10")
    assert set(column(page, "supervision")) == {"masks"}
    select(page, "Data (none: all)", "wood")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length === 2")
    assert column(page, "data") == ["wood", "wood"]
    assert "image Recall" not in page.locator("#figures thead").inner_text()
    select(page, "Metrics (none: all)", "image Recall")
    page.wait_for_function("document.querySelector('#figures thead').innerText.includes('Recall')")
    assert all(0 < float(value) < 1 for value in column(page, "image Recall"))


def test_click_on_a_header_sorts_and_the_order_survives_a_filter(page: Any) -> None:
    header = page.locator("#figures thead th", has_text="image AUROC")
    for order, reverse in (("descending", True), ("ascending", False)):
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == order
        values = [float(value) for value in column(page, "image AUROC")]
        assert values == sorted(values, reverse=reverse)
    select(page, "Models (none: all)", "PaDiM")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length === 10")
    assert header.get_attribute("aria-sort") == "ascending"
    values = [float(value) for value in column(page, "image AUROC")]
    assert values == sorted(values)


def test_filter_applies_to_the_plot_and_the_heat_maps(page: Any) -> None:
    select(page, "Data (none: all)", "wood", "steel")
    page.get_by_label("Categories", exact=True).check()
    page.wait_for_selector("#figures .heat")
    heat = page.locator("#figures .heat").first
    headers = [re.sub(r"\s*↕$", "", text) for text in heat.locator("thead th").all_inner_texts()]
    assert headers == ["model", "steel", "wood"]
    assert heat.locator("tbody tr").count() == 10
    page.get_by_label("Accuracy and latency", exact=True).check()
    page.wait_for_selector("#figures picture")
    assert "steel and wood" in page.locator("#figures .fronts").inner_text()
    visible = page.locator("#figures picture:visible img")
    assert visible.count() == 1
    assert "Pareto" in visible.get_attribute("alt")


def test_arrow_keys_number_and_pages_navigate_between_images(page: Any) -> None:
    comparison = page.locator(".comparison")
    comparison.scroll_into_view_if_needed()
    assert image_number(page) == 1
    assert "of 200" in comparison.inner_text()
    for key, number in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        page.wait_for_selector(f".comparison[data-position='{number - 1}']")
    page.keyboard.press("ArrowLeft")  # already at the first image
    page.get_by_role("button", name="Next page").click()
    page.wait_for_selector(".comparison[data-position='12']")
    assert "Page 2 of 17" in comparison.inner_text()
    page.get_by_label("Image number").fill("200")
    page.keyboard.press("Enter")
    page.wait_for_selector(".comparison[data-position='199']")
    assert page.get_by_role("button", name="Next image").is_disabled()
    assert page.get_by_role("button", name="Next page").is_disabled()
    page.locator(".thumbnails button").nth(2).click()
    page.wait_for_selector(".comparison[data-position='194']")
    assert page.locator(".thumbnails [aria-current]").count() == 1


def test_held_key_advances_once_per_repetition(page: Any) -> None:
    page.locator(".comparison").scroll_into_view_if_needed()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(".comparison[data-position='30']")


def test_arrow_keys_in_a_field_do_not_change_the_image(page: Any) -> None:
    page.locator(".comparison").scroll_into_view_if_needed()
    page.get_by_label("Image number").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_label("All images").focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_timeout(500)
    assert image_number(page) == 1


def test_document_holds_only_the_images_of_one_page_and_they_are_small(page: Any) -> None:
    sizes = page.evaluate(
        "[...document.querySelectorAll('.comparison img')].map(image => [image.naturalWidth, image.src.length])"
    )
    assert len(sizes) == 12 + 6
    assert max(width for width, _ in sizes) <= 384
    assert sum(length for _, length in sizes) < 500_000


def test_image_filters_match_the_image_tables(page: Any, demo: Any) -> None:
    a, b = (
        image_tables(demo.results, model=model, data="brick", supervision="normal")[0] for model in ("HtpGan", "PaDiM")
    )
    missed, alarms = ([(table.label == label) & (table.pred_label != label) for table in (a, b)] for label in (1, 0))
    expected = {
        ("Missed defects", "Either model"): missed[0] | missed[1],
        ("Missed defects", "Model A"): missed[0],
        ("False alarms", "Model B"): alarms[1],
        ("Any error", "Both models"): (missed[0] | alarms[0]) & (missed[1] | alarms[1]),
    }
    for (show, errors_of), images in expected.items():
        page.get_by_label(show, exact=True).check()
        page.get_by_role("radio", name=errors_of, exact=True).check()
        keys = {"Missed defects": "missed", "False alarms": "false_alarm", "Any error": "wrong"}
        keys |= {"Either model": "either", "Model A": "a", "Model B": "b", "Both models": "both"}
        page.wait_for_selector(f".comparison[data-filters$='|{keys[show]}|{keys[errors_of]}']")
        assert int(page.locator(".comparison").get_attribute("data-count")) == images.sum() > 0
    page.get_by_label("Missed defects", exact=True).check()
    page.get_by_role("radio", name="Model A", exact=True).check()
    page.wait_for_selector(".comparison[data-filters$='|missed|a']")
    first = a[missed[0]].iloc[0]
    prediction = page.locator(".comparison section").nth(1).inner_text()
    assert "predicted normal: missed defect" in prediction
    assert f"score {first.score:#.3g}" in prediction
    assert "threshold 0.500" in prediction


def test_two_models_are_shown_beside_the_ground_truth(page: Any, demo: Any) -> None:
    select(page, "Test data", "wood")
    page.wait_for_function("document.querySelector('.comparison').dataset.count === '200'")
    select(page, "Model B", "Sidn · masks · seed 0")
    page.wait_for_function("document.querySelector('.comparison').innerText.includes('Sidn')")
    page.get_by_label("Image number").fill("2")
    page.keyboard.press("Enter")
    page.wait_for_selector(".comparison[data-position='1']")
    sections = page.locator(".comparison section")
    assert [text.split("\n")[0] for text in sections.all_inner_texts()] == ["Test image", "A HtpGan", "B Sidn"]
    assert "defective (scratch)" in sections.nth(0).inner_text()
    captions = [section.locator("figcaption").all_inner_texts() for section in sections.all()]
    assert captions == [["image", "ground truth"], ["anomaly map", "mask"], ["anomaly map", "mask"]]
    scores = [image_tables(demo.results, model=model, data="wood", supervision=kind)[0].score[1] for model, kind in
              (("HtpGan", "normal"), ("Sidn", "masks"))]  # fmt: skip
    for section, score in zip((sections.nth(1), sections.nth(2)), scores, strict=True):
        assert f"score {score:#.3g}" in section.inner_text()
    lefts = [section.bounding_box()["x"] for section in sections.all()]
    assert lefts == sorted(lefts)
    assert len({section.bounding_box()["y"] for section in sections.all()}) == 1
