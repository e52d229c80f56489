"""The demo in a real browser when there are no results yet; the tests share a server, because it starts slowly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_results import write_models
from demo_server import open_page, open_tab, serve_demo
from results_folder import Layout, write_results

pytestmark = pytest.mark.slow

ROWS = "#figures tbody tr"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """URL of a demo and its results folder, which does not exist at first and never has a model."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    results = tmp_path_factory.mktemp("empty") / "results"
    with serve_demo(results) as url:
        yield url, results


def test_without_results_the_built_in_benchmark_can_be_run_and_stopped(
    browser: Any, empty: tuple[str, Path], tmp_path: Path
) -> None:
    url, results = empty
    with open_page(browser, url) as (page, problems):
        open_tab(page, "Results")
        page.get_by_text("No results yet").wait_for()
        assert not page.get_by_text("Compare two models").is_visible()
        page.get_by_role("button", name="Run the built-in benchmark").click()
        page.get_by_role("progressbar", name="Finished part").wait_for()
        assert "0 of 4 runs finished" in page.locator(".benchmark-progress").inner_text()
        assert "current model: HtpGan" in page.locator(".benchmark-progress").inner_text()
        # Another user sees the same benchmark and cannot start a second one.
        with open_page(browser, url) as (other, _):
            open_tab(other, "Results")
            other.get_by_text("Benchmark running").wait_for()
            assert not other.get_by_role("button", name="Stop", exact=True).locator("visible=true").count()
            assert not other.get_by_role("button", name="Run the built-in benchmark").is_visible()
        # The first results fill the tab, here those of another benchmark.
        results.mkdir(exist_ok=True)
        write_results(tmp_path / "made", Layout(images=2)).rename(results / "made")
        page.locator(ROWS).first.wait_for()
        page.locator(".comparison figure img").first.wait_for()
        page.get_by_role("button", name="Stop", exact=True).click()
        page.get_by_text("Stopped", exact=True).wait_for()
        assert page.get_by_role("button", name="Run the built-in benchmark").is_visible()
        assert page.locator(ROWS).count() == 4
        assert problems == []


def test_a_new_user_sees_heat_maps_of_the_example_model_at_once(browser: Any, empty: tuple[str, Path]) -> None:
    url, _ = empty
    with open_page(browser, url) as (page, problems):
        page.locator("#inspect-grid", has_text="2 of 3 defective").wait_for()
        assert page.locator("#inspect-layers .box").count() >= 1
        assert "Defective" in page.locator("#inspect-prediction").inner_text()
        assert "Example" in page.get_by_label("Trained model").input_value()
        assert problems == []


def test_selecting_the_tab_again_lists_new_models(browser: Any, empty: tuple[str, Path]) -> None:
    url, results = empty
    with open_page(browser, url) as (page, problems):
        open_tab(page, "Inspect")
        open_tab(page, "Results")
        write_models(results / "models", Layout(images=2).size)
        open_tab(page, "Inspect")
        page.get_by_role("button", name="Use test images of this model").wait_for()
        page.get_by_label("Trained model").click()
        page.get_by_role("option", name="Broken").click()
        open_tab(page, "Results")
        open_tab(page, "Inspect")
        page.wait_for_timeout(1000)
        assert "Broken" in page.get_by_label("Trained model").input_value()
        assert problems == []
