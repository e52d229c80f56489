"""The tab of results in a real browser."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from demo_server import LOOKS, best, opened, serving
from results_folder import Layout, write_results

pytestmark = pytest.mark.slow

ROWS = "#figures tbody tr"


@pytest.fixture
def page(browser: Any, demo: Any) -> Iterator[Any]:
    """The tab with its first image, on a desk; it must have stayed quiet."""
    with opened(browser, demo.url) as (it, said):
        it.wait_for_selector(".walk figure img")
        yield it
        assert said == []


def tables(results: Path, **wanted: str) -> list[pd.DataFrame]:
    """Give the tables of images of runs by the labels of their parts."""
    found = []
    for path in sorted((results / "made/runs").glob("*/run.json")):
        run = json.loads(path.read_text())["run"]
        if all(run[part]["name"] == name for part, name in wanted.items()):
            found.append(pd.read_csv(path.parent / "images.csv"))
    return found


def choose(page: Any, label: str, *names: str) -> None:
    """Choose entries of a list."""
    for name in names:
        field = page.get_by_label(label, exact=True).first
        field.click()
        page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")


def column(page: Any, title: str) -> list[str]:
    """Give the cells of a column of the table."""
    heads = [it.strip() for it in page.locator("#figures thead th").all_inner_texts()]
    place = [re.sub(r"\s*[↕↑↓]$", "", it).replace("\n", " ") for it in heads].index(title) + 1
    return [it.strip() for it in page.locator(f"{ROWS} > :nth-child({place})").all_inner_texts()]


def shown(page: Any) -> int:
    """Give the number of the image that is shown, beginning with 1."""
    return int(page.locator(".walk").get_attribute("data-at")) + 1


def test_the_first_page_of_50_runs_of_200_images_is_there_within_2_seconds(browser: Any, demo: Any) -> None:
    def measure() -> float:
        with opened(browser, "about:blank") as (page, _):
            began = time.perf_counter()
            page.goto(demo.url)
            page.wait_for_selector(ROWS)
            took = time.perf_counter() - began
            assert page.locator(ROWS).count() == 50
        return took

    assert best(measure, 2) < 2


@pytest.mark.parametrize(("width", "scheme"), LOOKS, ids=str)
def test_at_every_width_the_tab_is_quiet_and_only_scrolls_down(
    browser: Any, demo: Any, width: int, scheme: str
) -> None:
    with opened(browser, demo.url, width, scheme) as (page, said):
        page.wait_for_selector(".walk figure img")
        for view in ("Accuracy and latency", "Categories", "Table"):
            page.get_by_label(view, exact=True).check()
            marks = {"Table": ROWS, "Categories": "#figures .heat"}
            page.wait_for_selector(marks.get(view, "#figures picture >> visible=true"))
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("[...document.images].every(it => it.complete && it.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.outerHTML.match(/googleapis|gstatic|cdn[.]|jsdelivr/)") is None
        assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser: Any, demo: Any, scheme: str) -> None:
    with opened(browser, demo.url, scheme=scheme) as (page, _):
        page.wait_for_selector(".walk figure img")
        # Relative luminance and contrast as WCAG 2.1 defines them; 4.5 is its level AA.
        contrast = page.evaluate(
            """(() => {
            const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const light = (rgb) => rgb.slice(0, 3).map(it => it / 255)
                .map(it => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4)
                .reduce((sum, it, at) => sum + it * [0.2126, 0.7152, 0.0722][at], 0);
            const behind = (it) => {
                for (; it; it = it.parentElement) {
                    const found = parts(getComputedStyle(it).backgroundColor);
                    if (found.length === 3 || found[3] > 0.99) return found;
                }
                return [255, 255, 255];
            };
            const all = document.querySelectorAll(
                "h1, h2, h4, p, label > span, [role=tab], .report td:not([style]), .report th, .chip, .quiet, .marks *"
            );
            return [...all].filter(it => it.offsetParent && it.innerText.trim()).map(it => {
                const [text, back] = [light(parts(getComputedStyle(it).color)), light(behind(it))];
                const value = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
                return [value, it.className + " " + it.innerText.slice(0, 30)];
            }).sort((a, b) => a[0] - b[0]);
            })()"""
        )
        assert len(contrast) > 50
        assert contrast[0][0] >= 4.5, contrast[:5]


def test_every_control_has_a_label(page: Any) -> None:
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input, textarea, select, button")].filter(it => it.offsetParent
        && !(it.getAttribute("aria-label") || it.labels?.length || it.innerText.trim() || it.title))
        .map(it => it.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []


def test_filters_leave_the_rows_and_figures_that_are_asked_for(page: Any) -> None:
    choose(page, "Models (none: all)", "PaDiM", "Sidn")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length === 20")
    assert set(column(page, "model")) == {"PaDiM", "Sidn"}
    choose(page, "Supervision (none: all)", "masks")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length === 10")
    assert set(column(page, "supervision")) == {"masks"}
    choose(page, "Data (none: all)", "wood")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length === 2")
    assert column(page, "data") == ["wood", "wood"]
    assert "image Recall" not in page.locator("#figures thead").inner_text()
    choose(page, "Metrics (none: all)", "image Recall")
    page.wait_for_function("document.querySelector('#figures thead').innerText.includes('Recall')")
    assert all(0 < float(it) < 1 for it in column(page, "image Recall"))


def test_a_click_on_a_head_sorts_and_the_order_outlives_a_filter(page: Any) -> None:
    head = page.locator("#figures thead th", has_text="image AUROC")
    for order, reverse in (("descending", True), ("ascending", False)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        values = [float(it) for it in column(page, "image AUROC")]
        assert values == sorted(values, reverse=reverse)
    choose(page, "Models (none: all)", "PaDiM")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length === 10")
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(it) for it in column(page, "image AUROC")]
    assert values == sorted(values)


def test_a_filter_holds_for_the_plot_and_for_the_categories(page: Any) -> None:
    choose(page, "Data (none: all)", "wood", "steel")
    page.get_by_label("Categories", exact=True).check()
    page.wait_for_selector("#figures .heat")
    heat = page.locator("#figures .heat").first
    heads = [re.sub(r"\s*↕$", "", it) for it in heat.locator("thead th").all_inner_texts()]
    assert heads == ["model", "steel", "wood"]
    assert heat.locator("tbody tr").count() == 10
    page.get_by_label("Accuracy and latency", exact=True).check()
    page.wait_for_selector("#figures picture")
    assert "steel and wood" in page.locator("#figures .fronts").inner_text()
    visible = page.locator("#figures picture:visible img")
    assert visible.count() == 1
    assert "Pareto" in visible.get_attribute("alt")


def test_arrow_keys_number_and_pages_lead_through_the_images(page: Any) -> None:
    walk = page.locator(".walk")
    walk.scroll_into_view_if_needed()
    assert shown(page) == 1
    assert "of 200" in walk.inner_text()
    for key, number in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        page.wait_for_selector(f".walk[data-at='{number - 1}']")
    page.keyboard.press("ArrowLeft")  # there is nothing before the first
    page.get_by_role("button", name="Next page").click()
    page.wait_for_selector(".walk[data-at='12']")
    assert "Page 2 of 17" in walk.inner_text()
    page.get_by_label("Number of the image").fill("200")
    page.keyboard.press("Enter")
    page.wait_for_selector(".walk[data-at='199']")
    assert page.get_by_role("button", name="Next image").is_disabled()
    assert page.get_by_role("button", name="Next page").is_disabled()
    page.locator(".strip button").nth(2).click()
    page.wait_for_selector(".walk[data-at='194']")
    assert page.locator(".strip [aria-current]").count() == 1


def test_a_key_that_is_held_leads_as_far_as_it_was_pressed(page: Any) -> None:
    page.locator(".walk").scroll_into_view_if_needed()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(".walk[data-at='30']")


def test_arrow_keys_in_a_field_stay_there(page: Any) -> None:
    page.locator(".walk").scroll_into_view_if_needed()
    page.get_by_label("Number of the image").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_label("All images").focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_timeout(500)
    assert shown(page) == 1


def test_only_the_pictures_of_a_page_are_in_the_document_and_they_are_small(page: Any) -> None:
    sizes = page.evaluate("[...document.querySelectorAll('.walk img')].map(it => [it.naturalWidth, it.src.length])")
    assert len(sizes) == 12 + 6
    assert max(width for width, _ in sizes) <= 384
    assert sum(length for _, length in sizes) < 500_000


def test_filters_show_the_errors_that_the_tables_of_images_tell(page: Any, demo: Any) -> None:
    a, b = (tables(demo.results, model=model, data="brick", supervision="normal")[0] for model in ("HtpGan", "PaDiM"))
    missed, alarms = ([(it.label == label) & (it.verdict != label) for it in (a, b)] for label in (1, 0))
    expected = {
        ("Missed defects", "Either model"): missed[0] | missed[1],
        ("Missed defects", "Model A"): missed[0],
        ("False alarms", "Model B"): alarms[1],
        ("Any error", "Both models"): (missed[0] | alarms[0]) & (missed[1] | alarms[1]),
    }
    for (show, of), images in expected.items():
        page.get_by_label(show, exact=True).check()
        page.get_by_role("radio", name=of, exact=True).check()
        keys = {"Missed defects": "missed", "False alarms": "alarm", "Any error": "wrong"}
        keys |= {"Either model": "either", "Model A": "a", "Model B": "b", "Both models": "both"}
        page.wait_for_selector(f".walk[data-choice$='|{keys[show]}|{keys[of]}']")
        assert int(page.locator(".walk").get_attribute("data-count")) == images.sum() > 0
    page.get_by_label("Missed defects", exact=True).check()
    page.get_by_role("radio", name="Model A", exact=True).check()
    page.wait_for_selector(".walk[data-choice$='|missed|a']")
    first = a[missed[0]].iloc[0]
    said = page.locator(".walk section").nth(1).inner_text()
    assert "called normal: missed defect" in said
    assert f"score {first.score:#.3g}" in said
    assert "threshold 0.500" in said


def test_two_models_are_shown_side_by_side_with_the_ground_truth(page: Any, demo: Any) -> None:
    choose(page, "Tested on", "wood")
    page.wait_for_function("document.querySelector('.walk').dataset.count === '200'")
    choose(page, "Model B", "Sidn · masks · seed 0")
    page.wait_for_function("document.querySelector('.walk').innerText.includes('Sidn')")
    page.get_by_label("Number of the image").fill("2")
    page.keyboard.press("Enter")
    page.wait_for_selector(".walk[data-at='1']")
    sections = page.locator(".walk section")
    assert [it.split("\n")[0] for it in sections.all_inner_texts()] == ["Test image", "A HtpGan", "B Sidn"]
    assert "defective (scratch)" in sections.nth(0).inner_text()
    captions = [it.locator("figcaption").all_inner_texts() for it in sections.all()]
    assert captions == [["image", "ground truth"], ["anomaly map", "mask"], ["anomaly map", "mask"]]
    scores = [tables(demo.results, model=model, data="wood", supervision=kind)[0].score[1] for model, kind in
              (("HtpGan", "normal"), ("Sidn", "masks"))]  # fmt: skip
    for section, score in zip((sections.nth(1), sections.nth(2)), scores, strict=True):
        assert f"score {score:#.3g}" in section.inner_text()
    lefts = [it.bounding_box()["x"] for it in sections.all()]
    assert lefts == sorted(lefts)
    assert len({it.bounding_box()["y"] for it in sections.all()}) == 1


def test_without_results_the_embedded_ones_can_be_made_and_stopped(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "results") as url, opened(browser, url) as (page, said):
        page.get_by_text("No results yet").wait_for()
        assert not page.get_by_text("The same images, two models").is_visible()
        page.get_by_role("button", name="Make the embedded results").click()
        page.get_by_role("progressbar", name="Runs that are done").wait_for()
        assert "0 of 7 done" in page.locator(".making").inner_text()
        assert "now HtpGan" in page.locator(".making").inner_text()
        # Someone else sees the same, and begins no second one.
        with opened(browser, url) as (other, _):
            other.get_by_text("Making results").wait_for()
            assert not other.get_by_role("button", name="Make the embedded results").is_visible()
        # The first results open the tab, as here those of another benchmark.
        (tmp_path / "results").mkdir(exist_ok=True)
        write_results(tmp_path / "apart/made", Layout(images=2)).rename(tmp_path / "results/made")
        page.locator(ROWS).first.wait_for()
        page.locator(".walk figure img").first.wait_for()
        page.get_by_role("button", name="Stop", exact=True).click()
        page.get_by_text("Stopped", exact=True).wait_for()
        assert page.get_by_role("button", name="Make the embedded results").is_visible()
        assert page.locator(ROWS).count() == 4
        assert said == []
