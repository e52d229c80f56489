"""The report's page in a real browser, on a phone and on a desktop, with light and dark colours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_server import VIEWPORTS
from results_folder import Layout, write_results

from anomalib_defect_plugins.report import write_report

pytestmark = pytest.mark.slow

LAYOUT = Layout(
    models=("HtpGan", "OneStage", "PaDiM"), supervisions=("normal", "masks"), seeds=(0, 1), failed=[("OneStage", 1)]
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_results(tmp_path_factory.mktemp("results") / "made", LAYOUT))


@pytest.fixture(params=VIEWPORTS, ids=str)
def shown(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[tuple[Any, list[str]]]:
    """Yield the page, and what the browser reports: requests other than for the page itself, and errors."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    reports: list[str] = []

    def report_request(request: Any) -> None:
        if not request.url.startswith(("data:", "file:")):
            reports.append(request.url[:80])

    page.on("request", report_request)
    page.on("console", lambda message: reports.append(message.text))
    page.on("pageerror", lambda error: reports.append(str(error)))
    page.goto(page_file.as_uri())
    yield page, reports
    context.close()


def test_the_page_is_complete_without_errors_and_requests(shown: Any) -> None:
    page, reports = shown
    page.locator("details").evaluate_all("all => all.forEach(item => item.open = true)")
    # 3 models x 2 data sets x 2 kinds of supervision; the summary does not distinguish the data sets.
    assert page.locator("#metrics tbody tr").count() == 2 * 12
    assert page.locator("#summary tbody tr").count() == 6
    assert page.locator("#data-sets tbody tr").count() == 2 * 6
    assert page.locator("#failed tbody tr").count() == 4
    assert page.locator("section.model").count() == 3
    assert page.locator("#summary tbody th").first.inner_text() == "HtpGan"
    # Each of 12 rows has 4 examples of an image and a map, 3 of them with a ground truth; and there are 3 plots.
    assert page.locator("img").count() == 12 * (4 * 2 + 3) + 3
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt)")
    assert reports == []


def test_only_tables_scroll_sideways(shown: Any) -> None:
    page, _ = shown
    page.locator("details").evaluate_all("all => all.forEach(item => item.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    wider = page.evaluate(
        """[...document.querySelectorAll("main *")].filter(item => !item.closest(".scroll, pre, svg")
        && item.getBoundingClientRect().right > window.innerWidth + 0.5).map(item => item.outerHTML.slice(0, 80))"""
    )
    assert wider == []


def test_text_has_enough_contrast(shown: Any) -> None:
    page, _ = shown
    # Relative luminance and contrast as defined by WCAG 2.1; level AA requires 4.5.
    contrast = page.evaluate(
        """(() => {
        const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(value => value / 255)
            .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
            .reduce((sum, value, channel) => sum + value * [0.2126, 0.7152, 0.0722][channel], 0);
        const page = light(getComputedStyle(document.body).backgroundColor);
        return [...document.querySelectorAll("h1, p, nav a, td:not([style]), tbody th, dt, summary")].map(item => {
            const text = light(getComputedStyle(item).color);
            return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
        });
        })()"""
    )
    assert min(contrast) >= 4.5


def test_a_click_on_a_header_sorts_the_table(shown: Any) -> None:
    page, _ = shown
    table = page.locator("#summary table")
    column = table.locator("thead th").all_inner_texts().index("latency, ms")
    header = table.locator("thead th").nth(column)
    expected = {"descending": True, "ascending": False}
    for order, reverse in expected.items():
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == order
        times = [float(text) for text in table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()]
        assert times == sorted(times, reverse=reverse)
        assert len(set(times)) == 3


def test_the_menu_stays_visible_and_leads_to_the_sections(shown: Any) -> None:
    page, _ = shown
    page.locator("nav a", has_text="Cost").click()
    top = page.evaluate("document.querySelector('#cost h2').getBoundingClientRect().top")
    bottom = page.evaluate("document.querySelector('nav').getBoundingClientRect().bottom")
    assert 0 < bottom <= top < 844


def test_without_javascript_the_tables_are_shown(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("#metrics tbody tr").count() == 24
    assert page.locator("th button").count() == 0
    context.close()
