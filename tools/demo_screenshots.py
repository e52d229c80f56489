"""Takes screenshots of every tab of the demo in use, at phone and desktop width, in light and dark.

Usage: python tools/demo_screenshots.py OUT [--results DIR]

Needs chromium and playwright. Without --results it shows generated results. Console messages and errors are printed.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))

from demo_results import write_demo
from demo_server import VIEWPORTS, launch_browser, open_page, open_tab, paint_stroke, serve_demo, wait_for_file
from results_folder import Layout

VIEWS = {"Accuracy and latency": "#figures picture >> visible=true", "Categories": "#figures .heat"}
"""Further views of the results, and a selector of the contents of each."""

GENERATED_RESULTS = Layout(
    models=("HtpGan", "OneStage", "PaDiM"), supervisions=("normal", "masks"), images=60, size=(256, 192), seeds=(0, 1)
)


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, launch_browser() as browser:
        if options.results is None:
            write_demo(Path(folder), GENERATED_RESULTS)
        with serve_demo(options.results or Path(folder, "results")) as url:
            for page, name in _pages(browser, url):
                _take_tabs(page, options.out, name)
        with serve_demo(Path(folder, "none")) as url:
            for page, name in _pages(browser, url):
                page.locator("#inspect-layers .box").first.wait_for()
                _take(page, options.out / f"0-example-{name}.png")
                open_tab(page, "Results")
                page.get_by_text("No results yet").wait_for()
                _take(page, options.out / f"0-no-results-{name}.png")


def _pages(browser: Any, url: str) -> Iterator[tuple[Any, str]]:
    for width, scheme in VIEWPORTS:
        with open_page(browser, url, width, scheme) as (page, problems):
            yield page, f"{width}-{scheme}"
            sys.stdout.writelines(f"{width} {scheme}: {line}\n" for line in problems)


def _take(page: Any, path: Path) -> None:
    page.wait_for_timeout(500)
    page.screenshot(path=path, full_page=True)


def _take_tabs(page: Any, out: Path, name: str) -> None:
    page.wait_for_selector(".comparison figure img")
    _take(page, out / f"0-results-{name}.png")
    for view, selector in VIEWS.items():
        page.get_by_label(view, exact=True).check()
        page.wait_for_selector(selector)
        page.locator("#figures").screenshot(path=out / f"0-{view.lower().replace(' ', '-')}-{name}.png")
    for number, (title, action) in enumerate(ACTIONS.items(), start=1):
        open_tab(page, title)
        _take(page, out / f"{number}-{title.lower().replace(' ', '-')}-before-{name}.png")
        action(page)
        _take(page, out / f"{number}-{title.lower().replace(' ', '-')}-{name}.png")


def _inspect(page: Any) -> None:
    page.get_by_role("button", name="Use test images of this model").click()
    page.locator("#inspect-prediction .prediction").wait_for()


def _train(page: Any) -> None:
    page.get_by_role("button", name="Use the example photo").click()
    wait_for_file(page, "brick")
    page.get_by_label("Quick").check()
    page.get_by_role("button", name="Train", exact=True).click()
    page.locator("#training .training-status b", has_text="Trained").wait_for()
    page.get_by_role("button", name="Use example photos with defects").click()
    page.locator("#photo-prediction .prediction").wait_for()


def _synthesise(page: Any) -> None:
    page.get_by_role("button", name="Use an example", exact=True).click()
    page.locator("#mask-painter canvas").wait_for()
    paint_stroke(page)
    page.get_by_role("button", name="Generate defects").click()
    page.locator("#synthetic-images li:nth-child(4)").wait_for()


ACTIONS = {"Inspect": _inspect, "One photo": _train, "Synthesise": _synthesise}
"""Action on each of the other tabs before the second screenshot."""


if __name__ == "__main__":
    main()
