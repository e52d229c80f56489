"""The Synthesise tab in a real browser: paint, generate, save, download, and read as a data set."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_server import VIEWPORTS, open_page, open_tab, paint_stroke

from anomalib_defect_plugins.data import DefectFolder

pytestmark = pytest.mark.slow

PAINTED_PIXELS = """() => {
    const canvas = document.querySelector("#mask-painter canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, index) => index % 4 === 3 && value > 127).length;
}"""
"""Counts the painted pixels."""


@pytest.fixture
def page(browser: Any, demo: Any) -> Iterator[Any]:
    """The tab with an image to paint on; the test must cause no problem on the page."""
    with open_page(browser, demo.url) as (page, problems):
        open_tab(page, "Synthesise")
        page.locator(".tabitem:visible input[type=file]").first.set_input_files(demo.folder / "surface.png")
        page.locator("#mask-painter canvas").wait_for()
        yield page
        assert problems == []


def generate(page: Any, category: str, count: int) -> None:
    before = page.locator("#synthetic-images li").count()
    page.get_by_label("Defect category").click()
    page.get_by_role("option", name=category, exact=True).click()
    page.get_by_label("number input for Number of images").fill(str(count))
    page.get_by_role("button", name="Generate defects").click()
    page.locator(f"#synthetic-images li:nth-child({before + count})").wait_for()


def test_defects_are_drawn_in_the_painted_region_and_saved_as_a_data_set(page: Any, demo: Any, tmp_path: Path) -> None:
    paint_stroke(page)
    generate(page, "hole", 2)
    generate(page, "scratch", 1)
    assert "3 images generated" in page.locator("#synthetic-images").inner_text()
    page.get_by_label("Folder name").fill("mine")
    page.get_by_role("button", name="Save folder").click()
    page.locator("#saved-folder", has_text="results/synthetic/mine").wait_for()
    with page.expect_download() as download:
        page.get_by_text("Download as ZIP").click()
    assert download.value.suggested_filename == "mine.zip"
    download.value.save_as(tmp_path / "mine.zip")
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        archive.extractall(tmp_path)
    for folder in (tmp_path / "mine", demo.results / "synthetic/mine"):
        data = DefectFolder(folder, num_workers=0)
        data.setup()
        assert sorted(data.test_data.samples.defect_type) == ["hole", "hole", "scratch"]
        masks = np.stack([np.asarray(data.test_data[index].gt_mask) for index in range(3)])
        assert masks.shape == (3, 300, 400)
        assert masks.any((1, 2)).all()
        # The stroke is in the middle of the image, and so are all defects.
        assert not masks[:, :75].any()
        assert not masks[:, :, :100].any()
    page.get_by_role("button", name="Save folder").click()
    page.locator("#saved-folder", has_text="results/synthetic/mine-2").wait_for()
    page.get_by_label("Folder name").fill("mine")
    page.get_by_role("button", name="Save folder").click()
    page.locator(".toast-body", has_text="there is a folder mine already").wait_for()


def test_folder_name_with_a_path_is_refused(page: Any, demo: Any) -> None:
    paint_stroke(page)
    generate(page, "stain", 1)
    page.get_by_label("Folder name").fill("../../elsewhere")
    page.get_by_role("button", name="Save folder").click()
    page.locator(".toast-body", has_text="cannot be the name of the folder").wait_for()
    assert not list(demo.folder.rglob("elsewhere*"))


def test_paint_can_be_erased_cleared_and_filled_and_a_new_image_resets_it(page: Any) -> None:
    paint_stroke(page)
    assert 0 < page.evaluate(PAINTED_PIXELS) < 300 * 400 / 10
    page.get_by_label("Erase").check()
    paint_stroke(page)
    assert page.evaluate(PAINTED_PIXELS) == 0
    for button, pixels in (("Paint all", 300 * 400), ("Clear", 0), ("Paint all", 300 * 400)):
        page.locator("#mask-painter").get_by_role("button", name=button).click()
        assert page.evaluate(PAINTED_PIXELS) == pixels
    page.get_by_role("button", name="Use an example").click()  # of another size
    page.locator("#mask-painter canvas[width='128']").wait_for()
    assert page.evaluate(PAINTED_PIXELS) == 0
    page.get_by_role("button", name="Generate defects").click()
    page.locator(".toast-body", has_text="nothing is painted yet").wait_for()


@pytest.mark.parametrize(("width", "scheme"), VIEWPORTS)
def test_tab_fits_the_window(browser: Any, demo: Any, width: int, scheme: str) -> None:
    with open_page(browser, demo.url, width, scheme) as (page, problems):
        open_tab(page, "Synthesise")
        page.get_by_role("button", name="Use an example").click()
        page.locator("#mask-painter canvas").wait_for()
        page.get_by_role("button", name="Paint all").click()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_role("button", name="Generate defects").click()
        page.locator("#synthetic-images li:nth-child(4)").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert problems == []
