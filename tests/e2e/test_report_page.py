"""The report's page in a real browser: what a person sees, on a telephone and on a desk, in light and dark."""

import pytest
from results_folder import Layout, write_results

from anomalib_defect_plugins.report import write_report

LAYOUT = Layout(
    models=("HtpGan", "OneStage", "PaDiM"), supervisions=("normal", "masks"), seeds=(0, 1), failed=[("OneStage", 1)]
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return write_report(write_results(tmp_path_factory.mktemp("results") / "made", LAYOUT))


@pytest.fixture(params=[(390, "light"), (390, "dark"), (1440, "light"), (1440, "dark")], ids=str)
def shown(request, browser, page_file):
    """The page, and what the browser had to say: requests other than for the page itself, and errors."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    said = []
    page.on("request", lambda it: said.append(it.url[:80]) if not it.url.startswith(("data:", "file:")) else None)
    page.on("console", lambda it: said.append(it.text))
    page.on("pageerror", lambda it: said.append(str(it)))
    page.goto(page_file.as_uri())
    yield page, said
    context.close()


def test_the_page_is_whole_and_quiet(shown):
    page, said = shown
    page.locator("details").evaluate_all("all => all.forEach(it => it.open = true)")
    # 3 models x 2 data sets x 2 kinds of supervision; the summary has no data.
    assert page.locator("#figures tbody tr").count() == 2 * 12
    assert page.locator("#summary tbody tr").count() == 6
    assert page.locator("#failed tbody tr").count() == 4
    assert page.locator("section.model").count() == 3
    assert page.locator("#summary tbody th").first.inner_text() == "HtpGan"
    # Each of 12 rows has 4 examples of an image and a map, 3 of them with a ground truth; and there are 2 plots.
    assert page.locator("img").count() == 12 * (4 * 2 + 3) + 2
    assert page.evaluate("[...document.images].every(it => it.complete && it.naturalWidth > 0 && it.alt)")
    assert said == []


def test_only_tables_scroll_sideways(shown):
    page, _ = shown
    page.locator("details").evaluate_all("all => all.forEach(it => it.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    wider = page.evaluate(
        """[...document.querySelectorAll("main *")].filter(it => !it.closest(".scroll, pre, svg")
        && it.getBoundingClientRect().right > window.innerWidth + 0.5).map(it => it.outerHTML.slice(0, 80))"""
    )
    assert wider == []


def test_text_stands_out_from_the_page(shown):
    page, _ = shown
    # Relative luminance and contrast as WCAG 2.1 defines them; 4.5 is its level AA.
    contrast = page.evaluate(
        """(() => {
        const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(it => it / 255)
            .map(it => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4)
            .reduce((sum, it, at) => sum + it * [0.2126, 0.7152, 0.0722][at], 0);
        const page = light(getComputedStyle(document.body).backgroundColor);
        return [...document.querySelectorAll("h1, p, nav a, td:not([style]), tbody th, dt, summary")].map(it => {
            const text = light(getComputedStyle(it).color);
            return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
        });
        })()"""
    )
    assert min(contrast) >= 4.5


def test_a_click_on_a_head_sorts_the_table(shown):
    page, _ = shown
    table = page.locator("#summary table")
    column = table.locator("thead th").all_inner_texts().index("latency, ms")
    head = table.locator("thead th").nth(column)
    expected = {"descending": True, "ascending": False}
    for order, reverse in expected.items():
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        times = [float(it) for it in table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()]
        assert times == sorted(times, reverse=reverse)
        assert len(set(times)) == 3


def test_the_menu_stays_in_sight_and_leads_to_the_sections(shown):
    page, _ = shown
    page.locator("nav a", has_text="Cost").click()
    top = page.evaluate("document.querySelector('#cost h2').getBoundingClientRect().top")
    bottom = page.evaluate("document.querySelector('nav').getBoundingClientRect().bottom")
    assert 0 < bottom <= top < 844


def test_without_javascript_the_tables_are_there(browser, page_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("#figures tbody tr").count() == 24
    assert page.locator("th button").count() == 0
    context.close()
