"""Takes screenshots of every tab of the demo in use, as wide as a telephone and as a desk, in light and in dark.

Usage: python tools/demo_screenshots.py OUT [--results DIR]

Needs chromium and playwright. Without --results it shows made-up ones. Whatever the browser has to say is printed.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))

from demo_results import write_demo
from demo_server import LOOKS, browsing, open_tab, opened, paint, serving, wait_for_file
from results_folder import Layout

VIEWS = {"Accuracy and latency": "#figures picture >> visible=true", "Categories": "#figures .heat"}
"""Views of the results beside the first, and what appears in each."""

MADE_UP = Layout(
    models=("HtpGan", "OneStage", "PaDiM"), supervisions=("normal", "masks"), images=60, size=(256, 192), seeds=(0, 1)
)


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browsing() as browser:
        if options.results is None:
            write_demo(Path(folder), MADE_UP)
        with serving(options.results or Path(folder, "results")) as url:
            for page, name in _pages(browser, url):
                _take_tabs(page, options.out, name)
        with serving(Path(folder, "none")) as url:
            for page, name in _pages(browser, url):
                page.get_by_text("No results yet").wait_for()
                _take(page, options.out / f"0-no-results-{name}.png")


def _pages(browser: Any, url: str) -> Iterator[tuple[Any, str]]:
    for width, scheme in LOOKS:
        with opened(browser, url, width, scheme) as (page, said):
            yield page, f"{width}-{scheme}"
            sys.stdout.writelines(f"{width} {scheme}: {line}\n" for line in said)


def _take(page: Any, path: Path) -> None:
    page.wait_for_timeout(500)
    page.screenshot(path=path, full_page=True)


def _take_tabs(page: Any, out: Path, name: str) -> None:
    page.wait_for_selector(".walk figure img")
    _take(page, out / f"0-results-{name}.png")
    for view, mark in VIEWS.items():
        page.get_by_label(view, exact=True).check()
        page.wait_for_selector(mark)
        page.locator("#figures").screenshot(path=out / f"0-{view.lower().replace(' ', '-')}-{name}.png")
    for number, (title, use) in enumerate(USES.items(), start=1):
        open_tab(page, title)
        _take(page, out / f"{number}-{title.lower().replace(' ', '-')}-before-{name}.png")
        use(page)
        _take(page, out / f"{number}-{title.lower().replace(' ', '-')}-{name}.png")


def _inspect(page: Any) -> None:
    page.get_by_role("button", name="Take some of its test images").click()
    page.locator("#inspect-verdict .verdict").wait_for()


def _train(page: Any) -> None:
    page.get_by_role("button", name="Take an example: bricks").click()
    wait_for_file(page, "brick")
    page.get_by_label("Quick").check()
    page.get_by_role("button", name="Train", exact=True).click()
    page.locator("#training .said b", has_text="Trained").wait_for()
    page.get_by_role("button", name="Take examples with drawn defects").click()
    page.locator("#photo-verdict .verdict").wait_for()


def _synthesise(page: Any) -> None:
    page.get_by_role("button", name="Take an example", exact=True).click()
    page.locator("#painted canvas").wait_for()
    paint(page)
    page.get_by_role("button", name="Make defects").click()
    page.locator("#made li:nth-child(4)").wait_for()


USES = {"Inspect": _inspect, "One photo": _train, "Synthesise": _synthesise}
"""What is done in the tabs beside the first."""


if __name__ == "__main__":
    main()
